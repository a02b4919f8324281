//! What became of every trace of a load, from when its spans were taken and when they arrived.

use serde::Serialize;

use super::arrivals::{Arrivals, Times};
use crate::truth::{SPANS, World};

/// Spans that an agent took less than this before a decision may have missed it.
pub(super) const IN_FLIGHT_MS: u32 = 5_000;
/// What is decided together arrives together: a turn of decisions, a batch, a retry of the exporter.
const TOGETHER_MS: u32 = 2_000;

/// Counts over all traces, and how late decisions were.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    /// Traces of which anything was taken.
    pub(super) traces: u64,
    /// Of those, traces with an ERROR: they must arrive.
    pub(super) wanted: u64,
    /// Wanted traces that are there with all of their spans.
    pub(super) whole: u64,
    /// Traces decided on a part.
    pub(super) split: u64,
    /// Wanted traces of which nothing arrived, and others of which anything did.
    pub(super) wrong: u64,
    /// Spans of wanted traces that were taken and never arrived.
    pub(super) lost_spans: u64,
    /// Spans that arrived again, in percent of those that arrived.
    pub(super) doubled_percent: f64,
    pub(super) doubled_spans: u64,
    /// Spans with another meaning than was sent, or of no trace of the load.
    pub(super) altered_spans: u64,
    /// Seconds from the first span of a trace to its arrival, less the decision wait.
    pub(super) delay_p50: f64,
    pub(super) delay_p99: f64,
    pub(super) delay_max: f64,
}

/// What is to be judged.
pub(super) struct Case<'a> {
    pub(super) world: World,
    /// By index: when an agent took each span.
    pub(super) taken: &'a [Times],
    pub(super) arrivals: &'a Arrivals,
    pub(super) decision_wait_ms: u32,
}

// === impl Case ===

impl Case<'_> {
    /// Whether every span that has to arrive is there.
    pub(super) fn is_complete(&self) -> bool {
        (0..).zip(self.taken).all(|(index, taken)| {
            !self.is_wanted(index, taken) || missing(taken, &self.arrivals.of(index)) == 0
        })
    }

    pub(super) fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let mut delays = Vec::new();
        for (index, taken) in (0..).zip(self.taken) {
            let arrived = self.arrivals.of(index);
            self.judge_trace(index, taken, &arrived, &mut verdict);
            if let (Some(first), Some(out)) = (earliest(taken), earliest(&arrived)) {
                delays.push(f64::from(out) - f64::from(first) - f64::from(self.decision_wait_ms));
            }
        }
        // What was never sent cannot arrive.
        verdict.wrong += self.arrivals.end().saturating_sub(self.taken.len() as u64);
        delays.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let place = (delays.len() as f64 * share) as usize;
            delays.get(place.min(delays.len().saturating_sub(1))).copied().unwrap_or(0.0) / 1e3
        };
        (verdict.delay_p50, verdict.delay_p99, verdict.delay_max) =
            (rank(0.5), rank(0.99), rank(1.0));
        verdict.doubled_spans = self.arrivals.repeated();
        verdict.doubled_percent =
            verdict.doubled_spans as f64 * 100.0 / self.arrivals.spans().max(1) as f64;
        let bytes = self.arrivals.check().report(&[], &crate::truth::Policies::ERRORS);
        verdict.altered_spans = bytes.altered_spans + bytes.foreign_spans;
        verdict
    }

    fn judge_trace(&self, index: u64, taken: &Times, arrived: &Times, verdict: &mut Verdict) {
        if earliest(taken).is_none() {
            return;
        }
        let any = earliest(arrived);
        verdict.traces += 1;
        if !self.is_wanted(index, taken) {
            verdict.wrong += u64::from(any.is_some());
            return;
        }
        let missing = missing(taken, arrived);
        verdict.wanted += 1;
        verdict.lost_spans += missing;
        verdict.whole += u64::from(missing == 0);
        match any {
            None => verdict.wrong += 1,
            Some(decided) => verdict.split += u64::from(is_split(taken, arrived, decided)),
        }
    }

    /// Its span with the ERROR was taken.
    fn is_wanted(&self, index: u64, taken: &Times) -> bool {
        self.world.trace(index).error_span.is_some_and(|span| taken[span].is_some())
    }
}

