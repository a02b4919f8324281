//! What the demo does to its own fleet while customers are about: one gateway comes, one is told to leave,
//! and one is killed.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::run::control::{Command, Verb};

/// When each thing happens, counted from the opening. A gateway joins in two seconds and leaves in three or
/// four, so one thing is done when the next begins.
const STEPS: [(Duration, Verb); 3] = [
    (Duration::from_secs(2), Verb::Add),
    (Duration::from_secs(5), Verb::Drain),
    (Duration::from_secs(10), Verb::Kill),
];
/// After the last of them customers come for a while, so that something can be seen to go wrong.
const SHOW: Duration = Duration::from_secs(2);

/// What is still to be done.
#[derive(Debug)]
pub struct Script {
    opened: Instant,
    steps: VecDeque<(Duration, Verb)>,
}

// === impl Script ===

impl Script {
    /// All steps, or none in a shop that closes too early for them.
    pub fn new(opened: Instant, open: Option<Duration>) -> Self {
        let (last, _) = STEPS[STEPS.len() - 1];
        let fits = open.is_none_or(|open| open >= last + SHOW);
        Self { opened, steps: if fits { STEPS.into() } else { VecDeque::new() } }
    }

    /// Whether anything is to be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// When the next step is due.
    pub fn due(&self) -> Option<Instant> {
        self.steps.front().map(|(after, _)| self.opened + *after)
    }

    /// The next step.
    pub fn take(&mut self) -> Option<Command> {
        self.steps.pop_front().map(|(_, verb)| Command::of(verb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_short_demo_is_left_alone() {
        let opened = Instant::now();
        assert!(Script::new(opened, Some(Duration::from_secs(5))).is_empty());
        let mut script = Script::new(opened, None);
        assert_eq!(script.due(), Some(opened + Duration::from_secs(2)));
        let verbs: Vec<Verb> = std::iter::from_fn(|| script.take().map(|step| step.verb)).collect();
        assert_eq!(verbs, [Verb::Add, Verb::Drain, Verb::Kill]);
        assert_eq!((script.due(), script.is_empty()), (None, true));
    }
}
