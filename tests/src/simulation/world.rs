//! The discrete events of one schedule: virtual time, the network, the cluster's slices.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use ringtail_engine::key::{KeySeed, TraceKey};
use ringtail_engine::ownership::Stats;
use ringtail_engine::ownership::action::{Answer, Failure, Message};
use ringtail_engine::ownership::facts::Name;
use ringtail_engine::ownership::message::{Origin, Req};
use ringtail_engine::ownership::rules::Rules;

use super::Outcome;
use super::agent::{Agent, Collector};
use super::dice::Dice;
use super::gateway::{Context, Gateway, Load, Output};
use super::schedule::{Schedule, WAIT, What};
use super::truth::{SpanRef, Truth};

/// Processes look at their clocks so often.
const TICK: u64 = 250;

/// A wall clock that all processes start from.
const WALL: u64 = 1_700_000_000_000;

/// After the last event and span: the wait, what may come late, and then some.
const END_AFTER: u64 = WAIT + 90_000;

/// After the last slice: agents find a gateway, poll it, send again, and it exports.
const SETTLE: u64 = 12_000;

mod events;

#[derive(Debug)]
enum Event {
    Script(What),
    Span(SpanRef, usize),
    Tick,
    Slice(Arc<[(Name, bool)]>),
    Question { from: usize, req: Req, message: Message, load: Load },
    Answer { req: Req, answer: Answer },
    Failed { to: Name, req: Req, failure: Failure },
    Exported { keys: Vec<TraceKey>, spans: Vec<SpanRef> },
    Listed { name: Name, listed: Listed },
    Resume,
}

/// What the slices say of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Serving,
    NotReady,
    Absent,
}

#[derive(Debug)]
struct Process {
    name: Name,
    kind: Kind,
    alive: bool,
    paused: bool,
    backlog: Vec<Event>,
    last_slice: u64,
    clock: Clock,
}

/// What a process takes for the time: nothing but the order of events is the same everywhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// How many of its milliseconds pass in ten seconds.
    rate: u64,
    started: u64,
}

#[derive(Debug)]
enum Kind {
    Gateway(Box<Gateway>),
    Agent(Box<Agent>),
    Collector(Collector),
    /// While it is being run.
    Away,
}

/// A direction in which nothing gets through.
#[derive(Debug)]
struct Cut {
    from: Name,
    /// Every gateway, if there is none.
    to: Option<Name>,
    until: u64,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    count: u64,
    process: usize,
    event: Event,
}

/// See the module.
#[derive(Debug)]
pub(super) struct World<'a> {
    schedule: &'a Schedule,
    rules: Rules,
    seed: KeySeed,
    dice: Dice,
    truth: Truth,
    now: u64,
    count: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    processes: Vec<Process>,
    by_name: BTreeMap<Name, usize>,
    listed: BTreeMap<Name, Listed>,
    cuts: Vec<Cut>,
    /// The last arrival on each connection, which keeps its order.
    arrivals: BTreeMap<(usize, usize), u64>,
    slow: Option<Name>,
}

/// The process of events that are nobody's.
const NOBODY: usize = usize::MAX;

// === Running ===

