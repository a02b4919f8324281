//! What a gateway knows of the others: its view of the ring, who was seen before, who observes what.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use ringtail_engine::key::KeySeed;
use ringtail_engine::ring::{RING_VERSION, View};
use tokio::sync::watch;

use crate::membership::instance::Seen;
use crate::membership::observers::Observers;
use crate::membership::{Counts, Place, Roster, Tier, Voice};
use crate::peer::{Dialect, HelloRequest, HelloResponse, Identity, Member, Role, State};
use crate::transport::EndpointError;

/// Shared between the receivers, which are asked, and membership, which asks.
#[derive(Debug)]
pub struct Peers {
    /// Who this gateway is.
    pub identity: Identity,
    /// Who stamped which digest lately.
    pub observers: Observers,
    /// Candidates, for metrics and stats.
    pub counts: Arc<Counts>,
    /// How often the view changed.
    pub view_changes: AtomicU64,
    /// Peers that were turned away from the port of clients.
    pub turned_away: AtomicU64,
    seed: KeySeed,
    view: ArcSwapOption<View>,
    seen: Seen,
    state: watch::Sender<State>,
}

/// What a gateway makes of membership: a view.
#[derive(Debug)]
pub struct Seats(pub Arc<Peers>);

// === impl Peers ===

impl Peers {
    /// A gateway that serves and knows nobody.
    pub fn new(identity: Identity, seed: KeySeed) -> Self {
        Self {
            identity,
            observers: Observers::default(),
            counts: Arc::default(),
            view_changes: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            seed,
            view: ArcSwapOption::empty(),
            seen: Seen::default(),
            state: watch::channel(State::Serving).0,
        }
    }

    /// The members, this gateway among them while it serves; `None` before membership has begun.
    pub fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// Digest of the view; 0 without one.
    pub fn digest(&self) -> u64 {
        self.view.load().as_ref().map_or(0, |view| view.digest())
    }

    /// Whether this gateway is on its way out.
    pub fn is_leaving(&self) -> bool {
        *self.state.borrow() != State::Serving
    }

    /// Takes this gateway out of its own view and says so to whoever asks.
    pub fn leave(&self) {
        self.state.send_replace(State::Draining);
    }

    /// Follows the state of this gateway.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// This gateway as it announces itself.
    pub fn member(&self) -> Member {
        self.identity.member(*self.state.borrow())
    }

    /// Notes who has spoken, and the digest that came with it.
    pub fn hear(&self, from: Option<&Member>, digest: u64) {
        let Some(from) = from.filter(|from| from.id != self.identity.id) else { return };
        self.observers.note(from, digest);
        // Who joins is still looking for its instance.
        if from.role() == Role::Gateway && from.state() != State::Joining {
            self.seen.note(&from.id, from.inst);
        }
    }

    /// Answers a `Hello`.
    pub fn answer(&self, hello: &HelloRequest) -> HelloResponse {
        self.hear(hello.from.as_ref(), hello.digest);
        let asker = hello.from.as_ref().filter(|from| from.role() == Role::Gateway);
        HelloResponse {
            member: Some(self.member()),
            ring_versions: vec![RING_VERSION],
            digest: self.digest(),
            seed_id: self.seed.id(),
            seen_inst: asker.map_or(0, |asker| self.seen.highest(&asker.id)),
        }
    }
}

impl Voice for Peers {
    fn hello(&self) -> Vec<u8> {
        self.identity.hello(*self.state.borrow(), self.digest())
    }
}

// === impl Seats ===

impl Tier for Seats {
    fn open(&mut self, _: &str, _: watch::Receiver<Dialect>) -> Result<Place, EndpointError> {
        // Gateways send each other nothing but hellos, and those are the asker's.
        Ok(0)
    }

    fn close(&mut self, _: Place) {}

    fn publish(&mut self, roster: Roster) {
        for member in roster.view.members() {
            self.0.seen.note(&member.id, member.inst);
        }
        self.0.view.store(Some(Arc::new(roster.view)));
        self.0.view_changes.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Peers {
        let identity = Identity { id: "gw-0".to_owned(), inst: 5, role: Role::Gateway };
        Peers::new(identity, KeySeed::new([1; 16]))
    }

    fn hello(id: &str, inst: u64, role: Role, state: State, digest: u64) -> HelloRequest {
        let from = Identity { id: id.to_owned(), inst, role }.member(state);
        HelloRequest { from: Some(from), ring_versions: vec![RING_VERSION], digest }
    }

    #[tokio::test]
    async fn a_gateway_remembers_instances_for_others() {
        let peers = peers();
        peers.answer(&hello("gw-1", 70, Role::Gateway, State::Serving, 9));
        let again = peers.answer(&hello("gw-1", 3, Role::Gateway, State::Joining, 0));
        assert_eq!(again.seen_inst, 70);
        // What a joiner calls itself before it has learned is not remembered, nor are agents.
        peers.answer(&hello("gw-1", 99, Role::Gateway, State::Joining, 0));
        peers.answer(&hello("a-0", 99, Role::Agent, State::Serving, 8));
        let asked = |id| peers.answer(&hello(id, 1, Role::Gateway, State::Joining, 0)).seen_inst;
        assert_eq!((asked("gw-1"), asked("a-0"), asked("gw-2")), (70, 0, 0));
        let observers: Vec<String> =
            peers.observers.list().into_iter().map(|o| o.identity).collect();
        assert_eq!(observers, ["a-0", "gw-1"]);
    }

    #[tokio::test]
    async fn a_gateway_that_leaves_says_so_and_does_not_observe_itself() {
        let peers = peers();
        assert_eq!(peers.member().state(), State::Serving);
        peers.leave();
        peers.hear(Some(&peers.member()), 7);
        let answer = peers.answer(&hello("gw-0", 5, Role::Gateway, State::Draining, 7));
        assert_eq!(answer.member.unwrap().state(), State::Draining);
        assert_eq!(peers.observers.list(), []);
    }
}
