//! What each rule does, by one gateway or agent that is told by hand what happens: with the rule, and with it
//! turned off. The simulation shows what comes of it in a fleet; these are the rules for which it takes
//! several faults at a time to see a trace go wrong.

use std::sync::Arc;

use super::action::{Action, Failure, Inbound, Message};
use super::facts::{Fact, Instance, State};
use super::message::{
    Asked, Decision, Delivery, Hello, HelloAnswer, Origin, Outcome, Part, Receipt, Req, Status,
    Verdict,
};
use super::rules::Rules;
use super::timers::TICK;
use super::{Config, Ownership};
use crate::Millis;
use crate::key::{KeySeed, TraceKey};
use crate::ring::{Member, View};

mod agents;
mod decisions;
mod greetings;
mod parcels;
mod spans;

const SEED: KeySeed = KeySeed::new([7; 16]);
const KEEP: Verdict = Verdict { keep: true, note: 1 };

/// The scenario comes out right with every rule, and not without this one.
#[track_caller]
fn needs(turn_off: fn(&mut Rules), comes_out_right: impl Fn(Rules) -> bool) {
    let mut without = Rules::ALL;
    turn_off(&mut without);
    assert_ne!(without, Rules::ALL, "nothing is turned off");
    assert!(comes_out_right(Rules::ALL), "it goes wrong with all rules");
    assert!(!comes_out_right(without), "it comes out right without the rule, too");
}

/// A gateway called `b` among others, and what it wants done.
struct Bench {
    own: Ownership,
    facts: Vec<Fact>,
    now: Millis,
    out: Vec<Action>,
    /// Has spans of others that it does not get rid of, so that it never agrees.
    stuck: Option<&'static str>,
}

impl Bench {
    /// It serves with these others, and they agree.
    fn serving(rules: Rules, others: &[&str]) -> Self {
        let mut bench = Self::joining(rules, others);
        bench.pass(TICK);
        assert_eq!(bench.own.state(), State::Serving);
        bench.facts[0].state = State::Serving;
        // It counts heads, and is one of them now.
        bench.pass(TICK);
        bench.agree();
        assert!(bench.own.stand().may_decide(bench.now));
        bench.out.clear();
        bench
    }

    /// It is about to.
    fn joining(rules: Rules, others: &[&str]) -> Self {
        let me = Instance::new("b", 1);
        let config = Config {
            me: me.clone(),
            seed: SEED,
            remember: 1 << 20,
            remember_max: 100,
            settle: 0,
            rules,
        };
        let now = 10_000;
        let mut facts = vec![Fact { of: me, state: State::Joining }];
        facts.extend(others.iter().map(|name| serving(name)));
        let own = Ownership::new(config, now);
        let mut bench = Self { own, facts, now, out: Vec::new(), stuck: None };
        for name in others {
            bench.greet(name, &[]);
        }
        bench
    }

    /// What another says of itself.
    fn status(&self, name: &str, heard: &[(&str, Millis)]) -> Status {
        let fact = self.facts.iter().find(|fact| *fact.of.name == *name);
        Status {
            from: fact.map_or(Instance::new(name, 1), |fact| fact.of.clone()),
            digest: self.own.stand().view.digest(),
            complete: self.stuck.is_none_or(|stuck| stuck != name),
            cold: 0,
            facts: self.facts.clone().into(),
            losses: Arc::default(),
            heard: heard.iter().map(|(name, age)| ((*name).into(), *age)).collect(),
        }
    }

    fn greet(&mut self, name: &str, heard: &[(&str, Millis)]) {
        let asked = Asked { epoch: 1, at: 0 };
        let hello = Hello { status: self.status(name, heard), asked };
        self.own.on_hello(&hello, self.now, &mut self.out);
    }

    /// Everybody answers as one who agrees.
    fn agree(&mut self) {
        self.agree_as(&self.names());
    }

    fn agree_as(&mut self, names: &[String]) {
        let epoch = self.own.stand().epoch;
        let asked = Asked { epoch, at: self.now };
        for name in names {
            let answer = HelloAnswer { status: self.status(name, &[]), asked };
            self.own.on_hello_answer(&answer, self.now, &mut self.out);
        }
    }

    fn names(&self) -> Vec<String> {
        self.facts[1..].iter().map(|fact| fact.of.name.to_string()).collect()
    }

