//! Waiting until a fleet has come to rest; its end, and what is known of it then.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use ringtail_engine::key::KeySeed;
use ringtail_engine::ring::{Member as RingMember, View};
use serde_json::Value;

use super::{EXIT_PATIENCE, Ended, Fleet, Member};
use crate::churn::arrivals::{Times, millis};
use crate::churn::contender::{self, Side};
use crate::churn::probe::{Moved, Sample};
use crate::churn::verdict::{Case, Verdict};
use crate::failure::{Failure, Result};

/// Between two looks at the fleet.
const POLL: Duration = Duration::from_millis(50);
/// Nothing was handed over for so long: it is done.
const STILL: Duration = Duration::from_millis(1_500);
/// A fleet that has not come to rest within this never does.
const REST_PATIENCE: Duration = Duration::from_secs(45);
/// How long after the decision wait everything must be there: Ringtail may wait for a fence and replays,
/// a Collector for nothing but its queues.
const RINGTAIL_PATIENCE: Duration = Duration::from_secs(40);
const COLLECTOR_PATIENCE: Duration = Duration::from_secs(8);

// === Rest ===

impl Fleet {
    /// Waits until all agree on the ring of the last step and nothing is handed over any more.
    pub(in crate::churn) fn rest(&mut self) -> Result<()> {
        let since = self.steps.last().map_or_else(Instant::now, |step| step.at);
        let deadline = Instant::now() + REST_PATIENCE;
        let (mut moved, mut moved_at) = (self.moved(), since);
        let mut agreed_at = None;
        let rest = loop {
            let now = Instant::now();
            if std::mem::replace(&mut moved, self.moved()) != moved {
                moved_at = now;
            }
            agreed_at = if self.agrees(since) { agreed_at.or(Some(now)) } else { None };
            if let Some(done) = agreed_at.map(|agreed| agreed.max(moved_at))
                && now >= done + STILL
            {
                break Some((done - since).as_secs_f64());
            }
            if now > deadline {
                break None;
            }
            self.check_alive()?;
            std::thread::sleep(POLL);
        };
        self.rests.push(rest);
        Ok(())
    }

    /// Everybody who is there has said since then that the ring is as it should be, and the same one.
    fn agrees(&self, since: Instant) -> bool {
        let alone = self.programs.alone;
        let gateways = self.gateways.values().filter(|_| !alone);
        let asked = gateways.chain(self.agents.values());
        let mut digests = Vec::new();
        for member in asked {
            let Some(sample) = member.latest().filter(|sample| sample.at > since) else {
                return false;
            };
            let agrees = match member.side {
                Side::Ringtail => self.has_expected(&sample),
                // A gateway of theirs knows no ring.
                Side::Collector => sample.backends == self.expected.len() || sample.backends == 0,
            };
            if !agrees {
                return false;
            }
            digests.extend((member.side == Side::Ringtail).then_some(sample.digest));
        }
        digests.dedup();
        digests.len() <= 1
    }

    fn has_expected(&self, sample: &Sample) -> bool {
        match self.crew.gateway_side {
            Side::Ringtail => self.expected.iter().eq(&sample.members),
            Side::Collector => sample.backends == self.expected.len(),
        }
    }

    fn check_alive(&mut self) -> Result<()> {
        for (name, member) in self.gateways.iter_mut().chain(&mut self.agents) {
            if !member.process.is_running() {
                member.process.answer(Duration::ZERO)?;
                return Err(Failure::new(format!("{name} has ended by itself")));
            }
        }
        Ok(())
    }

    /// Spans handed over or sent again, so far.
    pub(in crate::churn) fn moved(&self) -> Moved {
        let mut moved = self.moved_before;
        let there = self.gateways.values().chain(self.leaving.values());
        there.for_each(|gateway| moved += gateway.moved());
        moved
    }
}

// === End ===

impl Fleet {
    /// Ends the load, waits until everything is decided, and stops everybody; returns the load's summary.
    pub(in crate::churn) fn finish(&mut self) -> Result<Value> {
        let load = self.end_load()?;
        let patience = match self.crew.gateway_side {
            Side::Ringtail => RINGTAIL_PATIENCE,
            Side::Collector => COLLECTOR_PATIENCE,
        };
        let started = Instant::now();
        let due = self.programs.decision_wait;
        let taken = self.taken();
        while started.elapsed() < due + patience {
            // Once everything is there, nothing keeps what must not be there from coming until it is due.
            let is_complete = || self.case(&taken, |case| case.is_complete());
            if started.elapsed() > due && self.holds_nothing() && is_complete() {
                break;
            }
            std::thread::sleep(POLL * 4);
        }
        let agents = std::mem::take(&mut self.agents);
        let samples = agents.values().filter_map(Member::latest);
        self.unprotected = samples.map(|sample| sample.unprotected).sum();
        self.stop(agents)?;
        let gateways = std::mem::take(&mut self.gateways);
        gateways.values().for_each(|gateway| self.moved_before += gateway.moved());
        self.stop(gateways)?;
        Ok(load)
    }

