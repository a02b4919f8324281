//! Who stamped which digest lately, as a gateway hears it: the operator compares them with the gateways' own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::peer::{Member, Role};
use crate::stats::{self, ObserverStats};

/// Who has not been heard for so long is forgotten: a dozen hellos.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// Observers at a time: 2,000 agents and 64 gateways, all of them replaced at once by a rollout. At some 150
/// bytes each that is 0.6 MiB. Of more, the newcomers are not shown.
const OBSERVERS_MAX: usize = 4096;
/// Ids longer than a host name (253 bytes) are nobody's.
const ID_MAX: usize = 253;

/// The digests that agents and gateways stamp on what they send.
#[derive(Debug, Default)]
pub struct Observers {
    by_id: Mutex<HashMap<String, Observer>>,
}

#[derive(Clone, Copy, Debug)]
struct Observer {
    role: stats::Role,
    digest: u64,
    heard: Instant,
    unprotected_spans: u64,
}

// === impl Observers ===

impl Observers {
    /// `from` was heard with this digest. Who has no digest yet observes nothing.
    pub fn note(&self, from: &Member, digest: u64) {
        self.note_at(from, digest, Instant::now());
    }

    /// An agent that was heard has let so many spans go before they must have been decided.
    pub fn note_unprotected(&self, id: &str, spans: u64) {
        if let Some(known) = self.lock().get_mut(id) {
            known.unprotected_spans = spans;
        }
    }

    /// Everybody who was heard lately, by identity.
    pub fn list(&self) -> Vec<ObserverStats> {
        self.list_at(Instant::now())
    }

    fn note_at(&self, from: &Member, digest: u64, heard: Instant) {
        let role = match from.role() {
            Role::Agent => stats::Role::Agent,
            Role::Gateway => stats::Role::Gateway,
            Role::Unspecified => return,
        };
        if digest == 0 || from.id.is_empty() || from.id.len() > ID_MAX {
            return;
        }
        let observer = Observer { role, digest, heard, unprotected_spans: 0 };
        let mut by_id = self.lock();
        if let Some(known) = by_id.get_mut(&from.id) {
            *known = Observer { unprotected_spans: known.unprotected_spans, ..observer };
            return;
        }
        if by_id.len() >= OBSERVERS_MAX {
            forget(&mut by_id, heard);
        }
        if by_id.len() < OBSERVERS_MAX {
            by_id.insert(from.id.clone(), observer);
        }
    }

    fn list_at(&self, now: Instant) -> Vec<ObserverStats> {
        let mut by_id = self.lock();
        forget(&mut by_id, now);
        let age = |heard: Instant| now.saturating_duration_since(heard).as_millis();
        let shown = |(id, observer): (&String, &Observer)| ObserverStats {
            identity: id.clone(),
            role: observer.role,
            digest: format!("{:016x}", observer.digest),
            age_millis: u64::try_from(age(observer.heard)).unwrap_or(u64::MAX),
            unprotected_spans: observer.unprotected_spans,
        };
        let mut list: Vec<ObserverStats> = by_id.iter().map(shown).collect();
        list.sort_unstable_by(|a, b| a.identity.cmp(&b.identity));
        list
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Observer>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(by_id: &mut HashMap<String, Observer>, now: Instant) {
    by_id.retain(|_, observer| now.saturating_duration_since(observer.heard) < FORGET_AFTER);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::State;

    fn from(id: &str, role: Role) -> Member {
        Member { id: id.to_owned(), inst: 1, state: State::Serving.into(), role: role.into() }
    }

    #[test]
    fn the_last_digest_of_each_is_shown_until_it_falls_silent() {
        let (observers, start) = (Observers::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        observers.note_at(&from("b", Role::Gateway), 2, start);
        observers.note_at(&from("a", Role::Agent), 1, later(6));
        observers.note_unprotected("a", 7);
        observers.note_unprotected("unheard", 7);
        observers.note_at(&from("a", Role::Agent), 0xabc, later(6));
        for (id, role, digest) in
            [("nobody", Role::Unspecified, 1), ("undecided", Role::Agent, 0), ("", Role::Agent, 1)]
        {
            observers.note_at(&from(id, role), digest, later(6));
        }
        let list = observers.list_at(later(6));
        let shown: Vec<_> = list.iter().map(|o| (o.identity.as_str(), o.digest.as_str())).collect();
        assert_eq!(shown, [("a", "0000000000000abc"), ("b", "0000000000000002")]);
        assert_eq!((list[0].role, list[1].age_millis), (stats::Role::Agent, 6000));
        assert_eq!((list[0].unprotected_spans, list[1].unprotected_spans), (7, 0));
        assert_eq!(observers.list_at(later(11)).len(), 1);
    }

    #[test]
    fn there_is_an_end_to_the_list() {
        let (observers, start) = (Observers::default(), Instant::now());
        for id in 0..OBSERVERS_MAX + 9 {
            observers.note_at(&from(&format!("a-{id}"), Role::Agent), 1, start);
        }
        assert_eq!(observers.list_at(start).len(), OBSERVERS_MAX);
        observers.note_at(&from("late", Role::Agent), 1, start + FORGET_AFTER);
        assert_eq!(observers.list_at(start + FORGET_AFTER).len(), 1);
    }
}
