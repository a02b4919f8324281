//! A fleet in one process, under virtual time: the real state machines of ownership, an unkind network, and
//! a model that knows what should have become of every trace.
//!
//! One seed is one schedule is one run, on every machine. A failing schedule is cut down to the events and
//! traces that it takes.

mod agent;
pub mod dice;
mod gateway;
pub mod schedule;
pub mod seeds;
pub mod truth;
mod world;

use ringtail_engine::ownership::Stats;
use ringtail_engine::ownership::rules::Rules;

use self::schedule::Schedule;
use self::truth::{Kind, Violation};
use self::world::World;

/// What came of a schedule.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that went wrong.
    pub violations: Vec<Violation>,
    /// Exports of spans beyond the first.
    pub twice: u64,
    /// Spans exported.
    pub exported: u64,
    /// What its gateways counted.
    pub stats: Stats,
    /// Spans in parcels, and those of them that went to a gateway for the first time.
    pub moved: [u64; 2],
    /// Spans that gateways sent to each other and agents sent again, and those of them that were decided
    /// elsewhere than where they came in.
    pub traffic: [u64; 2],
    /// How long after its time each trace was decided.
    pub delays: Vec<u64>,
    /// When it was over.
    pub ended: u64,
}

/// Runs a schedule.
pub fn run(schedule: &Schedule, rules: Rules) -> Outcome {
    World::new(schedule, rules).run()
}

/// The smallest schedule, found by leaving out events and traces one by one, that still goes wrong in this
/// way.
pub fn shrink(schedule: &Schedule, rules: Rules, kind: Kind) -> Schedule {
    let fails = |schedule: &Schedule| {
        run(schedule, rules).violations.iter().any(|violation| violation.kind == kind)
    };
    let mut smallest = schedule.clone();
    let guilty =
        run(schedule, rules).violations.into_iter().find(|violation| violation.kind == kind);
    let number = guilty.map_or(0, |violation| violation.trace);
    let mut alone = smallest.clone();
    alone.traces.retain(|trace| trace.number == number);
    if fails(&alone) {
        smallest = alone;
    }
    for index in (0..smallest.events.len()).rev() {
        let mut less = smallest.clone();
        less.events.remove(index);
        if fails(&less) {
            smallest = less;
        }
    }
    for index in (0..smallest.traces.len()).rev() {
        let mut less = smallest.clone();
        less.traces.remove(index);
        if smallest.traces.len() > 1 && fails(&less) {
            smallest = less;
        }
    }
    smallest
}
