//! `spec.spanMetrics`: requests, errors and durations of all spans, counted before any sampling.

use std::{collections::BTreeMap, sync::LazyLock, time::Duration};

use kube::KubeSchema;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    duration::{DurationBounds, DurationText},
    exporter::{TLS_OF_HTTPS, TlsSettings},
    path::Path,
    pattern,
    rules::NodeRule,
    validate::Findings,
};

/// As many again as the defaults have, four times over; each costs 8 bytes a series.
const BUCKETS_MAX: usize = 64;
/// Two is the least by which any two durations have buckets; 320 are 2.5 KiB a series.
const EXPONENTIAL_MIN: u32 = 2;
const EXPONENTIAL_MAX: u32 = 320;
const EXPONENTIAL_SIZE: u32 = 160;
/// Half of what the engine looks up, for spans and for events.
const DIMENSIONS_MAX: usize = 16;
const NAME_LENGTH_MAX: u32 = 128;
/// As long as a label's value may be.
const DEFAULT_LENGTH_MAX: u32 = 256;
/// The five that there are.
const EXCLUDED_MAX: usize = 5;
/// A million series are several GiB, and more than one Prometheus likes to see of one target.
const SERIES_MIN: u32 = 1;
const SERIES_MAX: u32 = 1_000_000;
const SERIES: u32 = 10_000;
/// From a few scrapes to a day.
pub(crate) static EXPIRY: DurationBounds = DurationBounds::ms(60_000, 86_400_000);
/// More exemplars of one series than buckets are of no use.
const EXEMPLARS_MIN: u32 = 1;
const EXEMPLARS_MAX: u32 = 20;
const EXEMPLARS: u32 = 5;
/// From what a receiver may like to what a dashboard may bear.
pub(crate) static INTERVAL: DurationBounds = DurationBounds::ms(1_000, 600_000);
// "https://" (8), a host name (253), ":65535" (6).
const ENDPOINT_LENGTH_MAX: u32 = 267;

/// Requests, errors and durations of all spans, counted by gateways before any sampling, under the names of
/// the OpenTelemetry Collector's spanmetrics connector: traces_span_metrics_calls_total and
/// traces_span_metrics_duration_milliseconds on /metrics of the admin port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ONE_KIND_OF_BUCKETS.rule())]
pub struct SpanMetrics {
    /// Upper bounds of the buckets of durations, in any order. Without it those of the connector: 2ms, 4ms,
    /// 6ms, 8ms, 10ms, 50ms, 100ms, 200ms, 400ms, 800ms, 1s, 1400ms, 2s, 5s, 10s, 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = BUCKETS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub buckets: Option<Vec<DurationText>>,

    /// Exponential buckets in place of explicit ones. They go out by otlp; on /metrics, whose text has no
    /// form for them, there are count and sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponential: Option<ExponentialBuckets>,

    /// The unit of durations: Milliseconds or Seconds. It is part of the metric's name.
    #[serde(default)]
    pub unit: DurationUnit,

    /// Attributes by which spans are counted, beside service, span name, kind and status: of the span, else
    /// of its resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = DIMENSIONS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub dimensions: Vec<Dimension>,

    /// Dimensions that every series would have, and that are left out: service.name, span.name, span.kind,
    /// status.code, collector.instance.id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = EXCLUDED_MAX))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub exclude_dimensions: Vec<BuiltInDimension>,

    /// Counts the events of spans, too, as traces_span_metrics_events_total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventMetrics>,

    /// The most series of a gateway, for spans and for events each. Spans past them are counted in one more,
    /// which has the label otel_metric_overflow="true". A gateway with little memory may have fewer.
    #[serde(default = "series")]
    #[schemars(range(min = SERIES_MIN, max = SERIES_MAX))]
    pub max_series: u32,

    /// Series without a span for so long are forgotten. From 1m to 24h.
    #[serde(default = "expiry")]
    #[x_kube(validation = EXPIRY.rule())]
    pub expiry: DurationText,

    /// Trace IDs beside the numbers.
    #[serde(default)]
    pub exemplars: Exemplars,

    /// Pushes the metrics as OTLP, too, with collector.instance.id telling gateways apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpPush>,
}

/// Buckets whose width grows with the duration, as OpenTelemetry defines them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExponentialBuckets {
    /// The most buckets of a series.
    #[serde(default = "exponential_size")]
    #[schemars(range(min = EXPONENTIAL_MIN, max = EXPONENTIAL_MAX))]
    pub max_size: u32,
}

/// The unit of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum DurationUnit {
    #[default]
    Milliseconds,
    Seconds,
}

/// An attribute by which spans are counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dimension {
    /// The attribute, such as http.request.method. In the label every character that is no letter or digit
    /// is an underscore.
    #[schemars(length(max = NAME_LENGTH_MAX), regex(pattern = pattern::ATTRIBUTE_NAME.regex))]
    #[x_kube(validation = LABEL_IS_FREE.rule())]
    pub name: String,

    /// The value where neither span nor resource has the attribute. Without it the label is left out there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = DEFAULT_LENGTH_MAX))]
    pub default: Option<String>,
}

