//! A child process of a run: lines of JSON from it, commands to it, its end by its own pid.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::usage::{Cpu, Memory};
use crate::failure::{Doing, Failure, Result};

/// How much of a child's log a failure quotes.
const QUOTED_LINES: usize = 12;

/// Between two looks at a child that is to end.
const POLL: Duration = Duration::from_millis(10);

/// A running child; killed if it is dropped before it has ended.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts `command`; what it writes to stderr goes to `<logs>/<name>.log`.
    pub(crate) fn spawn(name: &str, command: &mut Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let stderr = File::create(&log).doing(|| format!("creating {}", log.display()))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .doing(|| format!("starting {name} ({})", command.get_program().display()))?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                    // A child may go on talking when nobody listens any more.
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, lines, log })
    }

    /// Its next line of JSON.
    pub(crate) fn answer(&mut self, patience: Duration) -> Result<Value> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => serde_json::from_str(&line)
                .doing(|| format!("{} printed {line:?}, which is no JSON", self.name)),
            Err(RecvTimeoutError::Timeout) => {
                Err(self.blame(&format!("said nothing for {patience:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.blame("ended")),
        }
    }

    /// Its answer to a command on its standard input.
    pub(crate) fn ask(&mut self, command: &str, patience: Duration) -> Result<Value> {
        let stdin = self.stdin.as_mut().ok_or_else(|| Failure::new("no standard input"))?;
        writeln!(stdin, "{command}").doing(|| format!("asking {} to {command}", self.name))?;
        self.answer(patience)
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        Cpu::of(self.child.id())
    }

    /// Resident memory now, and its peak so far.
    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.child.id())
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; returns what it still printed and whether it succeeded.
    pub(crate) fn finish(&mut self, patience: Duration) -> Result<(Vec<Value>, bool)> {
        let deadline = Instant::now() + patience;
        loop {
            let waiting = || format!("waiting for {}", self.name);
            if let Some(status) = self.child.try_wait().doing(waiting)? {
                let lines = self.lines.iter().filter_map(|line| serde_json::from_str(&line).ok());
                return Ok((lines.collect(), status.success()));
            }
            if Instant::now() > deadline {
                return Err(self.blame(&format!("had not ended after {patience:?}")));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Sends SIGTERM and waits for its end.
    pub(crate) fn terminate(&mut self, patience: Duration) -> Result<(Vec<Value>, bool)> {
        self.signal("TERM")?;
        self.finish(patience)
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.id().to_string();
        let kill = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        let status = kill.doing(|| format!("running kill for {}", self.name))?;
        let refused = || Failure::new(format!("{} could not be sent SIG{name}", self.name));
        status.success().then_some(()).ok_or_else(refused)
    }

    fn blame(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let quoted = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n    ");
        Failure::new(format!("{} {what}; its log ends:\n    {quoted}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
