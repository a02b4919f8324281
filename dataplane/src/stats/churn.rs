//! What keeping traces whole took, as `/stats` tells it.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use ringtail_engine::ownership::facts::State;
use ringtail_engine::ownership::{Conduct, Fence};
use serde::{Deserialize, Serialize};

/// What keeping traces whole while gateways come and go took since the start. What the other tier does is
/// zero here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChurnStats {
    /// What a gateway is up to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<Life>,
    /// Why a gateway that serves decides nothing now: `peers`, `agents` or `minority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<String>,
    /// Fences so far, by cause.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fences: BTreeMap<String, FenceStats>,
    /// Traces of requests passed on to their owner.
    pub forwarded_traces: u64,
    /// What went to new owners.
    pub handed_over: HandedOver,
    /// Decisions that were proposed and taken back, because the trace changed hands.
    pub taken_back: u64,
    /// Decisions that no witness answered.
    pub unanswered: u64,
    /// Decisions that a witness refused, because it sees another owner.
    pub turned_down: u64,
    /// Decisions made without a witness, though there are other gateways.
    pub decided_alone: u64,
    /// Decisions made though spans may have been missing: others did not answer in time.
    pub decided_unsure: u64,
    /// Decisions that could not be remembered for as long as they may be asked for.
    pub forgotten: u64,
    /// Decisions of others that differ from one that stands here.
    pub conflicts: u64,
    /// Gateways that were lost with what they held.
    pub losses: u64,
    /// Times that a gateway came back as a new instance, because others had taken it for dead.
    pub rejoined: u64,
    /// Traces that an agent sent again because of a loss.
    pub replayed_traces: u64,
    /// Spans that a gateway was sent again and had exported before.
    pub repeated_spans: u64,
    /// Spans that an agent let go before they must have been decided.
    pub unprotected_spans: u64,
}

/// What a gateway is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Life {
    /// Here, but it owns nothing yet.
    Joining,
    /// Owns its part of the traces.
    Serving,
    /// Hands over what it has.
    Draining,
    /// On its way out, with nothing left to do.
    Leaving,
}

/// What went to new owners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HandedOver {
    /// Traces that the new owner has said to hold.
    pub traces: u64,
    /// Spans sent, those that were sent twice included.
    pub spans: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Milliseconds during which something of others was here.
    pub millis: u64,
}

/// What the fences of one cause took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FenceStats {
    /// How often nothing was decided for this cause.
    pub times: u64,
    /// For how many milliseconds together.
    pub millis: u64,
    /// Others that decisions went on without, after 10 s.
    pub timed_out: u64,
}

// === impl ChurnStats ===

impl ChurnStats {
    /// Of a gateway. Spans are counted in the process, not by the state machines.
    pub fn of_gateway(life: Life, conduct: &Conduct, handed_over: u64, repeated: u64) -> Self {
        let stats = &conduct.stats;
        let fences = Fence::ALL.iter().zip(&conduct.fences).map(|(cause, fences)| {
            let fences = FenceStats {
                times: fences.times,
                millis: fences.millis,
                timed_out: fences.timed_out,
            };
            (cause.label().to_owned(), fences)
        });
        Self {
            life: Some(life),
            fence: conduct.fence.map(|cause| cause.label().to_owned()),
            fences: fences.collect(),
            forwarded_traces: stats.forwarded,
            handed_over: HandedOver {
                traces: stats.handed_over,
                spans: handed_over,
                bytes: stats.parcel_bytes,
                millis: conduct.moving_millis,
            },
            taken_back: stats.taken_back,
            unanswered: stats.unanswered,
            turned_down: stats.turned_down,
            decided_alone: stats.decided_alone,
            decided_unsure: stats.decided_unsure,
            forgotten: stats.forgotten,
            conflicts: stats.conflicts,
            losses: stats.losses,
            rejoined: stats.rejoined,
            repeated_spans: repeated,
            ..Self::default()
        }
    }
}

/// The sum over a fleet; what only one process can say of itself is left out.
impl AddAssign<&Self> for ChurnStats {
    fn add_assign(&mut self, other: &Self) {
        for (cause, more) in &other.fences {
            let sum = self.fences.entry(cause.clone()).or_default();
            sum.times += more.times;
            sum.millis += more.millis;
            sum.timed_out += more.timed_out;
        }
        let HandedOver { traces, spans, bytes, millis } = other.handed_over;
        self.handed_over.traces += traces;
        self.handed_over.spans += spans;
        self.handed_over.bytes += bytes;
        self.handed_over.millis += millis;
        self.forwarded_traces += other.forwarded_traces;
        self.taken_back += other.taken_back;
        self.unanswered += other.unanswered;
        self.turned_down += other.turned_down;
        self.decided_alone += other.decided_alone;
        self.decided_unsure += other.decided_unsure;
        self.forgotten += other.forgotten;
        self.conflicts += other.conflicts;
        self.losses += other.losses;
        self.rejoined += other.rejoined;
        self.replayed_traces += other.replayed_traces;
        self.repeated_spans += other.repeated_spans;
        self.unprotected_spans += other.unprotected_spans;
    }
}

// === impl Life ===

impl Life {
    /// As a table shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
        }
    }
}

impl From<State> for Life {
    fn from(state: State) -> Self {
        match state {
            State::Joining => Self::Joining,
            State::Serving => Self::Serving,
            State::Draining => Self::Draining,
            State::Gone | State::Left => Self::Leaving,
        }
    }
}
