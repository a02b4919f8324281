//! What the cross-crate tests share: real `ringtail` processes on loopback, a backend that keeps what it
//! gets, and traces to send.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's own tools fail by panicking, with what they saw"
)]

pub mod api;
pub mod backend;
pub mod bench;
pub mod certificates;
pub mod cgroup;
pub mod collector;
pub mod compression;
pub mod exporting;
pub mod exposition;
pub mod fleet;
pub mod hostile;
pub mod http;
pub mod http2;
pub mod http_backend;
pub mod kubelet;
pub mod logs;
pub mod metrics_sink;
pub mod process;
pub mod promtool;
pub mod random;
pub mod shop;
pub mod simulation;
pub mod traces;
pub mod wire;
