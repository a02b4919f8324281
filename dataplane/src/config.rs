//! The manifest while the process runs: what is in force, and what becomes of a newer one.
//!
//! A newer manifest comes from the pipeline's ConfigMap where there is a cluster, and from the file that the
//! process was started with. The file is read again every second, through whatever links lead to it, which is
//! how a mounted ConfigMap changes; while the API server answers, the ConfigMap itself is newer and the file
//! is left alone. Of a valid manifest `spec.sampling` applies at once; other differences wait for a restart.
//! A wrong one changes nothing and is shown.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringtail_crds::ValidPipeline;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::discovery::Health;
use crate::stats::ConfigStats;

/// How often the file is read: a small file in memory, and five chances within the 5 s that a change may
/// take.
pub const READ_EVERY: Duration = Duration::from_secs(1);
/// Hexadecimal digits of a hash that are shown.
const HASH_DIGITS: usize = 16;
/// Characters of an error that are shown; a wrong manifest can have a problem a line.
const ERROR_MAX: usize = 1000;

/// A manifest that was read and is valid.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub pipeline: ValidPipeline,
    /// The hash of its bytes.
    pub hash: String,
}

/// Which manifest is in force, and how it came to be.
#[derive(Debug)]
pub struct InForce {
    shown: Mutex<ConfigStats>,
    /// Manifests taken over since the start.
    pub reloads: AtomicU64,
    /// Manifests refused since the start.
    pub refusals: AtomicU64,
}

/// The manifest in the cluster, and how its watch fares.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Its newest text.
    pub texts: watch::Receiver<Option<Arc<str>>>,
    /// How the watch fares.
    pub health: Arc<Health>,
}

/// Follows a manifest.
#[derive(Debug)]
pub struct Follower {
    /// The file that the process was started with.
    pub path: PathBuf,
    /// The pipeline that the process is of.
    pub name: String,
    /// The manifest in the cluster, if there is one.
    pub remote: Option<Remote>,
    /// Where the outcome is shown.
    pub in_force: Arc<InForce>,
    /// How often the file is read: [`READ_EVERY`].
    pub read_every: Duration,
}

/// What takes a new manifest into use.
pub trait Apply: Send {
    /// Uses what can be changed while running.
    ///
    /// # Errors
    /// Why it cannot be used; then nothing has changed.
    fn apply(&mut self, pipeline: ValidPipeline)
    -> impl Future<Output = Result<(), String>> + Send;
}

// === impl Loaded ===

impl Loaded {
    /// Reads a manifest from a file.
    ///
    /// # Errors
    /// Every problem of it, a line each, with the file's name.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        Self::parse(&text).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(|p| format!("{shown}: {p}")).collect();
            lines.join("\n")
        })
    }

    fn parse(text: &str) -> Result<Self, Vec<String>> {
        match ringtail_crds::validate(text) {
            Ok(pipeline) => Ok(Self { pipeline, hash: hash(text) }),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of a manifest's bytes.
pub fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(HASH_DIGITS);
    digits
}

// === impl InForce ===

impl InForce {
    /// The manifest that the process starts with.
    pub fn new(hash: String) -> Self {
        Self {
            shown: Mutex::new(ConfigStats { hash, error: None }),
            reloads: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        }
    }

    /// What `/stats` shows.
    pub fn stats(&self) -> ConfigStats {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ConfigStats> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn took_over(&self, hash: String) {
        self.reloads.fetch_add(1, Relaxed);
        tracing::info!(%hash, "a new manifest is in force");
        *self.lock() = ConfigStats { hash, error: None };
    }

    fn refused(&self, mut why: String) {
        self.refusals.fetch_add(1, Relaxed);
        tracing::error!(%why, "the new manifest is not used; the old one stays in force");
        if let Some((end, _)) = why.char_indices().nth(ERROR_MAX) {
            why.truncate(end);
        }
        self.lock().error = Some(why);
    }
}

// === impl Follower ===

impl Follower {
    /// Follows until the task is aborted.
    pub async fn run(mut self, mut apply: impl Apply) {
        let mut every = interval(self.read_every);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What the file and what anybody said last: the same words twice are no news.
        let mut in_file = self.in_force.stats().hash;
        let mut judged = in_file.clone();
        loop {
            let text: Arc<str> = tokio::select! {
                text = next(&mut self.remote) => text,
                _ = every.tick() => match self.read_file(&mut in_file) {
                    Some(text) => text,
                    None => continue,
                },
            };
            let hash = hash(&text);
            if hash == judged {
                continue;
            }
            judged.clone_from(&hash);
            match self.consider(&text, &mut apply).await {
                Ok(()) => self.in_force.took_over(hash),
                Err(why) => self.in_force.refused(why),
            }
        }
    }

    async fn consider(&self, text: &str, apply: &mut impl Apply) -> Result<(), String> {
        let loaded = Loaded::parse(text).map_err(|problems| problems.join("; "))?;
        if loaded.pipeline.name != self.name {
            let other = &loaded.pipeline.name;
            return Err(format!("it is of pipeline {other}, and this process is of {}", self.name));
        }
        apply.apply(loaded.pipeline).await
    }

    /// The text of the file, if it is new and nobody knows better.
    fn read_file(&self, in_file: &mut String) -> Option<Arc<str>> {
        // A file that is being replaced may be away for a moment; the next reading finds it.
        let text = std::fs::read_to_string(&self.path).ok()?;
        let hash = hash(&text);
        if hash == *in_file {
            return None;
        }
        *in_file = hash;
        let better = self.remote.as_ref().is_some_and(Remote::is_current);
        (!better).then(|| Arc::from(text))
    }
}

/// The next text from the cluster; never without one.
async fn next(remote: &mut Option<Remote>) -> Arc<str> {
    if let Some(remote) = remote {
        while remote.texts.changed().await.is_ok() {
            if let Some(text) = remote.texts.borrow_and_update().clone() {
                return text;
            }
        }
    }
    std::future::pending().await
}

// === impl Remote ===

impl Remote {
    fn is_current(&self) -> bool {
        self.texts.borrow().is_some() && self.health.failing_for().is_zero()
    }
}

#[cfg(test)]
mod tests;
