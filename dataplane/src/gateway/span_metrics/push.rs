//! Series as OTLP: the metrics of the connector, in requests of a size that receivers take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use ringtail_engine::span_metrics::{Buckets, Histogram, Labels, Owner, Plan, Series, Shown, Unit};

use super::message::{self, CUMULATIVE, DELTA, KeyValue};
use super::{Push, SpanMetrics};
use crate::export::ConfigError;
use crate::export::credentials::Credentials;
use crate::transport::{Client, ClientLimits, Encoding, Method, framed_as};

/// Bytes of a request, about: a quarter of the 4 MiB that OTLP receivers take by default.
const REQUEST_BYTES: usize = 1 << 20;
/// What a point has beside its labels and buckets: times, sums, tags and lengths.
const POINT_BYTES: usize = 160;
/// How long the answer to one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// As messages call it.
const WHO: &str = "spanMetrics.otlp";

/// See the module.
#[derive(Debug)]
pub(super) struct Pusher {
    client: Client,
    endpoint: String,
    credentials: Arc<Credentials>,
    temporality: i32,
}

/// Which metric a series is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Spans,
    Events,
}

// === impl Pusher ===

impl Pusher {
    pub(super) fn new(push: &Push) -> Result<Self, ConfigError> {
        let Push { settings, secrets_dir } = push;
        let credentials = Credentials::of_endpoint(WHO, &settings.endpoint, secrets_dir.clone())
            .map_err(ConfigError)?;
        let endpoint = &settings.endpoint.address;
        let client = Client::with_trust(endpoint, &ClientLimits::default(), credentials.trust())
            .map_err(|error| ConfigError(format!("{WHO}: {error}")))?;
        Ok(Self {
            client,
            endpoint: endpoint.clone(),
            credentials: Arc::new(credentials),
            temporality: if settings.delta { DELTA } else { CUMULATIVE },
        })
    }

    /// Whom it trusts and what it shows.
    pub(super) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials)
    }

    /// What was not taken; nothing when all of it was.
    pub(super) async fn push(&self, shared: &SpanMetrics, shown: &Shown) -> Option<Shown> {
        let (mut spans, mut events) = (0, 0);
        for (kind, series, request) in requests(shared, shown, self.temporality) {
            if !self.taken(&request).await {
                return Some(shown.after(spans, events));
            }
            match kind {
                Kind::Spans => spans += series,
                Kind::Events => events += series,
            }
        }
        None
    }

    async fn taken(&self, request: &message::Request) -> bool {
        let frame = framed_as(Encoding::Gzip, &request.encode_to_vec());
        let Ok(frame) = frame else { return false };
        let (none, method) = (http::HeaderMap::new(), Method::ExportMetrics);
        let called = self.client.call(method, frame, Encoding::Gzip, &none, ANSWER_WITHIN).await;
        if let Err(error) = &called {
            tracing::warn!(endpoint = %self.endpoint, %error, "span metrics were not taken");
        }
        called.is_ok()
    }
}

/// Requests of a size that receivers take, each with its kind and number of series.
fn requests(
    shared: &SpanMetrics,
    shown: &Shown,
    temporality: i32,
) -> Vec<(Kind, usize, message::Request)> {
    let mut requests = Vec::new();
    for (kind, list) in [(Kind::Spans, &shown.spans), (Kind::Events, &shown.events)] {
        let mut rest = list.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |series: &&Series| {
                bytes += size_of_points(series, &shared.plan);
                bytes <= REQUEST_BYTES
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at(count);
            requests.push((kind, count, request(shared, shown, (kind, temporality), now)));
            rest = later;
        }
    }
    requests
}

fn size_of_points(series: &Series, plan: &Plan) -> usize {
    let names: usize = plan.dimensions(true).map(|name| name.len() + 8).sum();
    let labels = series.key.len() + names + 128;
    let buckets = match &series.histogram {
        Histogram::None => 0,
        Histogram::Explicit { counts, .. } => 16 * counts.len(),
        Histogram::Exponential(histogram) => 10 * histogram.buckets().1.len(),
    };
    2 * (labels + POINT_BYTES + 64 * series.exemplars.len()) + buckets
}