impl<'a> World<'a> {
    pub(super) fn new(schedule: &'a Schedule, rules: Rules) -> Self {
        let seed = KeySeed::new([7; 16]);
        let mut world = Self {
            schedule,
            rules,
            seed,
            dice: Dice::new(schedule.seed ^ 0x51),
            truth: Truth::new(schedule, &seed),
            now: 1_000,
            count: 0,
            queue: BinaryHeap::new(),
            processes: Vec::new(),
            by_name: BTreeMap::new(),
            listed: BTreeMap::new(),
            cuts: Vec::new(),
            arrivals: BTreeMap::new(),
            slow: None,
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        let Schedule { gateways, agents, network, .. } = self.schedule;
        self.slow = network.slow_process.map(|process| match process.checked_sub(*gateways) {
            None => gateway_name(process),
            Some(agent) => agent_name(agent % agents),
        });
        for agent in 0..*agents {
            self.start_agent(agent);
        }
        for gateway in 0..*gateways {
            let at = self.dice.between(1_000, 1_500);
            self.schedule_event(at, NOBODY, Event::Script(What::Start { gateway }));
        }
        for event in &self.schedule.events {
            self.schedule_event(event.at, NOBODY, Event::Script(event.what));
        }
        for (trace, plan) in self.schedule.traces.iter().enumerate() {
            for (span, (at, agent)) in plan.spans.iter().enumerate() {
                let span = SpanRef { trace: trace as u16, span: span as u16 };
                self.schedule_event(*at, *agent, Event::Span(span, *agent));
            }
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Outcome {
        let over = self.schedule.end();
        let mut look = over + WAIT;
        while let Some(Reverse(entry)) = self.queue.pop() {
            self.now = entry.at;
            self.truth.pass_time(self.now);
            if self.now > over + END_AFTER {
                break;
            }
            if self.now > look {
                look = self.now + 1_000;
                if self.is_over() {
                    break;
                }
            }
            self.handle(entry.process, entry.event);
        }
        let (twice, exported) = self.truth.twice();
        Outcome {
            violations: self.truth.violations(),
            twice,
            exported,
            stats: self.stats(),
            moved: self.truth.moved(),
            traffic: self.truth.traffic(),
            delays: self.truth.delays(),
            ended: self.now,
        }
    }

    /// Of all gateways that there were.
    fn stats(&self) -> Stats {
        let stats = self.processes.iter().filter_map(|process| match &process.kind {
            Kind::Gateway(gateway) => Some(gateway.stats()),
            _ => None,
        });
        stats.fold(Stats::default(), Stats::plus)
    }

    fn is_over(&self) -> bool {
        let idle = |process: &Process| match &process.kind {
            _ if !process.alive => true,
            Kind::Gateway(gateway) => gateway.is_empty(),
            Kind::Agent(agent) => agent.is_settled(),
            Kind::Collector(collector) => collector.is_settled(),
            Kind::Away => false,
        };
        // A process whose slices are old may still find out that its holders are gone.
        let informed = |process: &Process| !process.alive || process.last_slice + SETTLE < self.now;
        self.truth.is_decided() && self.processes.iter().all(|one| idle(one) && informed(one))
    }

    fn schedule_event(&mut self, at: u64, process: usize, event: Event) {
        self.count += 1;
        self.queue.push(Reverse(Entry { at, count: self.count, process, event }));
    }

    fn handle(&mut self, process: usize, event: Event) {
        match event {
            Event::Script(what) => return self.befall(what),
            Event::Listed { name, listed } => return self.list(name, listed),
            Event::Exported { keys, spans } => return self.exported(process, &keys, &spans),
            Event::Span(span, agent) => return self.on_span(span, agent),
            _ => {}
        }
        let this = &mut self.processes[process];
        if !this.alive {
            return;
        }
        if matches!(event, Event::Resume) {
            return self.resume(process);
        }
        if this.paused {
            if !matches!(event, Event::Tick) {
                this.backlog.push(event);
            }
            return;
        }
        if matches!(event, Event::Tick) {
            let at = self.now + self.processes[process].clock.span(TICK);
            self.schedule_event(at, process, Event::Tick);
        }
        if let (Event::Answer { .. }, Some(agent)) = (&event, agent_of(&self.processes[process])) {
            self.truth.touch(agent);
        }
        self.run_process(process, |kind, cx| on_event(kind, event, cx));
    }

    /// Lets a process handle something, and does what it wants.
    fn run_process(&mut self, process: usize, handle: impl FnOnce(&mut Kind, &mut Context<'_>)) {
        let mut kind = std::mem::replace(&mut self.processes[process].kind, Kind::Away);
        let mut cx = Context {
            now: self.processes[process].clock.read(self.now),
            dice: &mut self.dice,
            truth: &mut self.truth,
            out: Vec::new(),
        };
        handle(&mut kind, &mut cx);
        let out = cx.out;
        self.processes[process].kind = kind;
        for output in out {
            self.put_out(process, output);
        }
    }

    fn put_out(&mut self, process: usize, output: Output) {
        match output {
            Output::Ask { to, req, message, load, deadline } => {
                let clock = self.processes[process].clock;
                let left = deadline.saturating_sub(clock.read(self.now));
                self.schedule_event(
                    self.now + clock.span(left),
                    process,
                    Event::Failed { to: Arc::clone(&to), req, failure: Failure::TimedOut },
                );
                self.ask(process, to, req, message, load);
            }
            Output::Tell { to, req, answer } => {
                self.travel(process, to, Event::Answer { req, answer });
            }
            Output::Export { keys, spans, millis } => {
                self.schedule_event(self.now + millis, process, Event::Exported { keys, spans });
            }
            Output::Exit => self.end(process),
        }
    }

    fn ask(&mut self, from: usize, to: Name, req: Req, message: Message, load: Load) {
        let parcel = matches!(&message, Message::Deliver(delivery) if delivery.hops == 0);
        if parcel && matches!(self.processes[from].kind, Kind::Gateway(_)) {
            self.truth.move_spans(load.iter().flatten().copied(), &to);
        }
        if let Message::Deliver(delivery) = &message {
            let gateway = matches!(self.processes[from].kind, Kind::Gateway(_));
            if gateway || self.find_alive(&to).is_some() {
                for (part, spans) in delivery.parts.iter().zip(&load) {
                    let again = gateway || part.origin == Origin::Replay;
                    self.truth.carry(spans.iter().copied(), &to, again);
                }
            }
        }
        match self.by_name.get(&to).copied().filter(|process| self.processes[*process].alive) {
            Some(process) => {
                self.travel(from, process, Event::Question { from, req, message, load });
            }
            None if self.schedule.network.refuses && !self.is_cut(from, &to) => {
                let at = self.now + 2 * self.delay();
                self.schedule_event(at, from, Event::Failed { to, req, failure: Failure::Refused });
            }
            None => {}
        }
    }
}

// === The network ===

impl World<'_> {
    /// A message travels in order with the others of its connection.
    fn travel(&mut self, from: usize, to: usize, event: Event) {
        let mut at = self.now + self.delay();
        let name = Arc::clone(&self.processes[to].name);
        if let Some(until) = self.cut_until(from, &name) {
            if !self.schedule.network.cuts_delay {
                return;
            }
            at += until.saturating_sub(self.now);
        }
        let last = self.arrivals.entry((from, to)).or_default();
        at = at.max(*last);
        *last = at;
        self.schedule_event(at, to, event);
    }

    fn delay(&mut self) -> u64 {
        let network = self.schedule.network;
        let lost = self.dice.chance(network.loss_percent);
        let again = if lost { self.dice.between(200, 1_200) } else { 0 };
        self.dice.between(1, network.delay_max) + again
    }

    fn cut_until(&self, from: usize, to: &Name) -> Option<u64> {
        let name = &self.processes[from].name;
        let here = |name: &Name| name.starts_with('g');
        let cut = self.cuts.iter().find(|cut| {
            cut.until > self.now
                && match &cut.to {
                    Some(there) => cut.from == *name && there == to,
                    // An isolated gateway: nothing to or from any other gateway.
                    None => (cut.from == *name || cut.from == *to) && here(name) && here(to),
                }
        });
        cut.map(|cut| cut.until)
    }

    fn is_cut(&self, from: usize, to: &Name) -> bool {
        self.cut_until(from, to).is_some()
    }
}

// === Slices ===

impl World<'_> {
    fn list(&mut self, name: Name, listed: Listed) {
        let alive = self.find_alive(&name).is_some();
        match listed {
            Listed::Serving if !alive => return,
            Listed::Absent if alive => return,
            _ => {}
        }
        self.listed.insert(name, listed);
        for process in 0..self.processes.len() {
            let max = self.schedule.network.slice_max;
            let slow =
                self.slow.as_ref() == Some(&self.processes[process].name) && self.now > 8_000;
            let delay =
                if slow { self.dice.between(30_000, 60_000) } else { self.dice.between(1, max) };
            // The fleet has formed before the first span.
            let delay = if self.now < 5_000 { delay.min(300) } else { delay };
            self.send_slice(process, self.now + delay);
        }
    }

    fn send_slice(&mut self, process: usize, at: u64) {
        let listed = self.listed.iter().filter(|(_, listed)| **listed != Listed::Absent);
        let slice: Arc<[(Name, bool)]> =
            listed.map(|(name, listed)| (Arc::clone(name), *listed == Listed::Serving)).collect();
        let this = &mut self.processes[process];
        let at = at.max(this.last_slice);
        this.last_slice = at;
        self.schedule_event(at, process, Event::Slice(slice));
    }
}

fn on_event(kind: &mut Kind, event: Event, cx: &mut Context<'_>) {
    match (kind, event) {
        (Kind::Gateway(gateway), Event::Tick) => gateway.on_tick(cx),
        (Kind::Gateway(gateway), Event::Slice(slice)) => gateway.on_slice(&slice, cx),
        (Kind::Gateway(gateway), Event::Question { from, req, message, load }) => {
            gateway.on_question(from, req, message, load, cx);
        }
        (Kind::Gateway(gateway), Event::Answer { req, answer }) => {
            gateway.on_answer(req, &answer, cx)
        }
        (Kind::Gateway(gateway), Event::Failed { to, req, failure }) => {
            gateway.on_failed(&to, req, failure, cx);
        }
        (Kind::Gateway(gateway), Event::Exported { keys, spans }) => {
            for span in spans {
                cx.truth.export(span);
            }
            gateway.on_exported(&keys);
        }
        (Kind::Agent(agent), Event::Tick) => agent.on_tick(cx),
        (Kind::Agent(agent), Event::Slice(slice)) => agent.on_slice(&slice, cx),
        (Kind::Agent(agent), Event::Answer { req, answer }) => agent.on_answer(req, &answer, cx),
        (Kind::Agent(agent), Event::Failed { req, failure, .. }) => {
            agent.on_failed(req, failure, cx)
        }
        (Kind::Collector(collector), Event::Tick) => collector.on_tick(cx),
        (Kind::Collector(collector), Event::Slice(slice)) => collector.on_slice(&slice),
        (Kind::Collector(collector), Event::Answer { req, answer }) => {
            collector.on_answer(req, &answer, cx)
        }
        (Kind::Collector(collector), Event::Failed { req, .. }) => collector.on_failed(req, cx),
        _ => {}
    }
}

fn agent_of(process: &Process) -> Option<usize> {
    process.name.strip_prefix('a')?.parse().ok()
}

impl Clock {
    fn new(started: u64, skew: u64, dice: &mut Dice) -> Self {
        Self { rate: 10_000 + dice.between(0, 2 * skew) - skew, started }
    }

    /// What it shows.
    fn read(self, now: u64) -> u64 {
        self.started + (now - self.started) * self.rate / 10_000
    }

    /// How long so many of its milliseconds take.
    fn span(self, millis: u64) -> u64 {
        (millis * 10_000).div_ceil(self.rate)
    }
}

fn gateway_name(gateway: usize) -> Name {
    format!("g{gateway:02}").into()
}

fn agent_name(agent: usize) -> Name {
    format!("a{agent}").into()
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.count) == (other.at, other.count)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.count).cmp(&(other.at, other.count))
    }
}
