//! What it costs a gateway to keep traces whole: the same waves of spans through a shard that is on its own,
//! and through one whose traces the state machine watches over, in turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringtail_engine::Millis;
use ringtail_engine::batch::Batch;
use ringtail_engine::key::TraceKey;
use ringtail_engine::ownership::action::{Action, Message};
use ringtail_engine::ownership::facts::Instance;
use ringtail_engine::ownership::message::{Decision, Decisions, Origin, Part, Req, Verdict};
use ringtail_engine::ownership::rules::Rules;
use ringtail_engine::ownership::timers::TICK;
use ringtail_engine::ownership::{Admission, Config, Due, Ownership, Stand, Traces};
use ringtail_engine::scan::{Group, Shape};
use ringtail_engine::shard::Shard;
use ringtail_engine::shard::custody::{Guide, Manner, Place, Steady};

use crate::load::{self, Load};
use crate::{REMEMBERED, SPANS_A_WAVE, TURN};

/// Waves of each side until it is in its stride: the decisions of the first one are made, and all memory
/// that is needed has been touched.
const WARM: u64 = 15;
const WAVES: u64 = 60;
/// Traces judged at a time.
const JUDGED: usize = 2048;

/// Gateways that talk to each other, and hold nothing.
struct Fleet {
    members: Vec<Ownership>,
    now: Millis,
}

/// A shard that is on its own.
struct Plain {
    shard: Shard,
    out: Batch,
}

/// A shard whose traces are watched over.
struct Watched {
    shard: Shard,
    traces: Traces,
    actions: Vec<Action>,
    judged: Vec<Due>,
    out: Batch,
}

/// Asks the state machine, as the driver of a shard does.
struct Way<'a> {
    traces: &'a mut Traces,
    stand: &'a Stand,
    now: Millis,
}

/// Prints what a span costs on each side.
pub(crate) fn print_cost() {
    for members in [1, 3] {
        let (plain, watched) = compare(members);
        let nanos = |took: Duration| took.as_nanos() as f64 / (WAVES * SPANS_A_WAVE as u64) as f64;
        println!(
            "kept whole by {members} gateways: {:.1} ns a span without, {:.1} with: {:+.1} ns",
            nanos(plain),
            nanos(watched),
            nanos(watched) - nanos(plain),
        );
    }
}

fn compare(members: usize) -> (Duration, Duration) {
    let mut fleet = Fleet::new(members);
    let stand = fleet.members[0].stand().clone();
    let mut load = Load::of(move |id| stand.owns(load::seed().key(&id)));
    let mut others = Others::new(&fleet);
    let (mut plain, mut watched) = (Plain::new(), Watched::new());
    let (mut alone, mut whole) = (Duration::ZERO, Duration::ZERO);
    for wave in 0..WARM + WAVES {
        fleet.pass(1_000);
        let now = fleet.now;
        let stand = fleet.members[0].stand();
        assert!(stand.may_decide(now), "{members} members do not agree");
        let requests = load.requests();
        let told = others.decide(stand, requests.len() * load::SPANS_A_REQUEST);
        let begun = Instant::now();
        plain.take(&requests, now);
        let between = Instant::now();
        watched.take(&requests, &told, stand, now);
        if wave >= WARM {
            alone += between - begun;
            whole += between.elapsed();
        }
    }
    assert_eq!(plain.shard.stats().traces_kept, watched.shard.stats().traces_kept);
    (alone, whole)
}

// === impl Fleet ===

impl Fleet {
    fn new(members: usize) -> Self {
        let own = |number| {
            let me = Instance::new(&format!("gateway-{number}"), 1);
            let (seed, rules) = (load::seed(), Rules::ALL);
            let config = Config { me, seed, remember: 0, remember_max: 0, settle: 0, rules };
            Ownership::new(config, 0)
        };
        let members = (0..members).map(own).collect();
        let mut fleet = Self { members, now: 0 };
        let names: Vec<_> = (0..fleet.members.len()).map(|n| (name(n).into(), true)).collect();
        for member in &mut fleet.members {
            member.on_slice(&names, 0, &mut Vec::new());
        }
        fleet.pass(120_000);
        fleet
    }

    fn pass(&mut self, millis: Millis) {
        let end = self.now + millis;
        while self.now < end {
            self.now += TICK;
            for from in 0..self.members.len() {
                let mut out = Vec::new();
                self.members[from].on_tick(false, self.now, &mut out);
                for action in out {
                    self.carry(from, action);
                }
            }
        }
    }

    fn carry(&mut self, from: usize, action: Action) {
        let Action::Send { to, req, message, .. } = action else { return };
        let found = (0..self.members.len()).find(|number| *name(*number) == *to);
        let Some(to) = found else { return };
        let mut out = Vec::new();
        if let Some(answer) = self.members[to].on_question(&message, self.now, &mut out) {
            self.members[from].on_answer(req, &answer, self.now, &mut out);
        }
    }
}

fn name(number: usize) -> String {
    format!("gateway-{number}")
}

/// The other gateways, which decide as much as we do.
struct Others {
    members: Vec<Instance>,
    random: fastrand::Rng,
}

