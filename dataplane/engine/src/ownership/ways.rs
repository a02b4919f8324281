//! How gateways did that were to get traces: who does not answer gets one trace at a time, to see whether it
//! does again, and everything else waits where it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::facts::Name;
use super::outbox::back_off;
use super::timers::{BACK_OFF_MAX, REQUEST, SUSPECT};
use crate::Millis;

/// A member that has not answered for so long and is still one is heard by others: it has been taken for
/// dead by then if it is.
const UNHEARD: Millis = SUSPECT + REQUEST;

/// To whom traces of an owner go: to itself, or to another one that may reach it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) to: Name,
    pub(super) owner: Name,
}

/// What may go a way now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// One trace, to see whether it arrives.
    Probe,
    Closed,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ways {
    known: BTreeMap<Way, Known>,
}

/// How often a way failed since it was good last, since when, and when it is tried again.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    failures: u32,
    since: Millis,
    until: Millis,
}

impl Way {
    /// The straight one.
    pub(super) fn to(owner: &str) -> Self {
        let owner = Name::from(owner);
        Self { to: Arc::clone(&owner), owner }
    }

    /// By another gateway.
    pub(super) fn by(to: &str, owner: &str) -> Self {
        Self { to: to.into(), owner: owner.into() }
    }

    pub(super) fn is_straight(&self) -> bool {
        self.to == self.owner
    }
}

impl Ways {
    /// `sure` says whether the owner is known to be there, and to know that it is the owner.
    pub(super) fn gate(&self, way: &Way, sure: bool, now: Millis) -> Gate {
        match self.known.get(way) {
            None if sure && way.is_straight() => Gate::Open,
            None => Gate::Probe,
            Some(known) if known.failures == 0 => Gate::Open,
            Some(known) if known.until > now => Gate::Closed,
            // Were it dead, it would be known by now: it lives, and may get what it does not answer.
            Some(known) if way.is_straight() && known.since + UNHEARD < now => Gate::Open,
            Some(_) => Gate::Probe,
        }
    }

    /// The owner did not answer the last time.
    pub(super) fn is_failing(&self, owner: &str) -> bool {
        let failed = |known: &Known| known.failures > 0;
        !self.known.is_empty() && self.known.get(&Way::to(owner)).is_some_and(failed)
    }

    /// What went this way arrived. Who answers itself needs no others.
    pub(super) fn succeed(&mut self, way: Way) {
        if way.is_straight() {
            self.known.retain(|known, _| known.owner != way.owner);
        }
        self.known.insert(way, Known::default());
    }

    /// What was on its way together fails together, and counts once.
    pub(super) fn fail(&mut self, way: Way, now: Millis) {
        let known = self.known.entry(way).or_default();
        if known.failures == 0 || known.until <= now {
            known.since = if known.failures == 0 { now } else { known.since };
            known.until = now + back_off(known.failures);
            known.failures += 1;
        }
    }

    /// Who failed some time ago, and has not been tried since, may be back.
    pub(super) fn expire(&mut self, now: Millis) {
        self.known.retain(|_, known| known.failures == 0 || known.until + BACK_OFF_MAX > now);
    }

    /// Who failed may be tried at once.
    pub(super) fn forgive(&mut self) {
        self.known.clear();
    }
}