fn request(
    shared: &SpanMetrics,
    shown: &Shown,
    (kind, temporality): (Kind, i32),
    list: &[Series],
) -> message::Request {
    let mut by_owner: BTreeMap<Option<Owner<'_>>, Vec<(Labels<'_>, &Series)>> = BTreeMap::new();
    for series in list {
        let labels = Labels::of(&series.key, &shared.plan, kind == Kind::Events);
        by_owner.entry(labels.owner).or_default().push((labels, series));
    }
    let of_owner = |(owner, list): (Option<Owner<'_>>, Vec<(Labels<'_>, &Series)>)| {
        let metrics = metrics(shared, shown, (kind, temporality), &list);
        let scope = Some(message::Scope { name: "spanmetricsconnector".to_owned() });
        message::ResourceMetrics {
            resource: Some(message::Resource { attributes: owner.map_or(vec![], attributes_of) }),
            scope_metrics: vec![message::ScopeMetrics { scope, metrics }],
        }
    };
    message::Request { resource_metrics: by_owner.into_iter().map(of_owner).collect() }
}

fn attributes_of(owner: Owner<'_>) -> Vec<KeyValue> {
    let named = [
        ("service.name", Some(owner.service)),
        ("service.namespace", owner.namespace),
        ("service.instance.id", owner.instance),
    ];
    named.into_iter().filter_map(|(key, value)| Some(pair(key, value?))).collect()
}

