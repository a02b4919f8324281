//! What the state machines ask their driver to do. Bytes are the driver's: an action names the buffer's
//! trace, the part of a delivery, or the parcel that they lie in.

use super::facts::Name;
use super::message::{
    Agreement, Decisions, Delivery, Hello, HelloAnswer, Poll, PollAnswer, Receipt, Req, Verdict,
};
use crate::Millis;
use crate::key::TraceKey;

/// Names a delivery that came in and was not answered yet; the driver's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inbound(pub u64);

/// A question to another process.
#[derive(Debug, Clone)]
pub enum Message {
    /// See [`Hello`].
    Hello(Box<Hello>),
    /// The driver adds the bytes of the parcel with the number of this request.
    Deliver(Delivery),
    /// See [`Decisions`].
    Decisions(Decisions),
    /// See [`Poll`].
    Poll(Box<Poll>),
}

/// An answer to a question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Message::Hello`].
    Hello(HelloAnswer),
    /// To [`Message::Deliver`].
    Deliver(Receipt),
    /// To [`Message::Decisions`].
    Decisions(Agreement),
    /// To [`Message::Poll`].
    Poll(PollAnswer),
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens at the address.
    Refused,
    /// The deadline passed, or the connection broke.
    TimedOut,
}

/// What a gateway's driver is to do, in this order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send a question; by `deadline` its answer or a failure comes back.
    Send {
        /// To whom.
        to: Name,
        /// The answer names it.
        req: Req,
        /// The question.
        message: Message,
        /// When to give up.
        deadline: Millis,
    },
    /// Answer a delivery.
    Reply {
        /// Which.
        inbound: Inbound,
        /// The answer.
        receipt: Receipt,
    },
    /// Put a part of a delivery into the buffer. If the trace is new there, it is due when `first` plus the
    /// decision wait has passed; else at the earlier of the two.
    Store {
        /// The delivery.
        inbound: Inbound,
        /// Which of its parts.
        part: usize,
        /// The trace.
        key: TraceKey,
        /// When its first span was taken in by anybody.
        first: Millis,
    },
    /// A part of a delivery follows a decision: export it or let it go.
    Follow {
        /// The delivery.
        inbound: Inbound,
        /// Which of its parts.
        part: usize,
        /// The decision.
        verdict: Verdict,
    },
    /// A part of a delivery was exported with its trace before.
    Repeated {
        /// The delivery.
        inbound: Inbound,
        /// Which of its parts.
        part: usize,
    },
    /// Move parts of a delivery into a parcel.
    Pass {
        /// The delivery.
        inbound: Inbound,
        /// Which of its parts.
        parts: Vec<usize>,
        /// The parcel.
        parcel: Req,
    },
    /// Move traces from the buffer into a parcel.
    Take {
        /// The traces.
        keys: Vec<TraceKey>,
        /// The parcel.
        parcel: Req,
    },
    /// Move a trace from one parcel to another.
    Repack {
        /// The trace.
        key: TraceKey,
        /// Where it is.
        from: Req,
        /// Where it goes.
        to: Req,
    },
    /// Move a trace from a parcel into the buffer, as [`Action::Store`] does.
    Restore {
        /// The parcel.
        parcel: Req,
        /// The trace.
        key: TraceKey,
        /// When its first span was taken in by anybody.
        first: Millis,
    },
    /// What is left of a parcel is with others: forget it.
    Forget {
        /// The parcel.
        parcel: Req,
    },
    /// A trace of the buffer is decided: export it or let it go, and remember.
    Settle {
        /// The trace.
        key: TraceKey,
        /// How.
        verdict: Verdict,
        /// Whether this gateway decided or learned it.
        by: By,
    },
    /// The decision on a trace did not come about: it stays in the buffer and is due again at `at`.
    PutBack {
        /// The trace.
        key: TraceKey,
        /// When.
        at: Millis,
    },
    /// Nothing is left to do: end.
    Exit,
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// This gateway.
    Us,
    /// Another one, which told us.
    Other,
}

/// What an agent's driver is to do.
#[derive(Debug, Clone)]
pub enum AgentAction {
    /// Send traces of retained batches to a gateway.
    Deliver {
        /// To whom.
        to: Name,
        /// The answer names it.
        req: Req,
        /// Which traces of which batch, in the order of the parts.
        batch: BatchId,
        /// What goes before the bytes.
        delivery: Delivery,
        /// When to give up.
        deadline: Millis,
    },
    /// Ask a gateway.
    Poll {
        /// Whom.
        to: Name,
        /// The answer names it.
        req: Req,
        /// The question.
        poll: Poll,
        /// When to give up.
        deadline: Millis,
    },
    /// The batch is stored for the first time: its sender may be answered, if that waited.
    Stored(BatchId),
    /// Traces of a batch that are let go early, for their bytes: if their holder dies, they are lost.
    Unprotect {
        /// The batch.
        batch: BatchId,
        /// The traces.
        keys: Vec<TraceKey>,
    },
    /// The batch is needed no more.
    Release(BatchId),
}

/// Names a batch that the agent's driver keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);
