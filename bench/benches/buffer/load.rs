//! Realistic requests, cheap to make: one is encoded, the others are it with other IDs.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use ringtail_engine::key::KeySeed;
use ringtail_engine::policy::{self, Policy, Role, Rule};
use ringtail_engine::scan::{self, ScanLimits, Shape, TraceId};
use ringtail_engine::shard::{Shard, ShardConfig};

/// Spans of a trace; they come in as many requests.
pub(crate) const SPANS_A_TRACE: usize = 8;
/// Spans of a request: 32 of each of three services.
pub(crate) const SPANS_A_REQUEST: usize = 96;
/// Requests made at once: 76,800 spans of 9,600 traces.
pub(crate) const REQUESTS_A_WAVE: usize = 800;

/// What stands for the trace ID in the template, before the number of the trace in the request.
const ID_MARK: [u8; 15] = *b"ringtail-trace-";

/// Requests with what the scanner found in them.
pub(crate) type Requests = Vec<(Vec<u8>, Shape)>;

/// Makes requests.
pub(crate) struct Load {
    template: Vec<u8>,
    /// Where trace IDs are, each followed by tag, length and the span ID.
    ids: Vec<usize>,
    shape: Shape,
    traces: u64,
    buffer: Vec<u8>,
    /// Which traces are meant.
    meant: Box<dyn Fn(TraceId) -> bool>,
}

impl Load {
    /// Starts with trace 1.
    pub(crate) fn new() -> Self {
        Self::of(|_| true)
    }

    /// Of such traces alone.
    pub(crate) fn of(meant: impl Fn(TraceId) -> bool + 'static) -> Self {
        let template = template();
        let starts = template.windows(ID_MARK.len()).enumerate();
        let ids: Vec<_> = starts.filter(|(_, bytes)| *bytes == ID_MARK).map(|(at, _)| at).collect();
        assert_eq!(ids.len(), SPANS_A_REQUEST);
        let shape = scan::check(&template, &ScanLimits::default()).unwrap_or(Shape::UNKNOWN);
        let meant = Box::new(meant);
        Self { template, ids, shape, traces: 1, buffer: Vec::new(), meant }
    }

    /// The next requests: each trace has a span in eight consecutive ones.
    pub(crate) fn wave(&mut self, mut each: impl FnMut(&[u8], &Shape)) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut traces = Vec::new();
        for request in 0..REQUESTS_A_WAVE {
            buffer.clone_from(&self.template);
            let round = (request % SPANS_A_TRACE) as u64;
            if round == 0 {
                traces = self.next_traces();
            }
            for ((number, id), at) in traces.iter().zip(&self.ids) {
                buffer[*at..at + 16].copy_from_slice(id);
                buffer[at + 18..at + 26].copy_from_slice(&(number << 8 | round).to_be_bytes());
            }
            each(&buffer, &self.shape);
        }
        self.buffer = buffer;
    }

    fn next_traces(&mut self) -> Vec<(u64, TraceId)> {
        // Real IDs are random; these are as if.
        let id = |number: u64| {
            let id = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            (number, id.to_be_bytes())
        };
        let meant = (self.traces..).map(id).filter(|(_, id)| (self.meant)(*id));
        let traces: Vec<_> = meant.take(SPANS_A_REQUEST).collect();
        self.traces = traces.last().map_or(self.traces, |(number, _)| number + 1);
        traces
    }

    /// The same as a list.
    pub(crate) fn requests(&mut self) -> Requests {
        let mut requests = Vec::with_capacity(REQUESTS_A_WAVE);
        self.wave(|request, shape| requests.push((request.to_vec(), shape.clone())));
        requests
    }
}

/// The secret of the fleet.
pub(crate) fn seed() -> KeySeed {
    KeySeed::new(*b"benchmark-seed-1")
}

/// A shard with the policies of the comparison with the Collector: errors, slow ones, and a share of the
/// rest.
pub(crate) fn shard(percent: u32, memory_keys: usize) -> Shard {
    let errors = Rule::StatusCode { codes: vec![policy::Status::Error] };
    let slow = Rule::Latency { threshold_ms: 5_000, upper_threshold_ms: None };
    let share =
        Rule::Probabilistic { sampling_percentage: f64::from(percent), hash_salt: String::new() };
    let rules = [("errors", errors), ("slow", slow), ("share", share)];
    let policies =
        rules.map(|(name, rule)| Policy { name: name.to_owned(), role: Role::Vote, rule });
    let config = ShardConfig {
        seed: seed(),
        shard: 0,
        shards: 1,
        decision_wait_ms: 10_000,
        after_root_ms: None,
        max_trace_spans: 100_000,
        max_trace_bytes: 64 << 20,
        memory_keys,
    };
    match policy::compile(&policies) {
        Ok(program) => Shard::new(config, Arc::new(program)),
        Err(problems) => unreachable!("the policies are valid: {problems:?}"),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn number(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn span(trace: u8) -> Span {
    let mut trace_id = ID_MARK.to_vec();
    trace_id.push(trace);
    let start = 1_760_000_000_000_000_000 + u64::from(trace) * 1_000_000;
    Span {
        trace_id,
        span_id: vec![1; 8],
        parent_span_id: vec![2; 8],
        name: "GET /api/v2/products/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 12_345_678,
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", "/api/v2/products/{id}"),
            text("url.path", "/api/v2/products/71b2c6d0"),
            text("url.scheme", "http"),
            text("server.address", "catalog.shop.svc.cluster.local"),
            number("server.port", 8080),
            number("http.response.status_code", 200),
            text("network.protocol.version", "1.1"),
            text("user_agent.original", "okhttp/4.12.0"),
            text("client.address", "10.42.17.203"),
            number("thread.id", 117),
        ],
        status: Some(Status::default()),
        ..Span::default()
    }
}

fn template() -> Vec<u8> {
    let services = ["frontend", "catalog", "payment"].iter().zip(0u8..);
    let groups = services.map(|(name, service)| {
        let attributes = vec![
            text("service.name", name),
            text("service.version", "2.14.3"),
            text("service.namespace", "shop"),
            text("k8s.namespace.name", "shop"),
            text("k8s.pod.name", "catalog-7c9d8b6f5-x2x7q"),
            text("k8s.node.name", "ip-10-42-17-8.eu-central-1.compute.internal"),
            text("telemetry.sdk.language", "java"),
            text("telemetry.sdk.version", "1.54.0"),
        ];
        let scope = InstrumentationScope {
            name: "io.opentelemetry.http".to_owned(),
            version: "2.20.0".to_owned(),
            ..InstrumentationScope::default()
        };
        let spans = (0..32).map(|n| span(service * 32 + n)).collect();
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    });
    ExportTraceServiceRequest { resource_spans: groups.collect() }.encode_to_vec()
}