/// Some span was there in time and did not leave with the first ones.
fn is_split(taken: &Times, arrived: &Times, decided: u32) -> bool {
    taken.iter().zip(arrived).any(|(taken, arrived)| {
        let in_time = taken.is_some_and(|taken| taken + IN_FLIGHT_MS <= decided);
        in_time && arrived.is_none_or(|arrived| arrived > decided + TOGETHER_MS)
    })
}

fn missing(taken: &Times, arrived: &Times) -> u64 {
    (0..SPANS).filter(|span| taken[*span].is_some() && arrived[*span].is_none()).count() as u64
}

fn earliest(times: &Times) -> Option<u32> {
    times.iter().flatten().min().copied()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::churn::arrivals;
    use crate::template::SpanTemplate;

    const WAIT_MS: u32 = 10_000;
    /// Spans were taken a second apart.
    const TAKEN: Times = [
        Some(0),
        Some(1_000),
        Some(2_000),
        Some(3_000),
        Some(4_000),
        Some(5_000),
        Some(5_100),
        Some(5_200),
    ];

    fn wanted(world: World, wanted: bool) -> u64 {
        (0..).find(|index| world.trace(*index).error_span.is_some() == wanted).unwrap()
    }

    /// What is said of the first trace with an ERROR (or without) whose spans arrived so.
    fn judged(with_error: bool, arrived: Times) -> Verdict {
        let world = World::of_ends(3);
        let index = wanted(world, with_error);
        let arrivals = Arrivals::new(world, Instant::now()).unwrap();
        let mut verdict = Verdict::default();
        let case = Case { world, taken: &[], arrivals: &arrivals, decision_wait_ms: WAIT_MS };
        case.judge_trace(index, &TAKEN, &arrived, &mut verdict);
        verdict
    }

    fn counts(verdict: &Verdict) -> [u64; 4] {
        [verdict.whole, verdict.split, verdict.wrong, verdict.lost_spans]
    }

    #[test]
    fn a_whole_trace_is_whole() {
        assert_eq!(counts(&judged(true, [Some(10_200); SPANS])), [1, 0, 0, 0]);
        assert_eq!(counts(&judged(false, [None; SPANS])), [0; 4]);
    }

    #[test]
    fn a_wrong_verdict_is_noticed() {
        assert_eq!(counts(&judged(true, [None; SPANS])), [0, 0, 1, 8]);
        let mut torso = [None; SPANS];
        torso[4] = Some(11_000);
        assert_eq!(counts(&judged(false, torso)), [0, 0, 1, 0]);
    }

    #[test]
    fn a_span_that_leaves_later_than_the_others_splits_its_trace_if_it_was_there_in_time() {
        let mut arrived = [Some(10_200); SPANS];
        arrived[2] = Some(13_000);
        assert_eq!(counts(&judged(true, arrived)), [1, 1, 0, 0]);
        // Decided 5 s after it was taken, and with a batch of delay.
        arrived[2] = Some(12_100);
        assert_eq!(counts(&judged(true, arrived)), [1, 0, 0, 0]);
        // Taken less than 5 s before the decision.
        arrived = [Some(10_000); SPANS];
        arrived[7] = Some(14_000);
        assert_eq!(counts(&judged(true, arrived)), [1, 0, 0, 0]);
    }

    #[test]
    fn a_span_that_never_comes_is_lost_and_splits_its_trace() {
        let mut arrived = [Some(10_200); SPANS];
        arrived[0] = None;
        assert_eq!(counts(&judged(true, arrived)), [0, 1, 0, 1]);
    }

    #[test]
    fn repetitions_and_bytes_are_counted_as_they_arrive() {
        let world = World::of_ends(3);
        let index = wanted(world, true);
        let shared: arrivals::Shared = std::sync::Arc::new(std::sync::Mutex::new(
            Arrivals::new(world, Instant::now()).unwrap(),
        ));
        let template = SpanTemplate::new(2).unwrap();
        let mut body = Vec::new();
        template.render(&world, &world.trace(index), &mut body);
        let mut arrivals = shared.lock().unwrap();
        arrivals.note(&world.trace(index).id, &body);
        arrivals.note(&world.trace(index).id, &body);
        body.truncate(body.len() - 9);
        arrivals.note(&world.trace(index).id, &body);
        let taken = vec![TAKEN; index as usize + 1];
        let case = Case { world, taken: &taken, arrivals: &arrivals, decision_wait_ms: WAIT_MS };
        let verdict = case.judge();
        assert_eq!((verdict.doubled_spans, verdict.altered_spans), (2, 1));
        assert!(!case.is_complete());
    }
}
