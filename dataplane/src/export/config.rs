//! What an exporter needs to know, and why that may be too little.

use std::path::PathBuf;

use ringtail_crds::logs::Signal;
use ringtail_crds::resolved;

/// What an exporter needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// As the manifest has it.
    pub exporter: resolved::Exporter,
    /// What of what it gets goes this way.
    pub signal: Signal,
    /// Bytes that may wait or be under way.
    pub queue_bytes: u64,
    /// Where the files of Secrets are.
    pub secrets_dir: PathBuf,
    /// What the process calls itself.
    pub identity: String,
    /// Where queues on disk are.
    pub data_dir: Option<PathBuf>,
}

/// An exporter cannot be made of what the manifest and the files say.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

// === impl ConfigError ===

impl ConfigError {
    pub(super) fn of(exporter: &str, why: &str) -> Self {
        Self(format!("exporter {exporter}: {why}"))
    }
}