fn pair(key: &str, value: &str) -> KeyValue {
    let value = message::AnyValue { text: Some(value.to_owned()), flag: None };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

fn metrics(
    shared: &SpanMetrics,
    shown: &Shown,
    (kind, temporality): (Kind, i32),
    list: &[(Labels<'_>, &Series)],
) -> Vec<message::Metric> {
    let plan = &shared.plan;
    let name = match kind {
        Kind::Spans => "traces.span.metrics.calls",
        Kind::Events => "traces.span.metrics.events",
    };
    let points = list.iter().map(|(labels, series)| number(shared, shown, labels, series));
    let sum = message::Sum { points: points.collect(), temporality, is_monotonic: true };
    let name = name.to_owned();
    let calls = message::Metric { name, sum: Some(sum), ..message::Metric::default() };
    if kind == Kind::Events {
        return vec![calls];
    }
    let unit = match plan.unit() {
        Unit::Milliseconds => "ms",
        Unit::Seconds => "s",
    };
    let name = "traces.span.metrics.duration".to_owned();
    let duration = message::Metric { name, unit: unit.to_owned(), ..message::Metric::default() };
    let duration = match plan.buckets() {
        Buckets::Explicit(bounds) => {
            let explicit = |(labels, series): &(Labels<'_>, &Series)| {
                explicit(shared, shown, labels, series, bounds)
            };
            let points = list.iter().map(explicit).collect();
            let histogram = Some(message::Histogram { points, temporality });
            message::Metric { histogram, ..duration }
        }
        Buckets::Exponential { .. } => {
            let point = |(labels, series): &(Labels<'_>, &Series)| {
                exponential(shared, shown, labels, series)
            };
            let points = list.iter().map(point).collect();
            let exponential = Some(message::Exponential { points, temporality });
            message::Metric { exponential, ..duration }
        }
    };
    vec![calls, duration]
}

fn number(
    shared: &SpanMetrics,
    shown: &Shown,
    labels: &Labels<'_>,
    series: &Series,
) -> message::NumberPoint {
    message::NumberPoint {
        start_nanos: shared.wall_nanos(series.first),
        nanos: shared.wall_nanos(shown.at),
        exemplars: exemplars(shared, series),
        as_int: Some(i64::try_from(series.calls).unwrap_or(i64::MAX)),
        attributes: attributes(shared, labels),
    }
}

fn explicit(
    shared: &SpanMetrics,
    shown: &Shown,
    labels: &Labels<'_>,
    series: &Series,
    bounds: &[f64],
) -> message::HistogramPoint {
    let (counts, sum) = match &series.histogram {
        Histogram::Explicit { counts, sum } => (counts.to_vec(), *sum),
        Histogram::None | Histogram::Exponential(_) => (Vec::new(), 0.0),
    };
    message::HistogramPoint {
        start_nanos: shared.wall_nanos(series.first),
        nanos: shared.wall_nanos(shown.at),
        count: series.calls,
        sum: Some(sum),
        bucket_counts: counts,
        explicit_bounds: bounds.to_vec(),
        exemplars: exemplars(shared, series),
        attributes: attributes(shared, labels),
    }
}

fn exponential(
    shared: &SpanMetrics,
    shown: &Shown,
    labels: &Labels<'_>,
    series: &Series,
) -> message::ExponentialPoint {
    let point = message::ExponentialPoint {
        attributes: attributes(shared, labels),
        start_nanos: shared.wall_nanos(series.first),
        nanos: shared.wall_nanos(shown.at),
        count: series.calls,
        exemplars: exemplars(shared, series),
        ..message::ExponentialPoint::default()
    };
    let Histogram::Exponential(histogram) = &series.histogram else { return point };
    let (offset, counts) = histogram.buckets();
    message::ExponentialPoint {
        sum: Some(histogram.sum),
        scale: histogram.scale(),
        zeros: histogram.zeros,
        positive: Some(message::Buckets { offset, counts: counts.to_vec() }),
        min: Some(histogram.min),
        max: Some(histogram.max),
        ..point
    }
}

fn exemplars(shared: &SpanMetrics, series: &Series) -> Vec<message::Exemplar> {
    let one = |exemplar: &ringtail_engine::span_metrics::Exemplar| message::Exemplar {
        nanos: shared.wall_nanos(exemplar.at),
        value: Some(exemplar.duration),
        span_id: exemplar.span_id.to_vec(),
        trace_id: exemplar.trace_id.to_vec(),
    };
    series.exemplars.iter().map(one).collect()
}

fn attributes(shared: &SpanMetrics, labels: &Labels<'_>) -> Vec<KeyValue> {
    if labels.owner.is_none() {
        let flag = message::AnyValue { text: None, flag: Some(true) };
        let key = "otel.metric.overflow".to_owned();
        return vec![KeyValue { key, value: Some(flag) }, instance(shared)];
    }
    let told = labels.attributes.iter().map(|(key, value)| pair(key, value));
    let named = shared.plan.names_instance().then(|| instance(shared));
    told.chain(named).collect()
}

/// Without it the totals of several gateways would be points of one series.
fn instance(shared: &SpanMetrics) -> KeyValue {
    pair("collector.instance.id", &shared.instance)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use ringtail_engine::span_metrics::PlanConfig;

    use super::*;
    use crate::gateway::clock::Clock;

    fn shared(buckets: Buckets) -> SpanMetrics {
        let (asks, _) = tokio::sync::mpsc::channel(1);
        let plan = Plan::new(PlanConfig {
            dimensions: Vec::new(),
            event_dimensions: None,
            excluded: Vec::new(),
            buckets,
            unit: Unit::Seconds,
            exemplars: 1,
            expiry: None,
        });
        SpanMetrics {
            plan: Arc::new(plan),
            instance: "gw-0".to_owned(),
            latest: arc_swap::ArcSwap::default(),
            pushed: 0.into(),
            failed: 0.into(),
            credentials: None,
            asks,
            clock: Clock::start(),
        }
    }

    fn overflow(calls: u64) -> Series {
        let histogram = Histogram::Explicit { counts: vec![calls, 0].into(), sum: 2.5 };
        let exemplars = Vec::new();
        Series { key: Box::default(), calls, histogram, exemplars, first: 1, last: 2 }
    }

    #[test]
    fn a_push_is_read_as_otlp() {
        let shared = shared(Buckets::Explicit(vec![1.0]));
        let shown = Shown { spans: vec![overflow(3)], ..Shown::default() };
        let [(Kind::Spans, 1, request)] = &requests(&shared, &shown, CUMULATIVE)[..] else {
            panic!()
        };
        let bytes = request.encode_to_vec();
        let read = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
        let metrics = &read.resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!(metrics[0].name, "traces.span.metrics.calls");
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        let keys: Vec<&str> =
            sum.data_points[0].attributes.iter().map(|pair| pair.key.as_str()).collect();
        assert_eq!(keys, ["otel.metric.overflow", "collector.instance.id"]);
        let Some(Data::Histogram(histogram)) = &metrics[1].data else { panic!("{metrics:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum, metrics[1].unit.as_str()), (3, Some(2.5), "s"));
        assert_eq!(
            (&point.bucket_counts[..], &point.explicit_bounds[..]),
            (&[3, 0][..], &[1.0][..])
        );
    }

    #[test]
    fn a_push_of_many_series_is_several_requests_that_receivers_take() {
        let shared = shared(Buckets::Explicit(vec![1.0]));
        let spans: Vec<Series> = (0..10_000).map(overflow).collect();
        let shown = Shown { spans, ..Shown::default() };
        let requests = requests(&shared, &shown, DELTA);
        assert!(requests.len() > 1);
        assert!(requests.iter().all(|(_, _, request)| request.encoded_len() <= 4 << 20));
        let points = |(_, series, request): &(Kind, usize, message::Request)| {
            let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
            let sum = metrics[0].sum.as_ref().unwrap();
            assert_eq!((sum.points.len(), sum.temporality), (*series, DELTA));
            sum.points.len()
        };
        assert_eq!(requests.iter().map(points).sum::<usize>(), 10_000);
    }
}
