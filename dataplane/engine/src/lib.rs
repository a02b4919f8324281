//! The pure core of Ringtail: bytes and verdicts in, bytes and verdicts out.
//!
//! Nothing here opens a socket, spawns a task or reads a clock; `now` is an argument everywhere. A newcomer
//! reads it in the order of the list below, which is also the order in which a span travels.

pub mod batch; //    spans gathered for one destination, equal resources merged, encoded as one request
pub mod buffer; //   undecided spans of one shard: segments, index, duplicates, deadlines
pub mod facts; //    what a program needs to know of a span and of a trace
pub mod key; //      trace ID -> keyed 64-bit key
pub mod ledger;
pub mod memory; //   remembered decisions
pub mod policy; //   policies as data, compiled to a program over facts
pub mod ring; //     members, views, owners
pub mod scan; //     check a request once, then walk its groups and spans without decoding them
pub mod schema; //   which fields of OTLP trace messages hold messages, for the validating walk
pub mod shard; //    one shard of a gateway: insert, decide, hand out
pub mod wire; //     varints, tags and fields of the protobuf wire format //   where every span went

/// Milliseconds of the caller's clock, which must not run backwards. The engine has no clock of its own.
pub type Millis = u64;
