//! Measures Ringtail beside the raw limit of its stack and beside the OpenTelemetry Collector, and checks every span.

pub mod failure;
mod shop;
pub mod template;
pub mod truth;