    /// Time passes, and nobody says anything.
    fn pass(&mut self, millis: Millis) {
        let end = self.now + millis;
        while self.now < end {
            self.now = (self.now + TICK).min(end);
            self.own.on_tick(false, self.now, &mut self.out);
        }
    }

    /// Time passes in which everybody goes on to agree.
    fn live(&mut self, millis: Millis) {
        let end = self.now + millis;
        while self.now < end {
            self.pass(TICK);
            self.agree();
        }
    }

    /// A trace of which these are the choices, in this order.
    fn key(&self, choices: &[&str]) -> TraceKey {
        let ids = self.facts.iter().map(|fact| fact.of.member());
        let members: Vec<Member> =
            ids.chain(choices.iter().map(|name| Instance::new(name, 1).member())).collect();
        key_of(View::new(members, &SEED), choices)
    }

    fn deliver(&mut self, part: Part) {
        let delivery = Delivery { parts: vec![part], hops: 0 };
        self.own.on_delivery(Inbound(1), &delivery, self.now, &mut self.out);
    }

    fn fail(&mut self, to: &str, req: Req) {
        self.own.on_failed(to, req, Failure::TimedOut, self.now, &mut self.out);
    }

    /// Its own trace is due, the witnesses agree, the backend has it.
    fn decide(&mut self, key: TraceKey) {
        self.out.clear();
        self.own.on_judged(&[(key, KEEP)], self.now, &mut self.out);
        for (to, req) in self.told() {
            let from = Instance::new(&to, 1);
            let answer = super::Agreement { from, known: Vec::new(), refused: Vec::new() };
            self.own.on_agreement(req, &answer, self.now, &mut self.out);
        }
        assert!(self.out.iter().any(|action| matches!(action, Action::Settle { .. })));
        self.own.on_exported(&[key]);
        self.out.clear();
    }

    /// To whom deliveries went.
    fn delivered(&self) -> Vec<(String, Req, Delivery)> {
        let deliveries = self.out.iter().filter_map(|action| match action {
            Action::Send { to, req, message: Message::Deliver(delivery), .. } => {
                Some((to.to_string(), *req, delivery.clone()))
            }
            _ => None,
        });
        deliveries.collect()
    }

    /// The same, once.
    fn deliveries(&mut self) -> Vec<(String, Req, Delivery)> {
        let delivered = self.delivered();
        let is_one =
            |action: &Action| matches!(action, Action::Send { message: Message::Deliver(_), .. });
        self.out.retain(|action| !is_one(action));
        delivered
    }

    /// Another one has all of a delivery.
    fn take_all(&mut self, to: &str, req: Req, delivery: &Delivery) {
        let from = Instance::new(to, 1);
        let outcomes = vec![Outcome::Held(from.clone()); delivery.parts.len()];
        let receipt = Receipt { from, outcomes };
        self.own.on_receipt(req, &receipt, self.now, &mut self.out);
    }

    /// To whom decisions went.
    fn told(&self) -> Vec<(String, Req)> {
        let told = self.out.iter().filter_map(|action| match action {
            Action::Send { to, req, message: Message::Decisions(_), .. } => {
                Some((to.to_string(), *req))
            }
            _ => None,
        });
        told.collect()
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let replies = self.out.iter().filter_map(|action| match action {
            Action::Reply { receipt, .. } => Some(receipt.outcomes.clone()),
            _ => None,
        });
        replies.flatten().collect()
    }

    fn knows_as(&self, name: &str) -> Option<State> {
        self.own.facts().find(name).map(|fact| fact.state)
    }
}

fn serving(name: &str) -> Fact {
    Fact { of: Instance::new(name, 1), state: State::Serving }
}

fn part(key: TraceKey) -> Part {
    Part { key, age: 0, bytes: 100, origin: Origin::Agent, tentative: None }
}

fn key_of(view: View, choices: &[&str]) -> TraceKey {
    let begins = |key: &TraceKey| {
        let ranked = view.ranked(*key).map(|place| view.members()[place].id.as_str());
        ranked.take(choices.len()).eq(choices.iter().copied())
    };
    let keys = (0u64..).map(|number| SEED.key(&u128::from(number).to_be_bytes()));
    keys.into_iter().find(begins).unwrap()
}
