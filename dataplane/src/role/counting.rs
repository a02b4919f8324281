//! From the span metrics of a manifest to what shards count with, within a budget.

use std::sync::Arc;

use ringtail_crds::ValidPipeline;
use ringtail_engine::span_metrics::{Histogram, Limits, Plan, SERIES_BYTES};

use super::RoleError;
use crate::gateway::span_metrics::{Config, Push};

/// Bytes of the labels of a series as most have them: service, name, job and three dimensions of 20 each,
/// with their lengths, and room for as much again. Longer ones leave room for fewer series.
const LABELS_BYTES: u64 = 256;
/// Tables beside those of the shards: the totals, and the copy that is shown.
const TABLES: u64 = 2;

/// Bytes for all series that the manifest allows, in every table that may have them.
pub(super) fn wanted(pipeline: &ValidPipeline, shards: u32) -> u64 {
    let Some(settings) = &pipeline.span_metrics else { return 0 };
    let series = SERIES_BYTES + LABELS_BYTES + Histogram::bytes_max(&settings.plan.buckets);
    // A table that counts events as well gives them a fourth of its bytes.
    let shared = if settings.plan.event_dimensions.is_some() { 4 } else { 3 };
    u64::from(settings.max_series) * series / 3 * shared * (u64::from(shards) + TABLES)
}

/// What a gateway counts with, if it counts.
pub(super) fn config(
    pipeline: &ValidPipeline,
    shards: u32,
    budget: u64,
) -> Result<Option<Config>, RoleError> {
    let Some(settings) = &pipeline.span_metrics else { return Ok(None) };
    let limits = Limits {
        series: settings.max_series as usize,
        bytes: budget / (u64::from(shards) + TABLES),
    };
    let push = settings.push.as_ref().map(|push| Push {
        endpoint: push.endpoint.clone(),
        interval: push.interval,
    });
    let config = Config { plan: Arc::new(Plan::new(settings.plan.clone())), limits, push };
    config.check()?;
    Ok(Some(config))
}
