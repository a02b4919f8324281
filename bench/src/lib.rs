//! Measures Ringtail beside the raw limit of its stack and the OpenTelemetry Collector; checks every span.

mod channel; //      client
pub mod check; //    what arrived, held against the truth
pub mod churn; //    real fleets while gateways come and go
pub mod collector; // the one to compare with
pub mod failure; //  the one error
pub mod generate; // the load
pub mod grpc; //     paths, prefixes, encodings, codes
pub mod local; //    one thread for everything
pub mod plan; //     which fragment goes where, and when
pub mod relay; //    the raw limit
pub mod run; //      side by side
mod server; //       server
mod shop; //         what the spans look like
pub mod sink; //     the end of the pipe
pub mod template; // requests encoded once, patched for each send
pub mod truth; //    index -> trace: ID, spans, error, duration, verdict
