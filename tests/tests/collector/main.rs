//! Random traces through a real OpenTelemetry Collector and through ours.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

mod counts;
mod verdicts;