impl Others {
    fn new(fleet: &Fleet) -> Self {
        let members = (1..fleet.members.len()).map(|number| Instance::new(&name(number), 1));
        Self { members: members.collect(), random: fastrand::Rng::with_seed(5) }
    }

    /// What they propose while we take in so many spans.
    fn decide(&mut self, stand: &Stand, spans: usize) -> Vec<Decisions> {
        let traces = spans / load::SPANS_A_TRACE;
        let mut told = Vec::new();
        for from in &self.members {
            let of_theirs =
                |key: &TraceKey| stand.owner(*key).is_some_and(|owner| owner.id == *from.name);
            let keys = std::iter::repeat_with(|| TraceKey(self.random.u64(..))).filter(of_theirs);
            let verdict = Verdict { keep: false, note: 0 };
            let decision = |key| Decision { key, verdict, age: 0, exported: false };
            let keys: Vec<_> = keys.take(traces).map(decision).collect();
            let message = |list: &[Decision]| Decisions {
                from: from.clone(),
                propose: true,
                list: list.to_vec(),
            };
            told.extend(keys.chunks(1_000).map(message));
        }
        told
    }
}

// === impl Plain ===

impl Plain {
    fn new() -> Self {
        Self { shard: load::shard(10, REMEMBERED), out: Batch::new() }
    }

    // Not inlined, so that a profile tells the sides apart.
    #[inline(never)]
    fn take(&mut self, requests: &load::Requests, now: Millis) {
        let Self { shard, out } = self;
        for (request, shape) in requests {
            shard.insert(request, shape, now, out);
            while shard.decide_due(now, &TURN, out).more {
                out.clear();
            }
            out.clear();
        }
    }
}

// === impl Watched ===

impl Watched {
    fn new() -> Self {
        Self {
            shard: load::shard(10, 0),
            traces: Traces::new(0, 130_000, REMEMBERED),
            actions: Vec::new(),
            judged: Vec::new(),
            out: Batch::new(),
        }
    }

    #[inline(never)]
    fn take(&mut self, requests: &load::Requests, told: &[Decisions], stand: &Stand, now: Millis) {
        let every = requests.len() / told.len().max(1);
        let mut told = told.iter();
        for (number, (request, shape)) in requests.iter().enumerate() {
            self.insert(request, shape, stand, now);
            if number % every == 0
                && let Some(told) = told.next()
            {
                let answer = self.traces.on_decisions(stand, told, now, &mut self.actions);
                assert!(answer.known.is_empty() && answer.refused.is_empty());
                self.perform(stand, now);
            }
            while self.decide(stand, now) {
                self.out.clear();
            }
            self.out.clear();
        }
        self.traces.on_tick(stand, now, &mut self.actions);
        self.perform(stand, now);
    }

    fn insert(&mut self, request: &[u8], shape: &Shape, stand: &Stand, now: Millis) {
        let Self { shard, traces, out, .. } = self;
        let manner = Manner { steady: Steady::new(Origin::Agent), first: now, counts: true };
        let mut way = Way { traces, stand, now };
        shard.admit(request, shape, (manner, &mut way), now, out);
    }

    fn decide(&mut self, stand: &Stand, now: Millis) -> bool {
        let Self { shard, traces, actions, judged, .. } = self;
        judged.clear();
        let more = shard.judge_due(now, JUDGED, |key| stand.owns(key), judged);
        traces.on_due(stand, judged, now, actions);
        self.perform(stand, now);
        self.shard.tidy_up();
        more
    }

    fn perform(&mut self, stand: &Stand, now: Millis) {
        self.shard.start_gathering();
        let mut asked: Vec<(Req, Arc<str>)> = Vec::new();
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Settle { key, verdict, by } => {
                        self.shard.conclude(key, verdict, by, &mut self.out);
                    }
                    Action::Send { to, req, message: Message::Decisions(_), .. } => {
                        asked.push((req, to));
                    }
                    Action::PutBack { .. } => unreachable!("a decision does not come about"),
                    _ => {}
                }
            }
            for (req, to) in asked.drain(..) {
                let from = Instance::new(&to, 1);
                let answer = ringtail_engine::ownership::message::Agreement {
                    from,
                    known: Vec::new(),
                    refused: Vec::new(),
                };
                self.traces.on_agreement(stand, req, &answer, now, &mut self.actions);
            }
        }
    }
}

impl Guide for Way<'_> {
    fn place(&mut self, key: TraceKey) -> Place {
        let part = Part { key, age: 0, bytes: 0, origin: Origin::Agent, tentative: None };
        match self.traces.admit(self.stand, &part, 0, self.now) {
            Admission::Store { first, foreign: false, origin } => {
                Place::Store(first, Steady::new(origin))
            }
            Admission::Follow(decision) => Place::Follow(decision.verdict.keep),
            _ => Place::Nowhere,
        }
    }

    fn pass(&mut self, _part: usize, _group: &Group<'_>, _span: &[u8]) {}

    fn keep(&mut self, _number: usize, _group: &Group<'_>, _span: &[u8]) {}

    fn leave_group(&mut self) {}
}
