//! Who is listed as a gateway, as each process of a fleet sees it: one truth, and for each process a view
//! that may be held back, or name detours.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// How a gateway stands in the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// It may be sent to.
    Ready,
    /// Its readiness probe fails.
    NotReady,
    /// It is being deleted.
    Terminating,
}

/// A listed gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) address: SocketAddr,
    pub(super) standing: Standing,
}

/// One step in what a process sees; `None` when a gateway is gone.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) gateway: String,
    pub(super) entry: Option<Entry>,
    /// What stood there before.
    pub(super) before: Option<Entry>,
}

/// The list, and who sees what of it.
#[derive(Debug)]
pub(super) struct Directory {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    truth: BTreeMap<String, Entry>,
    views: BTreeMap<String, View>,
}

/// What one process sees.
#[derive(Debug, Default)]
struct View {
    held_back: bool,
    seen: BTreeMap<String, Entry>,
    /// Everything that ever changed: a version is a place in it.
    log: Vec<Change>,
    /// Other addresses by which this process reaches a gateway.
    detours: BTreeMap<String, SocketAddr>,
}

// === impl Directory ===

impl Directory {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::channel(0).0 }
    }

    /// Lists a gateway, or lists it otherwise than before.
    pub(super) fn put(&self, gateway: &str, entry: Entry) {
        self.change(|state| {
            state.truth.insert(gateway.to_owned(), entry);
        });
    }

    /// Takes a gateway from the list.
    pub(super) fn remove(&self, gateway: &str) {
        self.change(|state| {
            state.truth.remove(gateway);
        });
    }

    /// A process learns nothing until it is released.
    pub(super) fn hold_back(&self, process: &str, held_back: bool) {
        self.change(|state| {
            state.views.entry(process.to_owned()).or_default().held_back = held_back;
        });
    }

    /// A process shall reach a gateway by another address.
    pub(super) fn detour(&self, process: &str, gateway: &str, address: SocketAddr) {
        self.change(|state| {
            let view = state.views.entry(process.to_owned()).or_default();
            view.detours.insert(gateway.to_owned(), address);
        });
    }

    /// What a process sees, and the version of that.
    pub(super) fn seen(&self, process: &str) -> (BTreeMap<String, Entry>, usize) {
        let mut state = self.lock();
        let State { truth, views } = &mut *state;
        let view = views.entry(process.to_owned()).or_default();
        view.follow(truth);
        (view.seen.clone(), view.log.len())
    }

    /// What has changed for a process since a version.
    pub(super) fn since(&self, process: &str, version: usize) -> Vec<Change> {
        let state = self.lock();
        let log = state.views.get(process).and_then(|view| view.log.get(version..));
        log.map(<[Change]>::to_vec).unwrap_or_default()
    }

    /// Tells of every change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let State { truth, views } = &mut *state;
        views.values_mut().for_each(|view| view.follow(truth));
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn follow(&mut self, truth: &BTreeMap<String, Entry>) {
        if self.held_back {
            return;
        }
        let names: Vec<String> = self.seen.keys().chain(truth.keys()).cloned().collect();
        for gateway in names {
            let entry = truth.get(&gateway).map(|entry| Entry {
                address: self.detours.get(&gateway).copied().unwrap_or(entry.address),
                ..*entry
            });
            let before = self.seen.get(&gateway).copied();
            if before == entry {
                continue;
            }
            match entry {
                Some(entry) => self.seen.insert(gateway.clone(), entry),
                None => self.seen.remove(&gateway),
            };
            self.log.push(Change { gateway, entry, before });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(port: u16) -> Entry {
        Entry { address: ([127, 0, 0, 1], port).into(), standing: Standing::Ready }
    }

    #[test]
    fn a_process_that_is_held_back_learns_later() {
        let directory = Directory::new();
        directory.put("gw-0", entry(1));
        assert_eq!(directory.seen("late").0.len(), 1);
        directory.hold_back("late", true);
        directory.put("gw-1", entry(2));
        directory.remove("gw-0");
        assert_eq!(directory.seen("prompt").0.keys().collect::<Vec<_>>(), ["gw-1"]);
        let (seen, version) = directory.seen("late");
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["gw-0"]);
        directory.hold_back("late", false);
        let changes = directory.since("late", version);
        let told: Vec<_> =
            changes.iter().map(|c| (c.gateway.as_str(), c.entry.is_some())).collect();
        assert_eq!(told, [("gw-0", false), ("gw-1", true)]);
    }

    #[test]
    fn a_detour_is_one_processs_alone() {
        let directory = Directory::new();
        directory.detour("gw-1", "gw-0", ([127, 0, 0, 1], 99).into());
        directory.put("gw-0", entry(1));
        assert_eq!(directory.seen("gw-1").0["gw-0"].address.port(), 99);
        assert_eq!(directory.seen("gw-2").0["gw-0"].address.port(), 1);
    }
}
