//! The wire edge over real sockets: what is taken, what is refused and how, and how it ends.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod compression;
mod grpc;
mod http;
mod lifetimes;
#[cfg(feature = "demo")]
mod sdk;
mod support;
