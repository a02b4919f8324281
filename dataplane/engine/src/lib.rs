//! The pure core of Ringtail: bytes and verdicts in, bytes and verdicts out.
//!
//! Nothing here opens a socket, spawns a task or reads a clock; `now` is an argument everywhere. A newcomer
//! reads it in the order of the list below, which is also the order in which a span travels.
//!
//! | module | what it holds |
//! |---|---|
//! | [`batch`] | spans gathered for one destination, equal resources merged, encoded as one request |
//! | [`buffer`] | undecided spans of one shard: segments, index, duplicates, deadlines |
//! | [`facts`] | what a program needs to know of a span and of a trace |
//! | [`hold`] | log records that wait for the verdict on their trace |
//! | [`json`] | OTLP/JSON into the wire format, without a tree |
//! | [`key`] | trace ID -> keyed 64-bit key |
//! | [`memory`] | remembered decisions |
//! | [`ownership`] | whole traces through churn: who holds, who decides, who remembers |
//! | [`policy`] | policies as data, compiled to a program over facts |
//! | [`rewrite`] | spans rewritten as bytes: attributes, redaction, what sampling did |
//! | [`ring`] | members, views, owners |
//! | [`scan`] | check a request once, then walk its groups and spans without decoding them |
//! | [`schema`] | which fields of OTLP trace messages hold messages, for the validating walk |
//! | [`service`] | the name of the service that a resource is of |
//! | [`shard`] | one shard of a gateway: insert, decide, hand out |
//! | [`span_metrics`] | requests, errors and durations of all spans, before any sampling |
//! | [`wire`] | varints, tags and fields of the protobuf wire format |

pub mod batch;
pub mod buffer;
pub mod facts;
pub mod hold;
pub mod json;
pub mod key;
pub mod memory;
pub mod ownership;
pub mod policy;
pub mod rewrite;
pub mod ring;
pub mod scan;
pub mod schema;
pub mod service;
pub mod shard;
pub mod span_metrics;
pub mod wire;

/// Milliseconds of the caller's clock, which must not run backwards. The engine has no clock of its own.
pub type Millis = u64;
