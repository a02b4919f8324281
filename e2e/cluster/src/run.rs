//! The folder of one running cluster: claimed by a lock, and cleared by whoever finds the lock free.

use std::fs::{self, DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroup;
use crate::error::{Error, OnFile};
use crate::network::{self, Addresses};
use crate::process::{self, MARK};
use crate::wait;

/// Clusters side by side on one machine: as many as there are address ranges (`network.rs`).
const RUNS_MAX: u8 = 32;

/// Ends the processes of a run when the pipe to it closes, that is, when the owner is gone however it went.
/// What is not a process (folders, network, cgroups) waits for the next start or for `ringtail-cluster down`.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
read -r _
for p in /proc/[0-9]*; do
  tr '\0' '\n' < "$p/environ" | grep -qxF "$1" && kill -9 "${p#/proc/}"
done 2> /dev/null
"#;

/// In the folder of a run that made a network of its name.
const NETWORK: &str = "network";

/// A claimed run.
#[derive(Debug)]
pub(crate) struct Run {
    /// Everything of the cluster that is a file.
    pub(crate) folder: PathBuf,
    /// Prefix of everything that has a name on this machine: `rt0`, `rt1`, ...
    pub(crate) name: String,
    /// Which of the address ranges.
    pub(crate) slot: u8,
    /// What its processes are marked with.
    pub(crate) mark: String,
    /// Locked for as long as this process lives; the kernel frees it when the process dies.
    _owner: File,
    watchdog: Option<(Child, ChildStdin)>,
}

// === impl Run ===

impl Run {
    /// Claims a free place, after clearing away what dead owners left behind.
    pub(crate) fn claim() -> Result<Self, Error> {
        let base = base()?;
        let _held = lock_all(&base)?;
        sweep_held(&base)?;
        for slot in 0..RUNS_MAX {
            let name = format!("rt{slot}");
            let folder = base.join(&name);
            // A network of this name without a folder belongs to somebody else.
            if folder.exists() || network::exists(&name) {
                continue;
            }
            return Self::make(folder, name, slot);
        }
        Err(Error::Misuse(format!(
            "{RUNS_MAX} clusters run already; `ringtail-cluster down` ends them"
        )))
    }

    fn make(folder: PathBuf, name: String, slot: u8) -> Result<Self, Error> {
        DirBuilder::new().mode(0o700).create(&folder).on("create", &folder)?;
        let owner = take_lock(&folder)?.ok_or_else(|| Error::Misuse(format!("{name} is taken")))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mark = format!("{name}-{}-{}", std::process::id(), now.as_nanos());
        let file = folder.join("mark");
        fs::write(&file, &mark).on("write", &file)?;
        let file = folder.join("owner.pid");
        fs::write(&file, std::process::id().to_string()).on("write", &file)?;
        let logs = folder.join("log");
        fs::create_dir(&logs).on("create", &logs)?;
        let watchdog = Some(watch(&mark)?);
        Ok(Self { folder, name, slot, mark, _owner: owner, watchdog })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes the network of the cluster, which this run owns from then on.
    pub(crate) fn make_network(&self) -> Result<Addresses, Error> {
        let addresses = Addresses::new(self.slot);
        network::claim(&self.name)?;
        let file = self.path(NETWORK);
        fs::write(&file, "").on("write", &file)?;
        network::create(&self.name, addresses)?;
        Ok(addresses)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path("log")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // With the lock of all: nobody must claim this place between two of the steps.
        let held = base().and_then(|base| lock_all(&base));
        clear(&self.folder);
        drop(held);
        if let Some((mut watchdog, pipe)) = self.watchdog.take() {
            drop(pipe);
            let _ = watchdog.wait();
        }
    }
}

/// Clears away the runs whose owner is dead; returns their names.
fn sweep() -> Result<Vec<String>, Error> {
    let base = base()?;
    let _held = lock_all(&base)?;
    sweep_held(&base)
}

/// Ends every run of this user: asks living owners to (SIGTERM), clears up after dead ones. Returns the
/// names of those that are gone.
pub async fn end_others(within: Duration) -> Result<Vec<String>, Error> {
    let mut gone = sweep()?;
    let owners = owners()?;
    for (owner, _) in &owners {
        // It may have ended in between; then the loop below sees that.
        let _ = pidfd_send_signal(owner, Signal::TERM);
    }
    wait::until(within, "the end of every cluster's owner", &[], async || {
        owners.iter().all(|(_, folder)| !folder.exists() || is_free(folder)).then_some(())
    })
    .await?;
    gone.extend(owners.iter().map(|(_, folder)| name_of(folder)));
    sweep()?;
    Ok(gone)
}

/// Handles of living owners, with the folders of their runs.
fn owners() -> Result<Vec<(OwnedFd, PathBuf)>, Error> {
    let base = base()?;
    let _held = lock_all(&base)?;
    let mut owners = Vec::new();
    for folder in folders(&base)? {
        let pid = fs::read_to_string(folder.join("owner.pid")).ok();
        let pid = pid.and_then(|text| Pid::from_raw(text.parse().ok()?));
        let owner = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Opened first and then found locked: the lock proves that the process of this number is the owner.
        if let (Some(owner), None) = (owner, take_lock(&folder)?) {
            owners.push((owner, folder));
        }
    }
    Ok(owners)
}

fn is_free(folder: &Path) -> bool {
    matches!(take_lock(folder), Ok(Some(_)))
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn sweep_held(base: &Path) -> Result<Vec<String>, Error> {
    let mut swept = Vec::new();
    for folder in folders(base)? {
        if let Some(_owner) = take_lock(&folder)? {
            clear(&folder);
            swept.push(name_of(&folder));
        }
    }
    Ok(swept)
}

/// Ends and removes everything of a run, in an order in which nothing can come back.
fn clear(folder: &Path) {
    let name = name_of(folder);
    // Without the mark of a network, a network or cgroup of this name is another run's.
    let owns_names = folder.join(NETWORK).exists();
    let nodes = if owns_names { cgroup::nodes_of(&name) } else { Vec::new() };
    let groups: Vec<_> =
        nodes.iter().filter_map(|node| cgroup::Cgroup::new(&name, node).ok()).collect();
    // A frozen process of cgroup version 1 dies only once it is thawed.
    groups.iter().for_each(|group| drop(group.freeze(false)));
    if let Ok(mark) = fs::read_to_string(folder.join("mark")) {
        process::kill_marked(&mark);
    }
    if owns_names {
        network::remove(&name);
    }
    groups.iter().for_each(cgroup::Cgroup::remove);
    let _ = fs::remove_dir_all(folder);
}

/// Starts the watchdog. It carries no mark itself, so a clearing leaves it alone.
fn watch(mark: &str) -> Result<(Child, ChildStdin), Error> {
    let mut shell = Command::new("sh");
    shell.args(["-c", WATCHDOG, "watchdog", &format!("{MARK}={mark}")]);
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn().on("start", "sh")?;
    match child.stdin.take() {
        Some(pipe) => Ok((child, pipe)),
        None => Err(Error::Misuse("the watchdog has no pipe".to_owned())),
    }
}

/// The folder of all runs of this user.
fn base() -> Result<PathBuf, Error> {
    let user = rustix::process::geteuid().as_raw();
    let base = std::env::temp_dir().join(format!("ringtail-cluster-{user}"));
    if !base.exists() {
        // Another process may be as quick.
        let _ = DirBuilder::new().mode(0o700).create(&base);
    }
    let owner = fs::metadata(&base).on("look at", &base)?.uid();
    if owner != user {
        return Err(Error::Misuse(format!("{} belongs to somebody else", base.display())));
    }
    Ok(base)
}

fn folders(base: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(base).on("list", base)?.flatten();
    Ok(entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
}

/// One at a time claims and clears.
fn lock_all(base: &Path) -> Result<File, Error> {
    let path = base.join("lock");
    let file = File::create(&path).on("create", &path)?;
    file.lock().on("lock", &path)?;
    Ok(file)
}

/// The lock of a run, if its owner is dead.
fn take_lock(folder: &Path) -> Result<Option<File>, Error> {
    let path = folder.join("owner.lock");
    let file = File::create(&path).on("create", &path)?;
    Ok(file.try_lock().is_ok().then_some(file))
}
