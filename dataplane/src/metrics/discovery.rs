//! How often it was asked where gateways are.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::MetricType;

use super::{Metric, Sample, count};
use crate::discovery::Health;

table! {
    RESOLUTIONS = Counter "otelcol_loadbalancer_num_resolutions" ["resolver", "success"]
        "Attempts to learn where gateways are, by whether they succeeded";
}

/// A list that never changes is never resolved.
pub(super) fn samples(health: &Health) -> Vec<Sample> {
    if health.resolver == "static" {
        return Vec::new();
    }
    let sample =
        |success: &str, attempts| count(&RESOLUTIONS, &[health.resolver, success], attempts);
    vec![
        sample("true", health.resolutions.load(Relaxed)),
        sample("false", health.failures.load(Relaxed)),
    ]
}
