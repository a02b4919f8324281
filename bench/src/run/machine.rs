//! Where and with what a run was made: figures mean nothing without it.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The machine and the versions.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory: String,
    pub(crate) kernel: String,
    /// One, five and fifteen minutes, before the run: a busy machine makes noise.
    pub(crate) load: String,
    pub(crate) ringtail: String,
    pub(crate) collector: String,
    pub(crate) rustc: String,
    pub(crate) commit: String,
}

impl Machine {
    pub(crate) fn describe(ringtail: &Path, collector: Option<&Path>) -> Self {
        Self {
            cpu: line("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: line("/proc/meminfo", "MemTotal").unwrap_or_else(unknown),
            kernel: first_line(Command::new("uname").arg("-sr")),
            load: std::fs::read_to_string("/proc/loadavg").unwrap_or_else(|_| unknown()),
            ringtail: first_line(Command::new(ringtail).arg("--version")),
            collector: collector
                .map_or_else(unknown, |path| first_line(Command::new(path).arg("--version"))),
            rustc: first_line(Command::new("rustc").arg("--version")),
            commit: commit(),
        }
    }

    /// One sentence for the foot of the table.
    pub(crate) fn sentence(&self) -> String {
        let load = self.load.split(' ').next().unwrap_or_default();
        format!(
            "{} x {}, {}, {}, load average before {load}; {} (commit {}), {}; {}.",
            self.cores,
            self.cpu,
            self.memory,
            self.kernel,
            self.ringtail,
            self.commit,
            self.rustc,
            self.collector
        )
    }
}

/// The commit of the checkout that cargo runs this from, or of the working directory.
fn commit() -> String {
    let mut git = Command::new("git");
    if let Some(package) = std::env::var_os("CARGO_MANIFEST_DIR") {
        git.current_dir(package);
    }
    first_line(git.args(["describe", "--always", "--dirty"]))
}

fn unknown() -> String {
    "unknown".into()
}

fn line(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    let line = output.and_then(|output| String::from_utf8(output.stdout).ok());
    line.and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_else(unknown)
}
