//! The shard against a naive model, its bounds, and its behaviour case by case.

mod bounds;
mod cases;
mod counting;
mod custody;
mod model;

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::*;
use crate::batch::Batch;
use crate::policy::{self, Policy, Program, Role, Rule, compile};
use crate::scan::{self, ScanLimits};

/// A span with where it came from: resource, scope, bytes.
type Origin = (Vec<u8>, Vec<u8>, Vec<u8>);

const EVERYTHING: TickLimit = TickLimit { traces: u64::MAX, out_bytes: u64::MAX };

const SEED: KeySeed = KeySeed::new([42; 16]);

fn config() -> ShardConfig {
    ShardConfig {
        seed: SEED,
        shard: 0,
        shards: 1,
        decision_wait_ms: 10_000,
        after_root_ms: None,
        max_trace_spans: 100_000,
        max_trace_bytes: 64 << 20,
        memory_keys: 10_000,
    }
}

fn resource(name: &str) -> Resource {
    let value = Some(AnyValue { value: Some(Value::StringValue(name.to_owned())) });
    let attributes =
        vec![KeyValue { key: "service.name".to_owned(), value, ..KeyValue::default() }];
    Resource { attributes, ..Resource::default() }
}

fn scope(name: &str) -> InstrumentationScope {
    InstrumentationScope { name: name.to_owned(), ..InstrumentationScope::default() }
}

/// The ID of a trace, spread over all 128 bits: probabilities go by the upper ones.
fn id(number: u128) -> u128 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

/// A span of a trace; `padding` makes it larger.
fn span(trace: u128, number: u64, padding: usize) -> Span {
    Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        name: "x".repeat(padding),
        start_time_unix_nano: 1_000_000 * (number + 1),
        end_time_unix_nano: 1_000_000 * (number + 3),
        status: (number % 5 == 4).then(|| Status { code: 2, ..Status::default() }),
        ..Span::default()
    }
}

fn group(resource_name: &str, scope_name: &str, spans: Vec<Span>) -> ResourceSpans {
    let scope_spans =
        vec![ScopeSpans { scope: Some(scope(scope_name)), spans, ..ScopeSpans::default() }];
    ResourceSpans {
        resource: Some(resource(resource_name)),
        scope_spans,
        ..ResourceSpans::default()
    }
}

fn request(resource_spans: Vec<ResourceSpans>) -> Vec<u8> {
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn one_group(spans: Vec<Span>) -> Vec<u8> {
    request(vec![group("shop", "http", spans)])
}

/// The spans of a batch, sorted, with what they came from; the batch is empty then.
fn take(out: &mut Batch) -> Vec<Origin> {
    let mut bytes = Vec::new();
    out.encode(&mut bytes);
    out.clear();
    let mut spans = origins(&bytes);
    spans.sort();
    spans
}

/// The spans of a request in their order.
fn origins(request: &[u8]) -> Vec<Origin> {
    let request = ExportTraceServiceRequest::decode(request).expect("what comes out is a request");
    let mut spans = Vec::new();
    for group in request.resource_spans {
        let resource = group.resource.unwrap_or_default().encode_to_vec();
        for scoped in group.scope_spans {
            let scope = scoped.scope.unwrap_or_default().encode_to_vec();
            let found = scoped
                .spans
                .iter()
                .map(|span| (resource.clone(), scope.clone(), span.encode_to_vec()));
            spans.extend(found);
        }
    }
    spans
}

/// Checks a request and inserts it.
fn insert(shard: &mut Shard, request: &[u8], now: Millis, out: &mut Batch) -> Inserted {
    let shape = scan::check(request, &ScanLimits::default()).unwrap();
    shard.insert(request, &shape, now, out)
}

fn program_of(policies: &[(&str, Rule)]) -> Arc<Program> {
    let policy = |(name, rule): &(&str, Rule)| Policy {
        name: (*name).to_owned(),
        role: Role::Vote,
        rule: rule.clone(),
    };
    let policies: Vec<_> = policies.iter().map(policy).collect();
    Arc::new(compile(&policies).expect("the policies are valid"))
}

/// Policies that between them look at the status, the times, the ID and the resource.
fn program(slow_ms: u64) -> Arc<Program> {
    let errors = Rule::StatusCode { codes: vec![policy::Status::Error] };
    let slow = Rule::Latency { threshold_ms: slow_ms, upper_threshold_ms: None };
    let some = Rule::Probabilistic { sampling_percentage: 10.0, hash_salt: String::new() };
    let service = Rule::StringAttribute {
        key: "service.name".to_owned(),
        values: vec!["service-3".to_owned()],
        regex: false,
        invert_match: false,
    };
    let condition =
        r#"scope.name == "scope-2" and resource.attributes["service.name"] == "service-1""#;
    let asked = Rule::OttlCondition {
        span: vec![condition.to_owned()],
        span_event: Vec::new(),
        error_mode: policy::ErrorMode::Ignore,
    };
    program_of(&[
        ("errors", errors),
        ("asked", asked),
        (&format!("slow-{slow_ms}"), slow),
        ("some", some),
        ("service", service),
    ])
}
