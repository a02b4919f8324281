//! Sums over the last minutes, from counters that only grow and start again with their process.

use std::collections::{BTreeMap, VecDeque};

use super::answer::Answer;

/// The window of `status.sampling`: long enough for quiet pipelines, short enough to show a change.
pub const WINDOW_MILLIS: u64 = 5 * 60 * 1_000;
/// As the status says it.
pub const WINDOW: &str = "5m";
/// Samples of one pod: one a poll of 15 s over the window, the one before it, and room for early polls.
const SAMPLES_MAX: usize = 32;

/// Counters, or differences of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Traces kept.
    pub kept: u64,
    /// Traces sampled away.
    pub sampled_away: u64,
    /// Traces decided before their time.
    pub early: u64,
    /// Spans that came after the decision.
    pub late_spans: u64,
    /// Spans lost inside gateways.
    pub dropped_spans: u64,
    /// Kept spans that no backend took.
    pub unexported_spans: u64,
    /// Traces that went to a new owner.
    pub handed_over: u64,
    /// Spans that were sent again.
    pub replayed_spans: u64,
    /// Spans that agents could not keep until they were decided.
    pub unprotected_spans: u64,
    /// Milliseconds without decisions, because gateways did not agree.
    pub fenced_peers: u64,
    /// The same because agents had not sent again.
    pub fenced_agents: u64,
    /// The same because of a minority.
    pub fenced_minority: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at_millis: u64,
    inst: u64,
    sums: Sums,
}

/// The samples of one pipeline's gateways.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pods: BTreeMap<String, VecDeque<Sample>>,
}

// === impl Tally ===

impl Tally {
    /// Takes what a pod said.
    pub fn record(&mut self, pod: &str, at_millis: u64, answer: &Answer) {
        self.push(pod, Sample { at_millis, inst: answer.inst, sums: Sums::of(answer) });
    }

    /// Takes what gateways heard of an agent: spans that it could not keep. Agents are not asked themselves,
    /// and when one started is not known: it is counted from the first time that it was heard of.
    pub fn record_agent(&mut self, agent: &str, at_millis: u64, unprotected_spans: u64) {
        let sums = Sums { unprotected_spans, ..Sums::default() };
        // No pod of a gateway has a slash in its name.
        self.push(&format!("agent/{agent}"), Sample { at_millis, inst: 0, sums });
    }

    fn push(&mut self, pod: &str, sample: Sample) {
        let samples = self.pods.entry(pod.to_owned()).or_default();
        samples.push_back(sample);
        if samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
        self.advance(sample.at_millis);
    }

    /// Forgets what is older than the window, and with it pods that are gone.
    pub fn advance(&mut self, now_millis: u64) {
        let begin = now_millis.saturating_sub(WINDOW_MILLIS);
        for samples in self.pods.values_mut() {
            // The oldest that is kept is the last one from before the window: what is counted is the
            // difference to it.
            while samples.get(1).is_some_and(|second| second.at_millis <= begin) {
                samples.pop_front();
            }
        }
        self.pods.retain(|_, samples| samples.back().is_some_and(|last| last.at_millis > begin));
    }

    /// What gateways did within the window, as far as they said so. Those that are gone meanwhile did it too.
    pub fn sums(&self) -> Sums {
        self.pods.values().map(within).fold(Sums::default(), Sums::plus)
    }
}

// A process that started within the window began at zero, however late it was asked for the first time. One
// that was there before is counted from the first time that it was asked.
fn within(samples: &VecDeque<Sample>) -> Sums {
    let Some(last) = samples.back() else {
        return Sums::default();
    };
    let of_last_start = samples.iter().find(|sample| sample.inst == last.inst);
    let began_within = last.inst >= last.at_millis.saturating_sub(WINDOW_MILLIS);
    let before = match of_last_start {
        Some(first) if !began_within => first.sums,
        _ => Sums::default(),
    };
    last.sums.minus(before).plus(earlier_starts(samples, last.inst))
}

// What the process before the last restart did within the window, as far as it was seen.
fn earlier_starts(samples: &VecDeque<Sample>, last_inst: u64) -> Sums {
    let mut sums = Sums::default();
    for (one, next) in samples.iter().zip(samples.iter().skip(1)) {
        if one.inst == next.inst && next.inst != last_inst {
            sums = sums.plus(next.sums.minus(one.sums));
        }
    }
    sums
}

// === impl Sums ===

