//! Metrics of what is done to spans.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::MetricType;

use super::{Metric, Sample, count};
use crate::agent::Core;

table! {
    FILTER_FAILURES = Counter "ringtail_filter_condition_failures" []
        "Conditions of agent.filter that a span's values could not answer; such spans stay";
}

/// The samples of an agent.
pub(super) fn of_agent(core: &Core) -> Sample {
    count(&FILTER_FAILURES, &[], core.filter_failures.load(Relaxed))
}
