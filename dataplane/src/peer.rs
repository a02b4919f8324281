//! The hop between Ringtail processes: messages of `ringtail.peer.v1` and the two ways of framing spans for
//! it.

use bytes::Bytes;
use prost::Message;
use ringtail_engine::ring::RING_VERSION;
use ringtail_engine::wire::put_varint;

pub use generated::{
    Asked, DecideRequest, DecideResponse, Decision, DeliverRequest, DeliverResponse,
    FreshDecisions, Heard, HelloRequest, HelloResponse, Instance, Member, Origin, Outcome, Part,
    PollRequest, PollResponse, Role, State, Status, Verdict,
};

use crate::stats;

#[expect(
    missing_docs,
    reason = "generated from peer.proto, which documents every message and field"
)]
#[rustfmt::skip]
mod generated;
pub mod messages;

/// Tag of `DeliverRequest.spans`: field 15, length-delimited.
pub const SPANS_TAG: u8 = 15 << 3 | 2;

/// How a gateway wants its spans, found out by asking it `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `ringtail.peer.v1`: `Deliver`, answered with the holder.
    Ringtail,
    /// Plain OTLP `Export`: a Collector, or anything else that takes OTLP/gRPC.
    Otlp,
}

/// Who and where this process is in the life of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What the process calls itself.
    pub id: String,
    /// Grows with every start of the same id (see [`crate::membership::instance`]).
    pub inst: u64,
    /// Which tier the process is.
    pub role: Role,
}

impl Identity {
    /// This process as a member in `state`.
    pub fn member(&self, state: State) -> Member {
        Member { id: self.id.clone(), inst: self.inst, state: state.into(), role: self.role.into() }
    }

    /// The `Hello` of a process whose view has `digest`.
    pub fn hello(&self, state: State, digest: u64) -> Vec<u8> {
        HelloRequest {
            from: Some(self.member(state)),
            ring_versions: vec![RING_VERSION],
            digest,
            ..HelloRequest::default()
        }
        .encode_to_vec()
    }
}

impl From<stats::Role> for Role {
    fn from(role: stats::Role) -> Self {
        match role {
            stats::Role::Agent => Self::Agent,
            stats::Role::Gateway => Self::Gateway,
        }
    }
}

/// Appends what stands before `spans_len` bytes of spans for a gateway that speaks `dialect`. The rest of the
/// message may stand before or behind, since protobuf lets a message be assembled by appending fields.
pub fn write_spans_tag(dialect: Dialect, spans_len: usize, out: &mut Vec<u8>) {
    if dialect == Dialect::Ringtail {
        out.push(SPANS_TAG);
        put_varint(out, spans_len as u64);
    }
}

/// The OTLP bytes inside a message; `None` when it is not such a message.
pub fn spans_of(dialect: Dialect, message: Bytes) -> Option<Bytes> {
    match dialect {
        Dialect::Otlp => Some(message),
        Dialect::Ringtail => DeliverRequest::decode(message).ok().map(|request| request.spans),
    }
}
