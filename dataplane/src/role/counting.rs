//! From the span metrics of a manifest to what shards count with, within a budget.

use std::path::Path;
use std::sync::Arc;

use ringtail_crds::ValidPipeline;
use ringtail_crds::resolved::{Logs, SpanMetrics};
use ringtail_engine::span_metrics::{Exemplar, Histogram, Limits, Plan, SERIES_BYTES};

use super::RoleError;
use crate::gateway::span_metrics::{Config, Push};
use crate::memory::{self, Budget, Tier, Wanted};

/// Bytes of the labels of a series as most have them: service, name, job and three dimensions of 20 each,
/// with their lengths, and room for as much again. Longer ones leave room for fewer series.
const LABELS_BYTES: u64 = 256;
/// What a table has at least: a dozen series with the longest labels that there can be.
const TABLE_BYTES_MIN: u64 = 64 << 10;
/// Tables beside those of the shards: the totals, and the copy that is shown. Pushes of deltas have as many
/// again: what nobody was told yet, and what is on its way.
const TABLES: u64 = 2;

/// The budget of a gateway whose flag says so, or nothing, and what it counts with.
pub(super) fn share(
    pipeline: &ValidPipeline,
    memory_limit: Option<u64>,
    shards: u32,
    secrets_dir: &Path,
) -> Result<(Budget, Option<Config>), RoleError> {
    let send = pipeline.exporters.iter().map(|exporter| exporter.queue_max_bytes).sum();
    let wanted = Wanted {
        send,
        retention: None,
        span_metrics: wanted(pipeline, shards),
        logs: matches!(pipeline.logs, Some(Logs::OfKeptTraces(_))),
    };
    let limit = memory::limit(Tier::Gateway, memory_limit);
    let budget = Budget::share(Tier::Gateway, limit, wanted);
    Ok((budget, config(pipeline, shards, budget.span_metrics, secrets_dir)?))
}

/// Bytes for all series that the manifest allows, in every table that may have them.
fn wanted(pipeline: &ValidPipeline, shards: u32) -> u64 {
    let Some(settings) = &pipeline.span_metrics else { return 0 };
    // A list that grows may be twice what is in it.
    let exemplars = (2 * settings.plan.exemplars * size_of::<Exemplar>()) as u64;
    let histogram = Histogram::bytes_max(&settings.plan.buckets);
    let series = SERIES_BYTES + LABELS_BYTES + histogram + exemplars;
    // A table that counts events as well gives them a fourth of its bytes.
    let shared = if settings.plan.event_dimensions.is_some() { 4 } else { 3 };
    let table = u64::from(settings.max_series) * series / 3 * shared;
    table.max(TABLE_BYTES_MIN) * tables(settings, shards)
}

fn tables(settings: &SpanMetrics, shards: u32) -> u64 {
    let delta = settings.push.as_ref().is_some_and(|push| push.delta);
    u64::from(shards) + if delta { 2 * TABLES } else { TABLES }
}

/// What a gateway counts with, if it counts.
fn config(
    pipeline: &ValidPipeline,
    shards: u32,
    budget: u64,
    secrets_dir: &Path,
) -> Result<Option<Config>, RoleError> {
    let Some(settings) = &pipeline.span_metrics else { return Ok(None) };
    let limits =
        Limits { series: settings.max_series as usize, bytes: budget / tables(settings, shards) };
    let push = settings.push.clone();
    let push = push.map(|settings| Push { settings, secrets_dir: secrets_dir.to_owned() });
    let config = Config { plan: Arc::new(Plan::new(settings.plan.clone())), limits, push };
    config.check()?;
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MIB;

    fn pipeline(metrics: &str) -> ValidPipeline {
        let text = format!(
            "apiVersion: ringtail.dev/v1alpha1\nkind: TracePipeline\nmetadata: {{name: a}}\nspec:\n  \
             sampling: {{policies: [{{name: all, type: AlwaysSample}}]}}\n  \
             exporters: [{{name: b, type: OTLP, otlp: {{endpoint: \"http://b:4317\"}}}}]\n  {metrics}\n"
        );
        ringtail_crds::validate(&text).unwrap()
    }

    // A client, as of a push, needs a runtime.
    #[tokio::test]
    async fn all_series_have_room_in_a_gateway_of_the_usual_size_and_few_in_a_small_one() {
        assert_eq!(wanted(&pipeline(""), 1), 0);
        assert!(config(&pipeline(""), 1, 0, Path::new("")).unwrap().is_none());
        let cases = [
            ("spanMetrics: {}", 2048 * MIB, 1, true),
            ("spanMetrics: {exemplars: {enabled: true}}", 2048 * MIB, 4, true),
            ("spanMetrics: {exponential: {}, maxSeries: 100000}", 512 * MIB, 1, false),
            ("spanMetrics: {maxSeries: 1}", 64 * MIB, 1, true),
            (
                "spanMetrics: {otlp: {endpoint: 'http://a:1', aggregationTemporality: Delta}}",
                2048 * MIB,
                1,
                true,
            ),
        ];
        for (metrics, limit, shards, fits) in cases {
            let pipeline = pipeline(metrics);
            let span_metrics = wanted(&pipeline, shards);
            let wanted = Wanted { span_metrics, ..Wanted::default() };
            let budget = Budget::share(Tier::Gateway, limit, wanted).span_metrics;
            assert_eq!(budget == span_metrics, fits, "{metrics}: {budget} of {span_metrics}");
            let config = config(&pipeline, shards, budget, Path::new("")).unwrap().unwrap();
            let tables = tables(pipeline.span_metrics.as_ref().unwrap(), shards);
            assert!(config.limits.bytes * tables <= budget, "{metrics}");
        }
    }
}