    /// Begins no new traces; returns when the last span is taken.
    pub(in crate::churn) fn end_load(&mut self) -> Result<Value> {
        self.journal.close();
        let sender = self.sender.take().ok_or_else(|| Failure::new("no load was sent"))?;
        sender.join().map_err(|_| Failure::new("the load stopped in its middle"))?
    }

    /// Spans and bytes that a gateway holds undecided.
    pub(in crate::churn) fn held(&self, gateway: &str) -> (u64, u64) {
        let sample = self.gateways.get(gateway).and_then(Member::latest);
        sample.map_or((0, 0), |sample| (sample.held, sample.held_bytes))
    }

    /// Waits until the gateways hold so many spans.
    pub(in crate::churn) fn await_held(&self, spans: u64) -> Result<()> {
        let started = Instant::now();
        let held = || self.gateways.keys().map(|gateway| self.held(gateway).0).sum::<u64>();
        while held() != spans {
            if started.elapsed() > REST_PATIENCE {
                let held = held();
                return Err(Failure::new(format!("gateways hold {held} of {spans} spans")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn holds_nothing(&self) -> bool {
        let held = |member: &Member| member.latest().is_none_or(|sample| sample.held > 0);
        !self.gateways.values().any(held)
    }

    fn stop(&mut self, members: std::collections::BTreeMap<String, Member>) -> Result<()> {
        let mut members = members;
        for member in members.values_mut() {
            member.process.signal("TERM")?;
            member.since = Instant::now();
        }
        for (name, mut member) in members {
            let (last_words, _) = member.process.finish(EXIT_PATIENCE)?;
            let seconds = member.since.elapsed().as_secs_f64();
            let (ledger, events) = (contender::ledger(&last_words), member.events());
            self.ended.push(Ended { name, ledger, seconds, events });
        }
        Ok(())
    }

    /// What became of every trace.
    pub(in crate::churn) fn verdict(&self) -> Verdict {
        self.case(&self.taken(), |case| case.judge())
    }

    fn case<T>(&self, taken: &[Times], act: impl FnOnce(&Case<'_>) -> T) -> T {
        let arrivals = self.board.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.programs.decision_wait.as_millis();
        act(&Case {
            world: self.world,
            taken,
            arrivals: &arrivals,
            decision_wait_ms: u32::try_from(wait).unwrap_or(u32::MAX),
        })
    }

    /// By index of its trace: when each span was taken.
    fn taken(&self) -> Vec<Times> {
        let traces = self.load.traces_per_block();
        let mut times: Vec<Times> = Vec::new();
        for taken in self.journal.taken() {
            let first = (taken.step.block * traces) as usize;
            let end = first + traces as usize;
            if times.len() < end {
                times.resize(end, Times::default());
            }
            let at = millis(self.board.epoch, taken.at);
            times[first..end].iter_mut().for_each(|times| times[taken.step.fragment] = Some(at));
        }
        times
    }

    /// How many spans had to move: undecided ones, whose owner was another one after a step.
    pub(in crate::churn) fn required(&self, seed: &KeySeed) -> u64 {
        let taken = self.taken();
        let wait = u32::try_from(self.programs.decision_wait.as_millis()).unwrap_or(u32::MAX);
        let mut spans = 0;
        for step in &self.steps {
            let at = millis(self.board.epoch, step.at);
            let [before, after] = [&step.before, &step.after].map(|names| {
                let member = |name: &String| RingMember { id: name.clone(), inst: 1 };
                View::new(names.iter().map(member).collect(), seed)
            });
            let owner = |view: &View, key| {
                view.owner(key).and_then(|at| view.members().get(at).map(|m| m.id.clone()))
            };
            for (index, times) in (0..).zip(&taken) {
                let open = times.iter().flatten().min().is_some_and(|first| at < first + wait);
                let here = times.iter().flatten().filter(|time| **time <= at).count() as u64;
                let key = seed.key(&self.world.trace(index).id);
                if open && here > 0 && owner(&before, key) != owner(&after, key) {
                    spans += here;
                }
            }
        }
        spans
    }
}
