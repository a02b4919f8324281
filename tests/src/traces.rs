//! Traces to send, and clients to send them with.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

/// A trace to make.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// Decides the trace ID.
    pub number: u64,
    /// Spans, spread over as many services as there are up to four.
    pub spans: u32,
    /// Whether its last span failed.
    pub error: bool,
    /// From the start of the first span to the end of the last.
    pub duration_ms: u64,
}

/// An attribute with a text.
pub fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    }
}

/// The `service.name` of a resource.
pub fn service_of(spans: &ResourceSpans) -> String {
    let attributes = spans.resource.iter().flat_map(|resource| &resource.attributes);
    attributes
        .filter(|attribute| attribute.key == "service.name")
        .find_map(|attribute| match &attribute.value.as_ref()?.value {
            Some(Value::StringValue(name)) => Some(name.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

/// A request with these spans of one service.
pub fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", service)],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: "tests".into(), ..Default::default() }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

// === impl Trace ===

impl Trace {
    /// Its ID: never zero, and different for every number.
    pub fn id(&self) -> Vec<u8> {
        let scrambled = (self.number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [scrambled.to_be_bytes(), (self.number + 1).to_be_bytes()].concat()
    }

    /// Its spans, each with the service it belongs to.
    pub fn spans(&self) -> Vec<(String, Span)> {
        let start = 1_700_000_000_000_000_000_u64;
        (0..self.spans)
            .map(|index| {
                let last = index + 1 == self.spans;
                let end = start + self.duration_ms * 1_000_000;
                let code = if self.error && last { StatusCode::Error } else { StatusCode::Unset };
                let span = Span {
                    trace_id: self.id(),
                    span_id: (u64::from(index) + 1).to_be_bytes().to_vec(),
                    parent_span_id: if index == 0 {
                        Vec::new()
                    } else {
                        1_u64.to_be_bytes().to_vec()
                    },
                    name: format!("operation-{index}"),
                    start_time_unix_nano: start,
                    end_time_unix_nano: if last { end } else { start + 1_000_000 },
                    attributes: vec![text("http.route", "/things/{id}"), text("peer", "somebody")],
                    status: Some(Status { code: code.into(), ..Status::default() }),
                    ..Span::default()
                };
                (format!("service-{}", index % 4), span)
            })
            .collect()
    }

    /// One request with the spans that `part` of `parts` has: span i goes to part i modulo parts.
    pub fn part(&self, part: u32, parts: u32) -> ExportTraceServiceRequest {
        let chosen = self.spans().into_iter().enumerate().filter_map(|(index, span)| {
            (u32::try_from(index).unwrap() % parts == part).then_some(span)
        });
        let requests = chosen.map(|(service, span)| request(&service, vec![span]));
        ExportTraceServiceRequest {
            resource_spans: requests.flat_map(|request| request.resource_spans).collect(),
        }
    }
}
