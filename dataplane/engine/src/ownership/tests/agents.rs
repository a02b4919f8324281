//! What an agent keeps, and sends again.

use super::*;
use crate::ownership::action::{AgentAction, BatchId};
use crate::ownership::agent::{AgentConfig, AgentSide};
use crate::ownership::message::PollAnswer;
use crate::ownership::timers::{AGENT_SILENT, POLL, RETAIN_AFTER_WAIT};

const WAIT: Millis = 30_000;
const BATCH: BatchId = BatchId(1);
const KEPT: u32 = 100;

/// An agent that knows two gateways, and what it wants done.
struct Kept {
    side: AgentSide,
    now: Millis,
    out: Vec<AgentAction>,
}

impl Kept {
    fn new(rules: Rules) -> Self {
        let config = AgentConfig {
            name: "agent".into(),
            seed: SEED,
            decision_wait: WAIT,
            retained_max: 1 << 20,
            decisions_max: 100,
            rules,
        };
        let mut kept = Self { side: AgentSide::new(config), now: 10_000, out: Vec::new() };
        kept.hear("a", &[]);
        kept.hear("b", &[]);
        kept
    }

    /// A gateway answers a poll, and says what it is up to.
    fn tell(&mut self, name: &str, state: State) {
        let from = Instance::new(name, 1);
        let facts = [Fact { of: from.clone(), state }].into();
        let answer = PollAnswer { from, facts, losses: Arc::default(), decided: Arc::default() };
        self.side.on_poll_answer(Req(0), &answer, self.now, &mut self.out);
    }

    /// Asks all gateways after a second, and returns the question for one of them.
    fn poll(&mut self, name: &str) -> (Req, Arc<[Decision]>) {
        self.out.clear();
        self.now += POLL;
        self.side.on_tick(self.now, &mut self.out);
        let asked = self.out.iter().find_map(|action| match action {
            AgentAction::Poll { to, req, poll, .. } if **to == *name => {
                Some((*req, Arc::clone(&poll.decided)))
            }
            _ => None,
        });
        asked.expect("agents poll every second")
    }

    /// A gateway tells of a decision in its answer.
    fn decided(&mut self, name: &str, req: Req, decision: Decision) {
        let from = Instance::new(name, 1);
        let (facts, losses) = ([serving("a"), serving("b")].into(), Arc::default());
        let answer = PollAnswer { from, facts, losses, decided: [decision].into() };
        self.side.on_poll_answer(req, &answer, self.now, &mut self.out);
    }

    /// A gateway answers a poll.
    fn hear(&mut self, name: &str, lost: &[Instance]) {
        let mut facts = vec![serving("a"), serving("b")];
        for fact in facts.iter_mut().filter(|fact| lost.contains(&fact.of)) {
            fact.state = State::Gone;
        }
        let answer = PollAnswer {
            from: Instance::new(name, 1),
            facts: facts.into(),
            losses: lost.into(),
            decided: Arc::default(),
        };
        self.side.on_poll_answer(Req(0), &answer, self.now, &mut self.out);
    }

    /// A trace goes to `to`, which says that `holder` has it.
    fn store(&mut self, to: &str, holder: &str) {
        let key = key_of(self.side.view().clone(), &[to]);
        self.side.on_batch(BATCH, &[(key, KEPT)], self.now, &mut self.out);
        let (sent, req) = self.sent()[0].clone();
        assert_eq!(sent, to);
        let receipt = Receipt {
            from: Instance::new(to, 1),
            outcomes: vec![Outcome::Held(Instance::new(holder, 1))],
        };
        self.side.on_receipt(req, &receipt, self.now, &mut self.out);
        self.out.clear();
    }

    fn sent(&self) -> Vec<(String, Req)> {
        let sent = self.out.iter().filter_map(|action| match action {
            AgentAction::Deliver { to, req, .. } => Some((to.to_string(), *req)),
            _ => None,
        });
        sent.collect()
    }
}

#[test]
fn what_lies_with_a_silent_holder_is_kept() {
    needs(
        |rules| rules.pin = false,
        |rules| {
            let mut kept = Kept::new(rules);
            kept.store("a", "a");
            kept.now += WAIT + RETAIN_AFTER_WAIT + TICK;
            kept.side.on_tick(kept.now, &mut kept.out);
            kept.side.retained_bytes() == u64::from(KEPT)
        },
    );
}

