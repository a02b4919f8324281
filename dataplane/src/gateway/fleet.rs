//! The task of a gateway that knows the others: it owns the steward and the connections to peers, and carries
//! what shards send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use ringtail_engine::Millis;
use ringtail_engine::ownership::action::{Action, Message};
use ringtail_engine::ownership::facts::{Fact, Name, State as Life};
use ringtail_engine::ownership::message::{Asked, Hello, HelloAnswer, Poll, PollAnswer};
use ringtail_engine::ownership::timers::{HELLO, REQUEST, TICK};
use ringtail_engine::ownership::{Shards, Stand, Steward};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::calls::{Called, Letter, carry, greet};
use self::seats::Seat;
use super::clock::Clock;
use super::peers::Peers;
use super::shards::{Outgoing, ShardHandle};
use crate::discovery::{Candidates, Standing};
use crate::export::ExporterHandle;
use crate::transport::{CallError, Keyring, Method};

mod calls;
mod seats;

/// Who has not answered for so long is asked who it is: a few hellos.
const QUIET_SEAT: Millis = 3 * HELLO;
/// Questions of peers and agents that wait for the task: each of 64 gateways and 2,000 agents asks about once
/// a second, and an answer takes some µs.
const KNOCKS_MAX: usize = 256;
/// The last words of a gateway have so long to arrive.
const LAST_WORDS: Duration = Duration::from_millis(REQUEST);

/// What the receivers ask the task.
#[derive(Debug)]
pub enum Knock {
    /// Another gateway greets.
    Hello(Box<Hello>, oneshot::Sender<HelloAnswer>),
    /// An agent asks. Also answered is of how long it is to be told the last decisions, if it is.
    Poll(Box<Poll>, oneshot::Sender<(PollAnswer, Option<Millis>)>),
    /// The process shall end.
    Drain,
}

/// The task's address.
#[derive(Clone, Debug)]
pub struct Fleet {
    knocks: mpsc::Sender<Knock>,
    gone: watch::Receiver<bool>,
}

/// What the task works with.
#[derive(Debug)]
pub struct Setting {
    /// The state machine.
    pub steward: Steward,
    /// What others may know.
    pub peers: Arc<Peers>,
    /// The shards.
    pub shards: Vec<ShardHandle>,
    /// Whose queues keep a leaving gateway.
    pub exporters: Arc<[ExporterHandle]>,
    /// What shards send.
    pub outgoing: mpsc::UnboundedReceiver<Outgoing>,
    /// The clock of the process.
    pub clock: Clock,
}

/// See the module.
pub struct FleetTask {
    steward: Steward,
    team: Team,
    exporters: Arc<[ExporterHandle]>,
    outgoing: mpsc::UnboundedReceiver<Outgoing>,
    knocks: mpsc::Receiver<Knock>,
    gone: watch::Sender<bool>,
    clock: Clock,
    keyring: Option<Arc<Keyring>>,
    candidates: watch::Receiver<Candidates>,
    /// By address.
    seats: BTreeMap<String, Seat>,
    calls: JoinSet<Called>,
    actions: Vec<Action>,
    introduced: Millis,
}

/// The shards as the steward sees them.
#[derive(Debug)]
struct Team {
    shards: Vec<ShardHandle>,
    peers: Arc<Peers>,
}

// === impl Team ===

impl Shards for Team {
    fn follow(&mut self, before: &Stand, stand: &Stand, _now: Millis, _out: &mut Vec<Action>) {
        if before.epoch != stand.epoch {
            let digest = format!("{:016x}", stand.view.digest());
            tracing::info!(digest, members = stand.view.len(), state = ?stand.state, "ring");
            self.peers.view_changes.fetch_add(1, Relaxed);
            for member in stand.view.members() {
                self.peers.seen.note(&member.id, member.inst);
            }
        }
        // The shards look at it before everything that they do.
        self.peers.publish(stand);
    }

    fn are_complete(&self, stand: &Stand) -> bool {
        let complete = stand.epoch << 1 | 1;
        self.progress().all(|progress| progress >> 1 == complete)
    }

