//! `ringtail control`: one command for a fleet that runs on this machine.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::socket::{ENDING, directory};
use super::{Command, Verb};

/// Flags of `ringtail control`.
#[derive(Args, Clone, Debug)]
pub struct ControlOptions {
    /// What to do.
    #[arg(value_enum)]
    pub verb: Verb,
    /// To which gateway. Default: a new one for `add`, else the oldest that can be meant.
    pub gateway: Option<String>,
    /// Where the fleet listens, as it said when it started. Default: the only one that runs.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Why nobody was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The command makes none.
    #[error("{0}")]
    Command(String),
    /// There is no fleet.
    #[error("no fleet of yours runs here; start one with `ringtail run FILE`")]
    Nobody,
    /// There are several.
    #[error("several fleets run here; choose one with --socket:\n  {0}")]
    Several(String),
    /// The directory of sockets cannot be used.
    #[error("the sockets of fleets cannot be looked for: {0}")]
    Directory(io::Error),
    /// A fleet does not answer.
    #[error("the fleet at {path} does not answer: {source}")]
    Silent {
        /// Where it should be.
        path: String,
        /// Why it does not.
        source: io::Error,
    },
}

/// Sends the command, waits until it is done, and prints what became of it. The exit code is 1 when it could
/// not be done.
///
/// # Errors
/// When there is no fleet that could be asked.
pub fn run(options: ControlOptions) -> Result<ExitCode, ControlError> {
    let ControlOptions { verb, gateway, socket } = options;
    let command = Command::parse(&Command { verb, gateway }.to_string());
    let command = command.map_err(ControlError::Command)?;
    let (path, stream) = match socket {
        Some(path) => {
            let stream = UnixStream::connect(&path).map_err(|source| silent(&path, source))?;
            (path, stream)
        }
        None => only(running().map_err(ControlError::Directory)?)?,
    };
    let answer = ask(stream, &command).map_err(|source| silent(&path, source))?;
    if let Some(text) = answer.strip_prefix("ok ") {
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let text = answer.strip_prefix("no ").unwrap_or("the fleet ended before it answered\n");
    eprint!("{text}");
    Ok(ExitCode::FAILURE)
}

fn silent(path: &Path, source: io::Error) -> ControlError {
    ControlError::Silent { path: path.display().to_string(), source }
}

/// Fleets that run, each with a connection: a file alone may be what a killed one left.
fn running() -> io::Result<Vec<(PathBuf, UnixStream)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory()?)? {
        let path = entry?.path();
        let named = path.extension().is_some_and(|ending| ending == ENDING);
        if let Some(stream) = named.then(|| UnixStream::connect(&path).ok()).flatten() {
            found.push((path, stream));
        }
    }
    Ok(found)
}

fn only(mut running: Vec<(PathBuf, UnixStream)>) -> Result<(PathBuf, UnixStream), ControlError> {
    if running.len() > 1 {
        let mut paths: Vec<String> =
            running.iter().map(|(path, _)| path.display().to_string()).collect();
        paths.sort();
        return Err(ControlError::Several(paths.join("\n  ")));
    }
    running.pop().ok_or(ControlError::Nobody)
}

fn ask(mut stream: UnixStream, command: &Command) -> io::Result<String> {
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