impl Sums {
    /// The counters of an answer.
    pub fn of(answer: &Answer) -> Self {
        Self {
            kept: answer.decisions.kept,
            sampled_away: answer.decisions.dropped,
            early: answer.decisions.early,
            late_spans: answer.decisions.late_spans,
            dropped_spans: answer.dropped_spans(),
            unexported_spans: answer.unexported_spans(),
            handed_over: answer.churn.handed_over.traces,
            replayed_spans: answer.ledger.received.replays,
            unprotected_spans: 0,
            fenced_peers: answer.fenced_millis("peers"),
            fenced_agents: answer.fenced_millis("agents"),
            fenced_minority: answer.fenced_millis("minority"),
        }
    }

    fn zip(self, other: Self, join: fn(u64, u64) -> u64) -> Self {
        Self {
            kept: join(self.kept, other.kept),
            sampled_away: join(self.sampled_away, other.sampled_away),
            early: join(self.early, other.early),
            late_spans: join(self.late_spans, other.late_spans),
            dropped_spans: join(self.dropped_spans, other.dropped_spans),
            unexported_spans: join(self.unexported_spans, other.unexported_spans),
            handed_over: join(self.handed_over, other.handed_over),
            replayed_spans: join(self.replayed_spans, other.replayed_spans),
            unprotected_spans: join(self.unprotected_spans, other.unprotected_spans),
            fenced_peers: join(self.fenced_peers, other.fenced_peers),
            fenced_agents: join(self.fenced_agents, other.fenced_agents),
            fenced_minority: join(self.fenced_minority, other.fenced_minority),
        }
    }

    fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    fn minus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// Traces decided.
    pub fn decided(self) -> u64 {
        self.kept.saturating_add(self.sampled_away)
    }

    /// Of a thousand decided traces, those kept.
    pub fn kept_permille(self) -> Option<u64> {
        (self.kept * 1_000 + self.decided() / 2).checked_div(self.decided())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::answer::Decisions;

    /// Seconds since the start of the test, the second of the process's start, traces kept since then.
    type Sample = (u64, u64, u64);

    fn kept_after(samples: &[Sample]) -> u64 {
        let mut tally = Tally::default();
        for (seconds, inst_seconds, kept) in samples {
            let decisions = Decisions { kept: *kept, ..Decisions::default() };
            let answer = Answer { inst: inst_seconds * 1_000, decisions, ..Answer::default() };
            tally.record("gw-0", seconds * 1_000, &answer);
        }
        tally.sums().kept
    }

    #[test]
    fn forgets_pods_that_are_gone_when_the_window_is_over() {
        let mut tally = Tally::default();
        let decisions = Decisions { kept: 5, ..Decisions::default() };
        tally.record("gw-0", 1_000, &Answer { inst: 1_000, decisions, ..Answer::default() });
        tally.advance(1_000 + WINDOW_MILLIS - 1);
        assert_eq!(tally.sums().kept, 5);
        tally.advance(1_000 + WINDOW_MILLIS);
        assert_eq!((tally.sums().kept, tally.pods.len()), (0, 0));
    }

    #[test]
    fn agents_are_counted_by_what_gateways_heard_of_them() {
        let mut tally = Tally::default();
        for (seconds, spans) in [(1, 70), (16, 90), (31, 120), (46, 5)] {
            tally.record_agent("n1", (10_000 + seconds) * 1_000, spans);
            assert_eq!(tally.sums().kept, 0);
        }
        // It started anew: what is less than before is nothing.
        assert_eq!(tally.sums().unprotected_spans, 0);
        let mut tally = Tally::default();
        for (seconds, spans) in [(1, 70), (16, 90), (31, 120)] {
            tally.record_agent("n1", (10_000 + seconds) * 1_000, spans);
            tally.record_agent("n2", (10_000 + seconds) * 1_000, 3);
        }
        assert_eq!(tally.sums().unprotected_spans, 50);
    }

    #[test]
    fn counts_what_happened_within_the_window() {
        let cases: [(&str, &[Sample], u64); 6] = [
            ("started long ago, asked for the first time", &[(10_000, 1, 500)], 0),
            ("started within the window", &[(10_000, 9_900, 500)], 500),
            ("grows", &[(10_000, 1, 500), (10_015, 1, 520)], 20),
            (
                "old samples leave",
                &[(10_000, 1, 1), (10_200, 1, 10), (10_400, 1, 30), (10_600, 1, 70)],
                60,
            ),
            ("restarted", &[(10_000, 1, 500), (10_015, 1, 520), (10_030, 10_020, 3)], 23),
            ("asked once, restarted", &[(10_000, 1, 500), (10_030, 10_020, 3)], 3),
        ];
        for (name, samples, kept) in cases {
            assert_eq!(kept_after(samples), kept, "{name}");
        }
    }
}