    fn are_idle(&self) -> bool {
        self.progress().all(|progress| progress & 1 == 1)
    }

    fn disturbed(&self) -> Millis {
        self.shards.iter().map(|shard| shard.gauges.disturbed.load(Relaxed)).max().unwrap_or(0)
    }
}

impl Team {
    fn progress(&self) -> impl Iterator<Item = u64> {
        self.shards.iter().map(|shard| shard.gauges.progress.load(Acquire))
    }
}

// === impl Fleet ===

impl Fleet {
    /// Asks the task; `None` when it has ended.
    pub async fn ask<T>(&self, knock: impl FnOnce(oneshot::Sender<T>) -> Knock) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.knocks.send(knock(done)).await.ok()?;
        answer.await.ok()
    }

    /// Hands everything over, and returns when that is done.
    pub async fn leave(&self) {
        if self.knocks.send(Knock::Drain).await.is_ok() {
            let mut gone = self.gone.clone();
            // An error means that the task has ended, which is what is waited for.
            let _ = gone.wait_for(|gone| *gone).await;
        }
    }
}

// === impl FleetTask ===

impl FleetTask {
    /// The task and its address.
    pub fn new(
        setting: Setting,
        candidates: watch::Receiver<Candidates>,
        keyring: Option<Arc<Keyring>>,
    ) -> (Fleet, Self) {
        let (ask, knocks) = mpsc::channel(KNOCKS_MAX);
        let (gone, watched) = watch::channel(false);
        let task = Self {
            steward: setting.steward,
            team: Team { shards: setting.shards, peers: setting.peers },
            exporters: setting.exporters,
            outgoing: setting.outgoing,
            knocks,
            gone,
            clock: setting.clock,
            keyring,
            candidates,
            seats: BTreeMap::new(),
            calls: JoinSet::new(),
            actions: Vec::new(),
            introduced: 0,
        };
        (Fleet { knocks: ask, gone: watched }, task)
    }

