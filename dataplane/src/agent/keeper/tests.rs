//! When a loss is done, as far as links are concerned.

use std::sync::atomic::Ordering::SeqCst;

use ringtail_engine::key::KeySeed;
use ringtail_engine::ownership::facts::{Fact, State as Life};
use ringtail_engine::ownership::message::PollAnswer;
use ringtail_engine::ownership::rules::Rules;

use super::*;
use crate::agent::core::Wiring;
use crate::agent::splitter::BatchLimits;
use crate::peer::{Identity, Role};

fn keeper() -> (mpsc::UnboundedSender<News>, Keeper) {
    let (tell, news) = mpsc::unbounded_channel();
    let identity = Identity { id: "agent-0".to_owned(), inst: 1, role: Role::Agent };
    let seed = KeySeed::new([1; 16]);
    let batch = BatchLimits { bytes: 1 << 16, spans: 100 };
    let core = Core::new(
        identity,
        seed,
        batch,
        Encoding::Identity,
        1 << 20,
        Wiring { keeper: Some(tell.clone()), ..Wiring::default() },
    );
    let config = AgentConfig {
        name: "agent-0".into(),
        seed,
        decision_wait: 10_000,
        retained_max: 1 << 20,
        decisions_max: 16,
        rules: Rules::ALL,
    };
    (tell, Keeper::new(Arc::new(core), config, news))
}

fn lose(keeper: &mut Keeper, name: &str) -> Instance {
    let [from, lost] = ["gw-9", name].map(|name| Instance::new(name, 7));
    let facts = Arc::from([Fact { of: from.clone(), state: Life::Serving }]);
    let losses = Arc::from([lost.clone()]);
    let answer = PollAnswer { from, facts, losses, decided: Arc::default() };
    let now = keeper.core.now();
    keeper.side.on_poll_answer(Req(1), &answer, now, &mut Vec::new());
    lost
}

#[test]
fn a_loss_that_was_cleared_stays_so_whatever_is_under_way_later() {
    let (tell, mut keeper) = keeper();
    let (link, _queue) = keeper.core.add_link("127.0.0.1:1");
    let lost = lose(&mut keeper, "gw-0");
    link.queued.store(1, SeqCst);
    keeper.note_cleared();
    assert!(keeper.cleared.is_empty(), "a batch that nobody has looked at may be older");
    link.seen.store(1, SeqCst);
    keeper.note_cleared();
    assert!(keeper.cleared.contains(&lost));
    // More is under way, and news wait to be heard.
    link.queued.store(2, SeqCst);
    tell.send(News::Closed(5)).unwrap();
    keeper.note_cleared();
    assert!(keeper.cleared.contains(&lost));
    let other = lose(&mut keeper, "gw-1");
    keeper.note_cleared();
    assert!(!keeper.cleared.contains(&other), "another loss waits for what is under way now");
}