/// Others may have taken it for dead meanwhile, and then what lies with it counts as sent again.
#[test]
fn what_lies_with_one_that_is_back_is_kept_until_it_knows_better() {
    let mut kept = Kept::new(Rules::ALL);
    kept.store("a", "a");
    kept.now += WAIT + RETAIN_AFTER_WAIT + TICK;
    let mut left = Vec::new();
    for _ in 0..=AGENT_SILENT / 1_000 {
        kept.hear("a", &[]);
        kept.side.on_tick(kept.now, &mut kept.out);
        left.push(kept.side.retained_bytes());
        kept.now += 1_000;
    }
    let [before @ .., after] = left.as_slice() else { panic!("it was heard") };
    assert!(before.iter().all(|bytes| *bytes == u64::from(KEPT)) && *after == 0, "{left:?}");
}

/// The one that answered had passed it on.
#[test]
fn what_lay_with_the_holder_that_was_named_is_sent_again() {
    needs(
        |rules| rules.holder = false,
        |rules| {
            let mut kept = Kept::new(rules);
            kept.store("a", "b");
            kept.hear("a", &[Instance::new("b", 1)]);
            !kept.sent().is_empty()
        },
    );
}

/// It may not get rid of it, and be gone then.
#[test]
fn what_lies_with_one_that_leaves_is_kept() {
    let mut kept = Kept::new(Rules::ALL);
    kept.store("a", "a");
    kept.now += WAIT + RETAIN_AFTER_WAIT + TICK;
    kept.tell("a", State::Draining);
    kept.side.on_tick(kept.now, &mut kept.out);
    assert_eq!(kept.side.retained_bytes(), u64::from(KEPT));
}

#[test]
fn one_that_fails_is_passed_over_until_it_answers() {
    let mut kept = Kept::new(Rules::ALL);
    let key = key_of(kept.side.view().clone(), &["a"]);
    kept.side.on_batch(BATCH, &[(key, KEPT)], kept.now, &mut kept.out);
    let (_, req) = kept.sent()[0].clone();
    kept.now += 1;
    kept.side.on_failed(req, Failure::TimedOut, kept.now, &mut kept.out);
    kept.side.on_batch(BatchId(2), &[(key, KEPT)], kept.now, &mut kept.out);
    kept.tell("a", State::Serving);
    kept.side.on_batch(BatchId(3), &[(key, KEPT)], kept.now, &mut kept.out);
    let sent: Vec<String> = kept.sent().into_iter().map(|(to, _)| to).collect();
    assert_eq!(sent, ["a", "b", "b", "a"]);
}

/// The pause after several failures is over when somebody answers.
#[test]
fn what_waits_goes_to_one_that_is_back() {
    let mut kept = Kept::new(Rules::ALL);
    let key = key_of(kept.side.view().clone(), &["a"]);
    kept.side.on_batch(BATCH, &[(key, KEPT)], kept.now, &mut kept.out);
    kept.now += AGENT_SILENT;
    while let Some((_, req)) = kept.sent().pop() {
        kept.out.clear();
        kept.side.on_failed(req, Failure::TimedOut, kept.now, &mut kept.out);
    }
    kept.tell("a", State::Serving);
    assert_eq!(kept.sent().len(), 1);
}

/// Whatever the second one finds out, spans may have gone the way of the first.
#[test]
fn an_agent_agrees_to_the_first_decision_that_it_was_told() {
    let mut kept = Kept::new(Rules::ALL);
    let decision = |keep, age| Decision {
        key: TraceKey(7),
        verdict: Verdict { keep, note: 0 },
        age,
        exported: false,
    };
    kept.store("a", "a");
    let (first, _) = kept.poll("a");
    kept.decided("a", first, decision(true, 4_000));
    let (second, _) = kept.poll("b");
    kept.decided("b", second, decision(false, 0));
    let (_, told) = kept.poll("b");
    let told: Vec<_> = told.iter().map(|told| (told.key, told.verdict.keep)).collect();
    assert_eq!(told, [(TraceKey(7), true)]);
}
