//! Runs other programs to their end, and says what they said when they fail.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::error::Error;

/// Variables that would send a cluster's own traffic through somebody's proxy.
const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// A command that reads nothing and knows no proxy.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    // containerd looks for runc, the CNI plugins for iptables.
    command.env("PATH", std::env::join_paths(folders()).unwrap_or_default());
    for name in PROXIES {
        command.env_remove(name);
    }
    command
}

/// Runs `program` and returns its standard output, or an error with everything that it printed.
pub(crate) fn run<A: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = A>,
) -> Result<String, Error> {
    let mut command = command(program);
    command.args(args);
    finish(&mut command)
}

/// Runs a prepared command to its end.
pub(crate) fn finish(command: &mut Command) -> Result<String, Error> {
    let output = command.output();
    outcome(command, output)
}

/// Standard output of a command that succeeded.
pub(crate) fn outcome(command: &Command, output: std::io::Result<Output>) -> Result<String, Error> {
    let failed = |outcome: String, output: String| Error::Command {
        command: line(command),
        outcome,
        output,
    };
    let output =
        output.map_err(|error| failed(format!("cannot be run: {error}"), String::new()))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let told = format!("{}{stdout}", String::from_utf8_lossy(&output.stderr));
    Err(failed(format!("ended with {}", output.status), told))
}

/// The command as a person would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Where a program lies, if it can be found.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The folders of programs. Administrators' are often not on the path of a build user.
fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administrators = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(administrators).collect()
}
