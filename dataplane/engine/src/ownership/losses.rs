//! Instances that ended with spans in hand, or may have: what lay with them must be sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::facts::{Change, Instance, State};
use super::timers::{LOSS_KEPT, LOSSES_MAX};
use crate::Millis;

/// Lost instances and when each was learned of here.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses {
    learned: BTreeMap<Instance, Millis>,
    told: Arc<[Instance]>,
}

impl Losses {
    /// The instances that a change of facts means the loss of. `superseded` is off only in tests.
    pub(super) fn implied(change: &Change, superseded: bool) -> impl Iterator<Item = Instance> {
        let (before, now) = match change {
            Change::Superseded { before, now } => (Some(before), now),
            Change::New(now) | Change::Moved(now) => (None, now),
        };
        let before = before.filter(|before| superseded && before.state != State::Left).cloned();
        let now = (now.state == State::Gone).then(|| now.clone());
        before.into_iter().chain(now).map(|fact| fact.of)
    }

    /// Notes a loss; whether it is news.
    pub(super) fn learn(&mut self, lost: &Instance, now: Millis) -> bool {
        if self.learned.contains_key(lost) || self.learned.len() >= LOSSES_MAX {
            return false;
        }
        self.learned.insert(lost.clone(), now);
        self.tell();
        true
    }

    /// Whether this instance is lost.
    pub(super) fn has(&self, instance: &Instance) -> bool {
        self.learned.contains_key(instance)
    }

    /// All of them with the time at which they were learned of.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Instance, Millis)> {
        self.learned.iter().map(|(lost, learned)| (lost, *learned))
    }

    /// All of them, to be sent.
    pub(super) fn told(&self) -> Arc<[Instance]> {
        Arc::clone(&self.told)
    }

    /// Forgets the old ones.
    pub(super) fn expire(&mut self, now: Millis) {
        let before = self.learned.len();
        self.learned.retain(|_, learned| *learned + LOSS_KEPT > now);
        if self.learned.len() != before {
            self.tell();
        }
    }

    /// The process was stopped: those that are still in force begin anew.
    pub(super) fn refresh(&mut self, now: Millis) {
        self.learned.values_mut().for_each(|learned| *learned = now);
    }

    fn tell(&mut self) {
        self.told = self.learned.keys().cloned().collect();
    }
}
