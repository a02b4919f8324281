//! One scenario played once by one side, and what came of it.

use std::path::Path;
use std::time::Duration;

use ringtail_engine::key::KeySeed;
use serde::Serialize;
use serde_json::Value;

use super::contender::{Programs, Side};
use super::fleet::{Ended, Fleet};
use super::load::Load;
use super::probe::Moved;
use super::scenario::Scenario;
use super::verdict::Verdict;
use crate::failure::{Doing, Result};

/// The seed of every ring here, as a seed file has it.
const RING_SEED: &str = "c4a11e5b00c4a11e5b00c4a11e5b0042";
/// Buffers are full when the first traces have been decided; a little later they surely are.
const FULL_AFTER: Duration = Duration::from_secs(2);
/// What an agent may keep by default: a quarter of 128 MiB, less an eighth for decisions that it remembers.
const RETENTION_BYTES: f64 = (28u64 << 20) as f64;

/// A gateway that holds a gibibyte ends within this.
const HAND_OVER_WITHIN_S: f64 = 10.0;

/// So many times the spans that had to move may be moved. After a pause owners change twice, and what was
/// sent to one that stood still is sent again.
const MOVED_MAX: f64 = 2.0;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trial {
    pub(super) scenario: &'static str,
    pub(super) contender: &'static str,
    pub(super) round: usize,
    pub(super) verdict: Verdict,
    /// From each step that was waited for until all agreed and nothing moved; none: they never did.
    pub(super) rest_seconds: Vec<Option<f64>>,
    /// Spans of undecided traces that were handed over, spans that agents sent again, and undecided spans
    /// whose owner changed: so many had to go one way or the other.
    pub(super) handed_over_spans: u64,
    pub(super) replayed_spans: u64,
    pub(super) required_spans: u64,
    /// Of a span as it was sent.
    pub(super) bytes_per_span: f64,
    /// The slowest of those that were told to stop.
    pub(super) exit_seconds: f64,
    /// Processes whose ledger balances, of those that print one, and what is wrong with the others.
    pub(super) balanced: usize,
    pub(super) ledgers: usize,
    pub(super) unbalanced: Vec<String>,
    /// Spans that the exporters of the gateways say they sent, if nobody was killed; and that arrived.
    pub(super) exported_spans: Option<u64>,
    pub(super) arrived_spans: u64,
    /// What an agent keeps a span, and how many a second of them all agents' defaults hold.
    pub(super) retained_bytes_per_span: Option<f64>,
    pub(super) retention_fits_rate: Option<f64>,
    pub(super) unprotected_traces: u64,
    /// What the gateway held that was told to stop, where that is the point.
    pub(super) held_bytes: Option<u64>,
    pub(super) load: Value,
    /// Everybody, with its ledger.
    pub(super) ended: Vec<Ended>,
}

/// Plays a scenario.
pub(super) fn run(
    scenario: Scenario,
    side: Side,
    round: usize,
    programs: &Programs,
    load: Load,
) -> Result<Trial> {
    let name = format!("{}-{}-{round}", scenario.name(), side.name());
    let programs = Programs { alone: scenario == Scenario::CalmAlone, ..programs.clone() };
    let mut fleet = Fleet::start(&name, programs.clone(), scenario.crew(side), load)?;
    fleet.carry_on(programs.decision_wait + FULL_AFTER);
    scenario.play(&mut fleet)?;
    let load = fleet.finish()?;
    let mut trial = Trial {
        scenario: scenario.name(),
        contender: side.name(),
        round,
        verdict: fleet.verdict(),
        rest_seconds: fleet.rests.clone(),
        bytes_per_span: bytes_per_span(&load),
        load,
        ..Trial::default()
    };
    if side == Side::Ringtail {
        trial.note_moved(&fleet);
        trial.required_spans = fleet.required(&ring_seed()?);
        trial.note_ledgers(&fleet.ended);
        trial.note_retention(&fleet, &programs);
    }
    trial.note_arrivals(&fleet);
    Ok(trial)
}

/// Writes the seed file that all processes use.
pub(super) fn write_seed(path: &Path) -> Result<()> {
    std::fs::write(path, RING_SEED).doing(|| format!("writing {}", path.display()))
}

