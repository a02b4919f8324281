//! A gateway that holds a gibibyte of undecided spans is told to stop: how long until it has handed over?

use std::time::{Duration, Instant};

use super::contender::{Programs, Side};
use super::fleet::Fleet;
use super::load::Load;
use super::scenario::Scenario;
use super::trial::{Trial, bytes_per_span};
use crate::failure::{Failure, Result};

/// What the gateway holds: resident bytes of its buffer.
const HELD: u64 = 1 << 30;
/// As fast as a fleet on two processors takes them.
const RATE: f64 = 150_000.0;
/// Nothing is decided meanwhile.
const DECISION_WAIT: Duration = Duration::from_secs(600);
/// Room for the gateway's own and half of the leaver's.
const MEMORY_LIMIT: &str = "4Gi";
/// A slow machine gets so long to fill the buffer.
const FILL_PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// Plays it.
pub(super) fn run(round: usize, programs: &Programs) -> Result<Trial> {
    let scenario = Scenario::Gigabyte;
    let programs =
        Programs { decision_wait: DECISION_WAIT, memory_limit: MEMORY_LIMIT, ..programs.clone() };
    let name = format!("{}-{round}", scenario.name());
    let load = Load { rate: RATE, spread: Duration::from_secs(1), seed: round as u64 + 1 };
    let mut fleet = Fleet::start(&name, programs, scenario.crew(Side::Ringtail), load)?;
    let started = Instant::now();
    while fleet.held("gw-1").1 < HELD {
        if started.elapsed() > FILL_PATIENCE {
            return Err(Failure::new("the buffer did not fill in time"));
        }
        std::thread::sleep(POLL);
    }
    let load = fleet.end_load()?;
    fleet.await_held(load["taken"]["spans"].as_u64().unwrap_or(0))?;
    let (spans, bytes) = fleet.held("gw-1");
    fleet.tell_to_stop(&["gw-1".to_owned()])?;
    fleet.await_exits()?;
    fleet.rest()?;
    let mut trial = Trial {
        scenario: scenario.name(),
        contender: Side::Ringtail.name(),
        round,
        rest_seconds: fleet.rests.clone(),
        required_spans: spans,
        bytes_per_span: bytes_per_span(&load),
        held_bytes: Some(bytes),
        ..Trial::default()
    };
    let taken = load["taken"]["spans"].as_u64().unwrap_or(0);
    let held = ["gw-0", "gw-2"].map(|gateway| fleet.held(gateway).0).iter().sum::<u64>();
    trial.verdict.traces = taken / crate::truth::SPANS as u64;
    trial.verdict.lost_spans = taken.abs_diff(held);
    trial.note_moved(&fleet);
    trial.note_ledgers(&fleet.ended);
    trial.load = load;
    // Nothing has been decided, and nothing is to be: the fleet is dropped where it stands.
    Ok(trial)
}