    /// Runs until the task is aborted.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(Duration::from_millis(TICK));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut candidates = self.candidates.clone();
        candidates.mark_changed();
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => self.tick(),
                Some(called) = self.calls.join_next(), if !self.calls.is_empty() => {
                    if let Ok(called) = called {
                        self.settle(called);
                    }
                }
                Some(knock) = self.knocks.recv() => self.answer(knock),
                Ok(()) = candidates.changed() => {
                    let list = candidates.borrow_and_update().clone();
                    self.list(&list);
                }
                Some(outgoing) = self.outgoing.recv() => self.send(outgoing),
            }
            if self.perform() {
                self.say_last_words().await;
            }
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        self.close_seats(now);
        self.steward.on_tick(&mut self.team, now, &mut self.actions);
        let waits = |exporter: &ExporterHandle| exporter.counters().held.load(Relaxed) > 0;
        let exporting = self.exporters.iter().any(waits);
        self.steward.leave_if_done(&self.team, exporting, now, &mut self.actions);
        if now >= self.introduced + HELLO {
            self.introduced = now;
            self.introduce(now);
        }
        self.team.peers.conduct.store(Arc::new(self.steward.conduct()));
        self.count();
    }

    fn answer(&mut self, knock: Knock) {
        let now = self.clock.now();
        let Self { steward, team, actions, .. } = self;
        match knock {
            Knock::Hello(hello, done) => {
                let _ = done.send(steward.on_hello(team, &hello, now, actions));
            }
            Knock::Poll(mut poll, done) => {
                if !self.seats.values().any(Seat::is_other) {
                    // Whoever was given no peers is alone, whatever agents know.
                    (poll.facts, poll.losses, poll.heard) = Default::default();
                }
                let _ = done.send(steward.on_poll(team, &poll, now, actions));
            }
            Knock::Drain => steward.drain(team, now, actions),
        }
    }

    /// Does what the steward says; true when nothing is left to do at all.
    fn perform(&mut self) -> bool {
        let mut exit = false;
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send { to, message: Message::Hello(hello), deadline, .. } => {
                    self.greet(Some(to), &hello, deadline);
                }
                Action::Exit => exit = true,
                _ => {}
            }
        }
        exit
    }

    async fn say_last_words(&mut self) {
        let said = async { while self.calls.join_next().await.is_some() {} };
        // Who does not hear them finds out.
        let _ = tokio::time::timeout(LAST_WORDS, said).await;
        self.gone.send_replace(true);
    }

    // === Calls ===

    fn greet(&mut self, to: Option<Name>, hello: &Hello, deadline: Millis) {
        let wanted = |seat: &&Seat| seat.name == to && !seat.myself;
        let Some(seat) = self.seats.values().find(wanted) else { return };
        let letter = seat.letter(hello.asked, self.within(deadline));
        self.calls.spawn(greet(letter, hello.clone(), self.team.peers.seed));
    }

    /// Asks those who they are that have not said so lately.
    fn introduce(&mut self, now: Millis) {
        let epoch = self.steward.stand().epoch;
        let hello = Hello { status: self.steward.status(now), asked: Asked { epoch, at: now } };
        let silent = |seat: &&mut Seat| {
            let quiet = seat.name.is_none() || seat.answered + QUIET_SEAT <= now;
            quiet && !seat.myself && !seat.asking && seat.standing.is_some()
        };
        for seat in self.seats.values_mut().filter(silent) {
            seat.asking = true;
            let letter = seat.letter(hello.asked, Duration::from_millis(REQUEST));
            self.calls.spawn(greet(letter, hello.clone(), self.team.peers.seed));
        }
    }

    fn send(&mut self, mut outgoing: Outgoing) {
        let (now, within) = (self.clock.now(), self.within(outgoing.deadline));
        let shard = (outgoing.req.0 as u32).checked_sub(1).map(|shard| shard as usize);
        let Some(shard) = shard.filter(|shard| *shard < self.team.shards.len()) else { return };
        let Self { steward, team, seats, actions, .. } = self;
        let seat = seats.values().find(|seat| seat.name.as_ref() == Some(&outgoing.to));
        let client = seat.map(|seat| seat.client(outgoing.method));
        let rides = |seat: &&Seat| seat.rides && outgoing.method == Method::Decide;
        let along = seat.filter(rides).and_then(|seat| {
            let greeting = steward.greet_along(team, &outgoing.to, now, actions)?;
            let Action::Send { message: Message::Hello(hello), .. } = greeting else { return None };
            let frame = std::mem::take(&mut outgoing.frame);
            outgoing.frame = calls::with(frame, &hello, &team.peers.seed);
            Some(seat.letter(hello.asked, within))
        });
        let shards = (team.shards.clone(), shard);
        self.calls.spawn(carry(outgoing, client, within, shards, along));
    }

    fn within(&self, deadline: Millis) -> Duration {
        Duration::from_millis(deadline.saturating_sub(self.clock.now()))
    }

    fn settle(&mut self, called: Called) {
        let now = self.clock.now();
        match called {
            Called::Hello { letter, result } => {
                if let Some(seat) = self.seats.get_mut(&letter.address) {
                    seat.asking = false;
                }
                match result {
                    Ok(answer) => self.meet(&letter, answer, now),
                    Err(error) => self.miss(letter.to, &error, now),
                }
            }
            Called::Answered { from, along } => {
                self.steward.on_heard(&mut self.team, &from, now, &mut self.actions);
                match along {
                    Some((letter, Some(met))) => self.meet(&letter, Some(met), now),
                    Some((letter, None)) => self.greet_alone(&letter),
                    None => {}
                }
            }
            Called::Failed { to, failure } => {
                let failed = (&*to, failure);
                self.steward.on_failed(&mut self.team, failed, now, &mut self.actions);
            }
            Called::Unclear(None) => {}
            Called::Unclear(Some(letter)) => self.greet_alone(&letter),
        }
    }

    fn miss(&mut self, to: Option<Name>, error: &CallError, now: Millis) {
        tracing::debug!(?to, %error, "a gateway does not answer");
        if let Some(to) = to {
            let failed = (&*to, calls::failure(error));
            self.steward.on_failed(&mut self.team, failed, now, &mut self.actions);
        }
    }

    /// An older gateway: it has not seen the greeting that went along.
    fn greet_alone(&mut self, letter: &Letter) {
        if let Some(seat) = self.seats.get_mut(&letter.address) {
            seat.rides = false;
        }
    }

    /// Somebody answered a greeting: a gateway of ours, or somebody else's.
    fn meet(&mut self, letter: &Letter, answer: Option<calls::Met>, now: Millis) {
        let me = self.steward.stand().me.clone();
        let seed = self.team.peers.seed.id();
        let Some(seat) = self.seats.get_mut(&letter.address) else { return };
        let met = answer.filter(|met| met.seed_id == seed);
        if met.is_none() && !std::mem::replace(&mut seat.foreign, met.is_none()) {
            tracing::warn!(
                address = %letter.address,
                "not taken as a gateway: it does not speak our protocol or has another seed; every process \
                 of a fleet needs the same --seed-file"
            );
        }
        let Some(met) = met else { return };
        let from = &met.answer.status.from;
        seat.foreign = false;
        seat.answered = now;
        seat.myself = *from == me;
        let renamed = seat.name.as_ref() != Some(&from.name);
        seat.name = Some(Arc::clone(&from.name));
        if renamed {
            tracing::info!(address = %letter.address, gateway = %from.name, "gateway");
            self.tell_slices(now);
        }
        if *from != me {
            let answer = &met.answer;
            self.steward.on_hello_answer(&mut self.team, answer, now, &mut self.actions);
        }
    }

    // === Candidates ===

    fn list(&mut self, list: &Candidates) {
        let Some(list) = list else { return };
        let now = self.clock.now();
        self.seats.values_mut().for_each(|seat| seat.standing = None);
        for candidate in list.iter() {
            if let Some(seat) = self.seats.get_mut(&candidate.address) {
                seat.standing = Some(candidate.standing);
                continue;
            }
            match Seat::open(candidate, self.keyring.as_ref(), now) {
                Ok(seat) => drop(self.seats.insert(candidate.address.clone(), seat)),
                Err(error) => tracing::warn!(%error, "a candidate is left out"),
            }
        }
        self.tell_slices(now);
        self.introduce(now);
    }

    /// Tells the steward who is listed, by name.
    fn tell_slices(&mut self, now: Millis) {
        if self.candidates.borrow().is_none() {
            return;
        }
        let named = |seat: &Seat| {
            let serving = seat.standing? == Standing::Serving;
            Some((seat.name.clone()?, serving))
        };
        let slice: Vec<(Name, bool)> =
            self.seats.values().filter(|seat| !seat.myself).filter_map(named).collect();
        self.steward.on_slice(&mut self.team, &slice, now, &mut self.actions);
    }

    /// Seats of those who are neither listed nor alive are given up.
    fn close_seats(&mut self, now: Millis) {
        let alive = |fact: &Fact| fact.state < Life::Gone;
        let facts = self.steward.facts();
        self.seats.retain(|address, seat| {
            let known = seat.name.as_ref().and_then(|name| facts.find(name));
            let stays = seat.standing.is_some()
                || seat.answered + 4 * QUIET_SEAT > now && known.is_some_and(alive);
            if !stays {
                tracing::info!(%address, "a candidate is gone");
            }
            stays
        });
    }

    fn count(&self) {
        let facts = self.steward.facts();
        let draining = facts.iter().filter(|fact| fact.state == Life::Draining).count();
        let counts = &self.team.peers.counts;
        counts.candidates.store(self.seats.len() as u64, Relaxed);
        counts.draining.store(draining as u64, Relaxed);
        let foreign = self.seats.values().filter(|seat| seat.foreign).count();
        counts.foreign.store(foreign as u64, Relaxed);
    }
}

impl Drop for FleetTask {
    fn drop(&mut self) {
        self.calls.abort_all();
    }
}
