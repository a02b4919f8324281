//! The Ringtail data plane: agent, gateway, local fleet and command-line tools.
//!
//! Read `agent.rs` and `gateway.rs` first: each tells the flow of a span through its tier on one screen.

pub mod admin; //     metrics, probes, stats
pub mod agent; //     receive -> scan -> route -> queue -> send
pub mod cli; //       the command line
pub mod export; //    kept spans to one backend
pub mod gateway; //   receive -> scan -> insert -> decide -> export
pub mod ledger; //    where every span went
pub mod memory; //    limits and budgets
pub mod metrics; //   one table of names
pub mod otlp; //      answers to export requests
pub mod peer; //      the hop between our processes
pub mod role; //      the life of one process
pub mod run; //       a local fleet
pub mod stats; //     what processes tell about themselves
pub mod transport; // sockets, frames, compression, answers