/// A dimension that every series has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum BuiltInDimension {
    #[serde(rename = "service.name")]
    Service,
    #[serde(rename = "span.name")]
    Name,
    #[serde(rename = "span.kind")]
    Kind,
    #[serde(rename = "status.code")]
    Status,
    #[serde(rename = "collector.instance.id")]
    Instance,
}

/// Counts of the events of spans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventMetrics {
    /// Attributes by which events are counted, after those of spans: of the span, else of the event, else of
    /// the resource.
    #[schemars(length(min = 1, max = DIMENSIONS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub dimensions: Vec<Dimension>,
}

/// Trace IDs beside the numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exemplars {
    /// Whether there are any. They may be of traces that are not kept.
    #[serde(default)]
    pub enabled: bool,

    /// The most of a series; on /metrics at most one a bucket is shown.
    #[serde(default = "exemplars")]
    #[schemars(range(min = EXEMPLARS_MIN, max = EXEMPLARS_MAX))]
    pub max_per_data_point: u32,
}

/// Where span metrics are pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = NO_PATH.rule(), validation = TLS_OF_HTTPS.rule())]
pub struct OtlpPush {
    /// An OTLP/gRPC receiver of metrics: http://host:port in the clear, or https://host:port in TLS, where
    /// the port is 443 unless it is written.
    #[schemars(length(max = ENDPOINT_LENGTH_MAX), regex(pattern = pattern::HTTP_ENDPOINT.regex))]
    pub endpoint: String,

    /// Whom to trust and what to show, with an https:// endpoint; as exporters have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,

    /// What a push tells. Cumulative: everything since a series began, so that a push that is lost costs
    /// nothing. Delta: what came since the last push that was taken; one whose answer is lost is told
    /// again with the next. /metrics is cumulative in any case.
    #[serde(default)]
    pub aggregation_temporality: Temporality,

    /// How often. From 1s to 10m.
    #[serde(default = "interval")]
    #[x_kube(validation = INTERVAL.rule())]
    pub interval: DurationText,
}

/// What a push tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum Temporality {
    #[default]
    Cumulative,
    Delta,
}

impl Default for Exemplars {
    fn default() -> Self {
        Self { enabled: false, max_per_data_point: exemplars() }
    }
}

fn series() -> u32 {
    SERIES
}

fn exponential_size() -> u32 {
    EXPONENTIAL_SIZE
}

fn exemplars() -> u32 {
    EXEMPLARS
}

// An error that happens every half an hour is one series, not a new one each time.
fn expiry() -> DurationText {
    Duration::from_secs(3_600).into()
}

// The connector's metrics_flush_interval.
fn interval() -> DurationText {
    Duration::from_secs(60).into()
}

// === rules ===

/// A histogram has one kind of buckets.
pub(crate) static ONE_KIND_OF_BUCKETS: NodeRule = NodeRule {
    cel: "!has(self.buckets) || !has(self.exponential)",
    holds: |metrics| metrics.get("buckets").is_none() || metrics.get("exponential").is_none(),
    message: "must not be set beside buckets: durations are in one kind of buckets",
    field: ".exponential",
};

macro_rules! with_path {
    () => {
        "^https?://[^/]+/"
    };
}

/// The path of a gRPC call is its method.
pub(crate) static NO_PATH: NodeRule = NodeRule {
    cel: concat!("!self.endpoint.matches('", with_path!(), "')"),
    holds: |push| {
        static WITH_PATH: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(with_path!()).ok());
        let endpoint = push.get("endpoint").and_then(Value::as_str);
        !endpoint.zip(WITH_PATH.as_ref()).is_some_and(|(text, regex)| regex.is_match(text))
    },
    message: "must have no path: metrics are pushed over gRPC",
    field: ".endpoint",
};

// What labels are called that series have anyway, with any character for the underscores.
macro_rules! taken {
    () => {
        "^(service[._-]name|span[._-]name|span[._-]kind|status[._-]code|collector[._-]instance[._-]id|\
         otel[._-]metric[._-]overflow|job|instance|le)$"
    };
}

/// A dimension has a label of its own.
pub(crate) static LABEL_IS_FREE: NodeRule = NodeRule {
    cel: concat!("!self.matches('", taken!(), "')"),
    holds: |name| {
        static TAKEN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(taken!()).ok());
        !name.as_str().zip(TAKEN.as_ref()).is_some_and(|(name, taken)| taken.is_match(name))
    },
    message: "is a label that every series has or that Prometheus needs itself",
    field: "",
};

/// Adds to `findings` dimensions whose labels would be the same: `a.b` and `a_b`.
pub(crate) fn check(resource: &Value, findings: &mut Findings) {
    let at = Path::default().join("spec.spanMetrics");
    let list = |pointer: &str| {
        let list = resource.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().enumerate()
    };
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (pointer, place) in [
        ("/spec/spanMetrics/dimensions", "dimensions"),
        ("/spec/spanMetrics/events/dimensions", "events.dimensions"),
    ] {
        for (index, dimension) in list(pointer) {
            let Some(name) = dimension.get("name").and_then(Value::as_str) else { continue };
            let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
            let label: String = name.chars().map(plain).collect();
            if let Some(other) = labels.insert(label.clone(), name.to_owned()) {
                let at = at.join(place).index(index).key("name");
                let told = format!("has the label {label}, which {other} has already");
                findings.add_unless_known(at, told);
            }
        }
    }
}