fn ring_seed() -> Result<KeySeed> {
    KeySeed::from_hex(RING_SEED).doing(|| "the seed of the ring".into())
}

/// Of a span as it was sent.
pub(super) fn bytes_per_span(load: &Value) -> f64 {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    number(&load["wireBytes"]) / number(&load["taken"]["spans"]).max(1.0)
}

// === impl Trial ===

impl Trial {
    fn note_arrivals(&mut self, fleet: &Fleet) {
        let arrivals = &fleet.board.arrivals;
        let arrivals = arrivals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.arrived_spans = arrivals.spans();
    }

    pub(super) fn note_moved(&mut self, fleet: &Fleet) {
        let Moved { handed_over, replayed } = fleet.moved();
        (self.handed_over_spans, self.replayed_spans) = (handed_over, replayed);
    }

    pub(super) fn note_ledgers(&mut self, ended: &[Ended]) {
        let told = ended.iter().filter_map(|ended| Some((ended, ended.ledger.as_ref()?)));
        let mut exported = 0;
        for (ended, ledger) in told {
            self.ledgers += 1;
            self.exit_seconds = self.exit_seconds.max(ended.seconds);
            let exporters = ledger["exporters"].as_object();
            let sent =
                exporters.into_iter().flatten().filter_map(|(_, line)| line["sent"].as_u64());
            exported += sent.sum::<u64>();
            let dropped = ledger["dropped"].as_object().is_some_and(|dropped| !dropped.is_empty());
            if ledger["balanced"] == true && ledger["held"] == 0 && !dropped {
                self.balanced += 1;
            } else {
                self.unbalanced.push(ended.name.clone());
            }
        }
        let killed = ended.iter().any(|ended| ended.ledger.is_none());
        self.ended = ended.to_vec();
        self.exported_spans = (!killed).then_some(exported);
    }

    fn note_retention(&mut self, fleet: &Fleet, programs: &Programs) {
        let each = fleet.retained.iter().filter(|retained| retained.spans > 0);
        let bytes = each.map(|retained| retained.bytes as f64 / retained.spans as f64);
        self.retained_bytes_per_span = bytes.max_by(f64::total_cmp);
        self.retention_fits_rate = self
            .retained_bytes_per_span
            .map(|bytes| RETENTION_BYTES / bytes / programs.retained_for().as_secs_f64());
        self.unprotected_traces = fleet.unprotected;
    }

    /// What is wrong with it, by the promises that were made for its scenario.
    pub(super) fn faults(&self) -> Vec<String> {
        let verdict = &self.verdict;
        let mut faults: Vec<String> = [
            ("split", verdict.split),
            ("wrong", verdict.wrong),
            ("lost spans", verdict.lost_spans),
            ("altered spans", verdict.altered_spans),
        ]
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
        let doubled_max = match self.scenario {
            "sigstop-10" => 2.7,
            "sigstop-60" => 14.0,
            _ => 1.0,
        };
        if verdict.doubled_percent > doubled_max {
            faults.push(format!("{:.2} % doubled", verdict.doubled_percent));
        }
        if self.moved_factor() > MOVED_MAX && !self.scenario.starts_with("sigstop") {
            faults.push(format!("{:.2} times the spans moved that had to", self.moved_factor()));
        }
        if self.balanced < self.ledgers {
            faults.push("a ledger does not balance".into());
        }
        // What is sent again after a time-out arrives twice and is counted once.
        let agrees = |exported: u64| {
            (exported..=exported + verdict.doubled_spans).contains(&self.arrived_spans)
        };
        let whole = self.held_bytes.is_none();
        if self.exported_spans.is_some_and(|exported| whole && !agrees(exported)) {
            faults.push("exporters count otherwise than the backend".into());
        }
        if self.held_bytes.is_some() && self.exit_seconds > HAND_OVER_WITHIN_S {
            faults.push(format!("{:.1} s to hand over", self.exit_seconds));
        }
        if self.rest_seconds.iter().any(Option::is_none) {
            faults.push("never came to rest".into());
        }
        faults
    }
}
