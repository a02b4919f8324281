//! What the cross-crate tests share: real `ringtail` processes on loopback, a backend that keeps what it gets, and
//! traces to send.

pub mod backend;
pub mod fleet;
pub mod http;
pub mod process;
pub mod traces;
