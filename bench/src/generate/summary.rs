//! What became of a load, counted as it is sent.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde_json::{Value, json};

use crate::channel::Answer;

/// A paced request that leaves later than this was not sent at the rate asked for.
const LATE: Duration = Duration::from_millis(50);

/// Every request of a load is in exactly one of taken and failed.
#[derive(Debug, Default)]
pub(super) struct Summary {
    taken: Count,
    failed: Count,
    wire_bytes: u64,
    payload_bytes: u64,
    resent_requests: u64,
    rejected_spans: u64,
    late_requests: u64,
    /// Refusals by status code, those that were sent again included.
    refusals: BTreeMap<u32, u64>,
    last_refusal: String,
}

/// How long a message is as sent, and its payload before compression.
pub(super) struct Bytes {
    pub(super) wire: usize,
    pub(super) payload: usize,
}

#[derive(Debug, Default)]
struct Count {
    requests: u64,
    spans: u64,
}

// === impl Summary ===

impl Summary {
    pub(super) fn note_taken(&mut self, spans: u64, bytes: &Bytes, answer: &Answer) {
        self.taken.note(spans);
        self.wire_bytes += bytes.wire as u64;
        self.payload_bytes += bytes.payload as u64;
        self.rejected_spans += answer.rejected_spans;
    }

    pub(super) fn note_refused(&mut self, spans: u64, answer: &Answer, again: bool) {
        *self.refusals.entry(answer.code).or_default() += 1;
        self.last_refusal.clone_from(&answer.message);
        if again {
            self.resent_requests += 1;
        } else {
            self.failed.note(spans);
        }
    }

    pub(super) fn note_lateness(&mut self, late: Duration) {
        self.late_requests += u64::from(late > LATE);
    }

    pub(super) fn report(&self, traces: Range<u64>, elapsed: Duration) -> Value {
        let seconds = elapsed.as_secs_f64();
        json!({
            "traces": {"first": traces.start, "end": traces.end},
            "taken": self.taken.json(),
            "failed": self.failed.json(),
            "wireBytes": self.wire_bytes,
            "payloadBytes": self.payload_bytes,
            "resentRequests": self.resent_requests,
            "rejectedSpans": self.rejected_spans,
            "lateRequests": self.late_requests,
            "refusals": self.refusals.iter().map(|(k, v)| (k.to_string(), *v)).collect::<BTreeMap<_, _>>(),
            "lastRefusal": self.last_refusal,
            "seconds": seconds,
            "spansPerSecond": self.taken.spans as f64 / seconds,
        })
    }
}

impl Count {
    fn note(&mut self, spans: u64) {
        self.requests += 1;
        self.spans += spans;
    }

    fn json(&self) -> Value {
        json!({"requests": self.requests, "spans": self.spans})
    }
}
