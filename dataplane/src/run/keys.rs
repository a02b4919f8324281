//! Keys of a terminal: what each does, and how they are read while the terminal stays as it is for the rest.
//!
//! Lines are not gathered and nothing is echoed, but Ctrl-C is a signal as ever and what is printed looks as
//! ever. However the fleet ends, the terminal gets its old ways back, as [`Keys`] are dropped then.

use std::io::{self, IsTerminal, Stdin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::sync::mpsc;

use super::control::Verb;

/// How soon a reader whose keys are not wanted any more ends, and how soon the terminal is set again after
/// somebody had stopped us with Ctrl-Z.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Keys that wait to be looked at: nobody types faster.
const KEYS_MAX: usize = 64;
/// What the help line says.
pub const HELP: &str = "a add  d drain  k kill  f freeze, thaw  0-9 or Tab choose  q or Ctrl-C end";

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Something for the fleet; with `Freeze` the one that is frozen already is thawed.
    Do(Verb),
    /// The gateway with this number is meant from now on.
    Choose(u8),
    /// The next one is.
    Next,
    /// The end.
    Quit,
}

/// Reads keys until it is dropped.
#[derive(Debug)]
pub struct Keys {
    pressed: mpsc::Receiver<Key>,
    terminal: Arc<Mutex<Terminal>>,
}

/// Standard input, if it is a terminal.
#[derive(Debug)]
struct Terminal {
    stdin: Stdin,
    /// As it was, until it is so again.
    before: Option<Termios>,
}

/// Takes bytes apart: what other keys send in several bytes means nothing.
#[derive(Debug, Default, PartialEq, Eq)]
enum Decoder {
    #[default]
    Plain,
    Escape,
    Sequence,
}

// === impl Keys ===

impl Keys {
    /// Reads keys, if standard input is a terminal.
    pub fn open() -> Option<Self> {
        let stdin = io::stdin();
        let before = if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None };
        let terminal = Terminal { stdin, before: Some(before?) };
        let terminal = Arc::new(Mutex::new(terminal));
        let (press, pressed) = mpsc::channel(KEYS_MAX);
        let reader = Arc::clone(&terminal);
        // A thread of its own, as reading a terminal cannot be interrupted; it looks whether there is
        // anything to read, and ends when nobody wants it any more.
        std::thread::spawn(move || read(&reader, &press));
        Some(Self { pressed, terminal })
    }

    /// The next key.
    pub async fn next(&mut self) -> Option<Key> {
        self.pressed.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        lock(&self.terminal).restore();
    }
}

fn lock(terminal: &Mutex<Terminal>) -> MutexGuard<'_, Terminal> {
    terminal.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(terminal: &Mutex<Terminal>, press: &mpsc::Sender<Key>) {
    let (mut decoder, mut bytes) = (Decoder::default(), [0; 32]);
    loop {
        if !lock(terminal).prepare() {
            return;
        }
        let count = match wait_for_input() {
            Ok(true) => rustix::io::read(io::stdin(), &mut bytes).unwrap_or(0),
            Ok(false) => continue,
            Err(_) => 0,
        };
        if count == 0 {
            // The terminal is gone.
            return;
        }
        for key in bytes[..count].iter().filter_map(|byte| decoder.decode(*byte)) {
            if press.blocking_send(key).is_err() {
                return;
            }
        }
    }
}

/// Whether there is anything to be read by us: a process in the background that reads is stopped.
fn wait_for_input() -> io::Result<bool> {
    let stdin = io::stdin();
    let mut inputs = [PollFd::new(&stdin, PollFlags::IN)];
    let patience = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
    match poll(&mut inputs, Some(&patience)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = !inputs[0].revents().is_empty();
    if ready && !is_ours(&stdin) {
        std::thread::sleep(LOOK_EVERY);
        return Ok(false);
    }
    Ok(ready)
}

/// Whether we are in the foreground. A terminal that controls nobody is everybody's.
fn is_ours(stdin: &Stdin) -> bool {
    tcgetpgrp(stdin).map_or(true, |foreground| foreground == getpgrp())
}

// === impl Terminal ===

impl Terminal {
    /// Sets it so that keys come one by one; false when it is not ours any more.
    fn prepare(&self) -> bool {
        if self.before.is_none() {
            return false;
        }
        if is_ours(&self.stdin)
            && let Ok(mut modes) = tcgetattr(&self.stdin)
        {
            let lines = LocalModes::ICANON | LocalModes::ECHO;
            if modes.local_modes.intersects(lines) {
                modes.local_modes.remove(lines);
                // Without it there is a line for each key, which is no reason to end.
                let _ = tcsetattr(&self.stdin, OptionalActions::Now, &modes);
            }
        }
        true
    }

    fn restore(&mut self) {
        if let Some(before) = self.before.take().filter(|_| is_ours(&self.stdin)) {
            // A terminal that is gone needs nothing.
            let _ = tcsetattr(&self.stdin, OptionalActions::Now, &before);
        }
    }
}

// === impl Decoder ===

impl Decoder {
    fn decode(&mut self, byte: u8) -> Option<Key> {
        let (next, key) = match (&self, byte) {
            (_, 0x1b) => (Self::Escape, None),
            (Self::Escape, b'[' | b'O') => (Self::Sequence, None),
            // A sequence ends with a letter or ~.
            (Self::Sequence, 0..0x40) => (Self::Sequence, None),
            (Self::Escape | Self::Sequence, _) => (Self::Plain, None),
            (Self::Plain, byte) => (Self::Plain, Key::of(byte)),
        };
        *self = next;
        key
    }
}

// === impl Key ===

impl Key {
    /// What a byte from the keyboard means.
    fn of(byte: u8) -> Option<Self> {
        Some(match byte.to_ascii_lowercase() {
            b'a' => Self::Do(Verb::Add),
            b'd' => Self::Do(Verb::Drain),
            b'k' => Self::Do(Verb::Kill),
            b'f' => Self::Do(Verb::Freeze),
            b'0'..=b'9' => Self::Choose(byte - b'0'),
            b'\t' => Self::Next,
            b'q' => Self::Quit,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.decode(*byte)).collect()
    }

    #[test]
    fn each_key_means_something_and_others_nothing() {
        use Key::{Choose, Do, Next, Quit};
        let all =
            [Do(Verb::Add), Do(Verb::Drain), Do(Verb::Kill), Do(Verb::Freeze), Next, Choose(7)];
        assert_eq!(keys(b"adkf\t7"), all);
        assert_eq!(keys(b"AQ"), [Do(Verb::Add), Quit]);
        assert_eq!(keys(b" xyz\r\n\x04\xc3\xa4"), []);
    }

    #[test]
    fn keys_of_several_bytes_are_not_taken_for_letters() {
        // Arrow up, F5, Alt-k, the arrow of an application's keypad, and then a key of ours.
        assert_eq!(keys(b"\x1b[A\x1b[15~\x1bk\x1bOAq"), [Key::Quit]);
    }
}
