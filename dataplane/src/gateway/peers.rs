//! What a gateway knows of the others, as its receivers and its metrics see it: how things stand, who was
//! seen before, who observes what.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use ringtail_engine::key::KeySeed;
use ringtail_engine::ownership::facts::{Fact, State as Life};
use ringtail_engine::ownership::{Conduct, Stand};
use ringtail_engine::ring::{RING_VERSION, View};
use tokio::sync::watch;

use crate::membership::Counts;
use crate::membership::instance::Seen;
use crate::membership::observers::Observers;
use crate::peer::{HelloRequest, HelloResponse, Identity, Member, Role, State, messages};

/// Shared between the receivers, which are asked, and the fleet's task, which knows.
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
    /// How things stand.
    pub stands: Arc<ArcSwap<Stand>>,
    /// What is counted once a process of keeping traces whole.
    pub conduct: ArcSwap<Conduct>,
    /// Secret of the fleet.
    pub seed: KeySeed,
    /// The highest instance seen of each gateway.
    pub seen: Seen,
    life: watch::Sender<Life>,
}

// === impl Peers ===

impl Peers {
    /// Of a gateway that joins, and knows nobody.
    pub fn new(identity: Identity, seed: KeySeed, stand: Stand) -> Self {
        Self {
            identity,
            observers: Observers::default(),
            counts: Arc::default(),
            view_changes: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            conduct: ArcSwap::default(),
            seed,
            seen: Seen::default(),
            life: watch::channel(stand.state).0,
            stands: Arc::new(ArcSwap::from_pointee(stand)),
        }
    }

    /// Takes over how things stand.
    pub fn publish(&self, stand: &Stand) {
        self.stands.store(Arc::new(stand.clone()));
        self.life.send_if_modified(|life| std::mem::replace(life, stand.state) != stand.state);
    }

    /// The members, this gateway among them while it serves.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.stands.load().view)
    }

    /// Digest of the view; 0 before this gateway has one.
    pub fn digest(&self) -> u64 {
        let stand = self.stands.load();
        if stand.state == Life::Joining { 0 } else { stand.view.digest() }
    }

    /// Follows what this gateway is up to.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// This gateway as it announces itself.
    pub fn member(&self) -> Member {
        let stand = self.stands.load();
        messages::member(&Fact { of: stand.me.clone(), state: stand.state })
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

    /// Answers who asks who we are.
    pub fn answer(&self, hello: &HelloRequest) -> HelloResponse {
        self.hear(hello.from.as_ref(), hello.digest);
        if let Some(from) = &hello.from {
            self.observers.note_unprotected(&from.id, hello.unprotected_spans);
        }
        let asker = hello.from.as_ref().filter(|from| from.role() == Role::Gateway);
        HelloResponse {
            member: Some(self.member()),
            ring_versions: vec![RING_VERSION],
            digest: self.digest(),
            seed_id: self.seed.id(),
            seen_inst: asker.map_or(0, |asker| self.seen.highest(&asker.id)),
            ..HelloResponse::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use ringtail_engine::ownership::facts::Instance;
    use ringtail_engine::ownership::rules::Rules;
    use ringtail_engine::ownership::{Config, Steward};

    use super::*;

    fn peers() -> Peers {
        let identity = Identity { id: "gw-0".to_owned(), inst: 5, role: Role::Gateway };
        let seed = KeySeed::new([1; 16]);
        let me = Instance::new("gw-0", 5);
        let rules = Rules::ALL;
        let config = Config { me, seed, remember: 0, remember_max: 0, settle: 0, rules };
        Peers::new(identity, seed, Steward::new(&config, 0).stand().clone())
    }

    fn hello(id: &str, inst: u64, role: Role, state: State, digest: u64) -> HelloRequest {
        let from = Some(Identity { id: id.to_owned(), inst, role }.member(state));
        HelloRequest { from, ring_versions: vec![RING_VERSION], digest, ..HelloRequest::default() }
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
    async fn a_gateway_says_what_it_is_up_to_and_does_not_observe_itself() {
        let peers = peers();
        let mut stand = Stand::clone(&peers.stands.load());
        assert_eq!((peers.member().state(), peers.digest()), (State::Joining, 0));
        stand.state = Life::Draining;
        peers.publish(&stand);
        peers.hear(Some(&peers.member()), 7);
        let answer = peers.answer(&hello("gw-0", 5, Role::Gateway, State::Draining, 7));
        assert_eq!(answer.member.unwrap().state(), State::Draining);
        assert_eq!(*peers.life().borrow(), Life::Draining);
        assert_eq!(peers.observers.list(), []);
    }
}
