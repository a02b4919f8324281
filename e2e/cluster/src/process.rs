//! One process of a cluster: started with a mark by which it is known, stopped, resumed, killed, restarted.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::command;
use crate::error::{Error, OnFile};

/// In the environment of every process of a cluster: the id of its run. It is inherited, it cannot be had by
/// chance, and so it is what proves to a later sweep that a process is ours.
pub(crate) const MARK: &str = "RINGTAIL_CLUSTER_RUN";

/// How much of a log an error quotes.
const TAIL_LINES: usize = 15;

/// A fork right after the start takes far less; more means that the launcher itself failed.
const FORK_WAIT: Duration = Duration::from_secs(5);

/// A thread stops when it next leaves the kernel or gets a processor.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Between two looks at a process that is about to fork or stop.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// How often, and how far apart, a clearing looks for processes again: one may fork while it is looked for.
const KILL_ROUNDS: u32 = 100;
const KILL_PAUSE: Duration = Duration::from_millis(20);

/// How to start a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    /// Program and arguments, wrappers such as `nsenter` first.
    pub(crate) words: Vec<OsString>,
    /// Whether the wrappers fork, so that the process proper is the child of the one that is started.
    pub(crate) forks: bool,
}

/// A process of a cluster.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    mark: String,
    launch: Launch,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// The process proper. A pidfd never means another process that got the same number later.
    target: OwnedFd,
    pid: Pid,
}

// === impl Launch ===

impl Launch {
    /// Starts a program with these words, not forking.
    pub(crate) fn new<W: Into<OsString>>(words: impl IntoIterator<Item = W>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), forks: false }
    }

    /// The same behind some wrapper.
    pub(crate) fn behind<W: Into<OsString>>(self, wrapper: impl IntoIterator<Item = W>) -> Self {
        let words = wrapper.into_iter().map(Into::into).chain(self.words).collect();
        Self { words, forks: self.forks }
    }
}

// === impl Process ===

impl Process {
    /// Starts a process that logs to `<logs>/<name>.log`.
    pub(crate) fn start(
        name: &str,
        launch: Launch,
        mark: &str,
        logs: &Path,
    ) -> Result<Self, Error> {
        let process = Self {
            name: name.to_owned(),
            log: logs.join(format!("{name}.log")),
            mark: mark.to_owned(),
            launch,
            running: Mutex::new(None),
        };
        process.restart()?;
        Ok(process)
    }

    /// Its name, as in the file name of its log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that it logs to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The id of the process proper while it runs.
    pub fn pid(&self) -> Option<u32> {
        let running = self.running();
        running.as_ref().map(|running| running.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Stops it where it is (SIGSTOP), and returns when it has stopped: connections stay open and nothing is
    /// answered.
    pub fn freeze(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + STOP_WAIT;
        // The signal is sent to the process; each thread stops when it next looks, after a last answer maybe.
        while self.pid().is_some_and(|pid| !all_stopped(pid)) {
            if Instant::now() > deadline {
                return Err(self.error("does not stop"));
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    /// Ends it at once (SIGKILL), and returns when it is gone. Killing what does not run is fine.
    pub fn kill(&self) -> Result<(), Error> {
        let Some(mut running) = self.running().take() else { return Ok(()) };
        // It may have ended by itself: then there is nothing to send a signal to.
        let _ = pidfd_send_signal(&running.target, Signal::KILL);
        let _ = running.child.kill();
        running.child.wait().on("wait for", &self.name).map(|_| ())
    }

    /// Starts it as it was started first, after killing it if it still runs.
    pub fn restart(&self) -> Result<(), Error> {
        self.kill()?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.on("open", &self.log)?;
        let both = log.try_clone().on("open", &self.log)?;
        let mut words = self.launch.words.iter();
        let mut start = command::command(words.next().cloned().unwrap_or_default());
        start.args(words).env(MARK, &self.mark).stdout(log).stderr(both);
        // Its own group: Ctrl-C in a terminal is for the harness, which ends its processes in order.
        let mut child = start.process_group(0).spawn().on("start", &self.name)?;
        match self.target(&mut child) {
            Ok((pid, target)) => {
                *self.running() = Some(Running { child, target, pid });
                Ok(())
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Fails with the end of the log if it has ended.
    pub fn check(&self) -> Result<(), Error> {
        let mut running = self.running();
        let Some(running) = running.as_mut() else { return Err(self.error("is not running")) };
        match running.child.try_wait().on("ask for the state of", &self.name)? {
            Some(status) => Err(self.error(&format!("ended with {status}"))),
            None => Ok(()),
        }
    }

    /// An error about this process, with the end of its log.
    pub(crate) fn error(&self, state: &str) -> Error {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Error::Process {
            name: self.name.clone(),
            state: state.to_owned(),
            log: self.log.clone(),
            tail,
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let running = self.running();
        let Some(running) = running.as_ref() else { return Err(self.error("is not running")) };
        pidfd_send_signal(&running.target, signal).map_err(Into::into).on("signal", &self.name)?;
        // A wrapper that forked stops with its child, and must be told as well that it goes on.
        if self.launch.forks {
            let _ = kill_process(Pid::from_child(&running.child), signal);
        }
        Ok(())
    }

    /// The process proper: the child, or the child's child where wrappers fork.
    fn target(&self, child: &mut Child) -> Result<(Pid, OwnedFd), Error> {
        let launched = Pid::from_child(child);
        let pid = if self.launch.forks { self.forked(launched, child)? } else { launched };
        let target = pidfd_open(pid, PidfdFlags::empty()).map_err(Into::into);
        Ok((pid, target.on("open the process of", &self.name)?))
    }

    /// Waits for the launcher's only child.
    fn forked(&self, launcher: Pid, child: &mut Child) -> Result<Pid, Error> {
        let deadline = Instant::now() + FORK_WAIT;
        loop {
            if let Some(only) = children(launcher).first() {
                return Ok(*only);
            }
            let ended = child.try_wait().on("ask for the state of", &self.name)?.is_some();
            if ended || Instant::now() > deadline {
                return Err(self.error("did not start"));
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Whether every thread of a process is stopped, or gone.
fn all_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    // The state follows the name, which is in brackets and may hold anything.
    states.all(|stat| {
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    })
}

/// The children of a process.
fn children(of: Pid) -> Vec<Pid> {
    let pid = of.as_raw_nonzero();
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
}

/// Kills every process that carries this mark, and returns when none is left or nothing more can be done.
pub(crate) fn kill_marked(mark: &str) {
    for _ in 0..KILL_ROUNDS {
        let marked = marked(mark);
        if marked.is_empty() {
            return;
        }
        for target in marked {
            let _ = pidfd_send_signal(&target, Signal::KILL);
        }
        std::thread::sleep(KILL_PAUSE);
    }
}

/// Handles of every live process with this mark.
fn marked(mark: &str) -> Vec<OwnedFd> {
    let wanted = format!("{MARK}={mark}");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter_map(|pid| {
        // Opened before it is read: what is signalled is then the process whose environment was read, or
        // nothing.
        let target = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
        environment.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes()).then_some(target)
    })
    .collect()
}
