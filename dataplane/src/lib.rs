//! The Ringtail data plane: agent, gateway, local fleet and command-line tools.
//!
//! Read `agent.rs` and `gateway.rs` first: each tells the flow of a span through its tier on one screen.
//!
//! | module | what it holds |
//! |---|---|
//! | [`admin`] | metrics, probes, stats |
//! | [`agent`] | receive -> scan -> route -> queue -> send |
//! | `buffers` | memory of messages, used again |
//! | [`cli`] | the command line |
//! | [`config`] | the manifest while the process runs |
//! | [`convert`] | a Collector's configurations as a manifest |
//! | [`discovery`] | where gateways may be: lists, EndpointSlices |
//! | [`export`] | kept spans to one backend |
//! | [`gateway`] | receive -> scan -> insert -> decide -> export |
//! | [`inject`] | an agent into the pods of workloads |
//! | `input` | files that a command line names |
//! | [`ledger`] | where every span went |
//! | [`membership`] | who is in the ring, by asking |
//! | [`memory`] | limits and budgets |
//! | [`metrics`] | one table of names |
//! | [`otlp`] | answers to export requests |
//! | [`pause`] | waiting for a moment that may not be set |
//! | [`peer`] | the hop between our processes |
//! | [`renewal`] | files that change while we run |
//! | [`role`] | the life of one process |
//! | [`run`] | a local fleet |
//! | `seldom` | failures that are told now and then |
//! | [`stats`] | what processes tell about themselves |
//! | [`transport`] | sockets, frames, compression, answers |
//! | [`verdicts`] | recorded traces against policies |

pub mod admin;
pub mod agent;
mod buffers;
pub mod cli;
pub mod config;
pub mod convert;
pub mod discovery;
pub mod export;
pub mod gateway;
pub mod inject;
mod input;
pub mod ledger;
pub mod membership;
pub mod memory;
pub mod metrics;
pub mod otlp;
pub mod pause;
pub mod peer;
pub mod renewal;
pub mod role;
pub mod run;
mod seldom;
pub mod stats;
pub mod transport;
pub mod verdicts;
