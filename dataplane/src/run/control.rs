//! What a running fleet can be asked for: by keys, by `ringtail control`, by the demo.

use std::fmt;

use clap::ValueEnum;
use tokio::sync::oneshot;

pub mod client;
pub mod socket;

/// A line is a verb and a name; names are as long as a DNS label.
pub const LINE_MAX: usize = 128;
/// What a gateway may be called at most: a DNS label, as a pod.
const NAME_MAX: usize = 63;

/// What can be done to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// Start another one, or one that has ended again under its name.
    Add,
    /// SIGTERM: it hands over what it holds and ends.
    Drain,
    /// SIGKILL: it ends at once with what it holds.
    Kill,
    /// SIGSTOP: it stands still, as a machine that hangs.
    Freeze,
    /// SIGCONT: it goes on.
    Thaw,
    /// Nothing: show the table.
    Status,
}

/// A verb and whom it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What is to be done.
    pub verb: Verb,
    /// To whom. Without: a new one for `add`, else the oldest for which it makes sense.
    pub gateway: Option<String>,
}

/// What became of a command, as a sentence.
pub type Answer = Result<String, String>;

/// A command, and who waits for its answer.
#[derive(Debug)]
pub struct Asked {
    /// What is to be done.
    pub command: Command,
    /// Answered when it is done, or cannot be.
    pub answer: oneshot::Sender<Answer>,
}

// === impl Command ===

impl Command {
    /// About nobody in particular.
    pub const fn of(verb: Verb) -> Self {
        Self { verb, gateway: None }
    }

    /// Reads what [`fmt::Display`] writes.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let verb = Verb::from_str(verb, false).map_err(|_| format!("{verb:?} is no command"))?;
        let gateway = words.next().map(str::to_owned);
        if words.next().is_some() {
            return Err("one gateway at a time".to_owned());
        }
        gateway.as_deref().map_or(Ok(()), check_name)?;
        Ok(Self { verb, gateway })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb.name())?;
        self.gateway.as_ref().map_or(Ok(()), |gateway| write!(f, " {gateway}"))
    }
}

/// Names go to command lines, tables and the ring: letters, digits and dashes.
fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let fine = name.len() <= NAME_MAX && name.chars().all(fits) && !name.starts_with('-');
    if fine {
        return Ok(());
    }
    Err(format!("{name:?} is no name: up to {NAME_MAX} letters, digits and dashes"))
}

// === impl Verb ===

impl Verb {
    /// As it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Drain => "drain",
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Status => "status",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_the_way() {
        for verb in Verb::value_variants() {
            for gateway in [None, Some("gateway-7".to_owned())] {
                let command = Command { verb: *verb, gateway };
                assert_eq!(Command::parse(&format!("{command}\n")), Ok(command));
            }
        }
    }

    #[test]
    fn what_is_no_command_is_told() {
        let long = format!("add {}", "x".repeat(64));
        #[rustfmt::skip]
        let cases = [
            ("", r#""" is no command"#), ("explode", r#""explode" is no command"#),
            ("kill gateway-0 gateway-1", "one gateway at a time"),
            ("add --export", "is no name"), ("add ../x", "is no name"), (long.as_str(), "is no name"),
        ];
        for (line, expected) in cases {
            let error = Command::parse(line).unwrap_err();
            assert!(error.contains(expected), "{line:?}: {error}");
        }
    }
}
