//! What the spans of the load look like: eight services of a shop, as their SDKs would describe them.

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, status::StatusCode};

use crate::truth::{SPANS, parent_of};

/// The schema that resources and scopes follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.27.0";

/// Name, method, route, server address, port, and the language of each service's SDK.
const SERVICES: [(&str, &str, &str, &str, i64, &str); SPANS] = [
    ("frontend", "POST", "/api/checkout", "frontend.shop.svc", 8080, "nodejs"),
    ("cart", "GET", "/cart/{id}/items", "cart.shop.svc", 7070, "dotnet"),
    ("checkout", "POST", "/orders/place", "checkout.shop.svc", 5050, "go"),
    ("currency", "GET", "/rates/{currency}", "currency.shop.svc", 7001, "cpp"),
    ("inventory", "POST", "/stock/reserve", "inventory.shop.svc", 9555, "java"),
    ("payment", "POST", "/charges/create", "payment.shop.svc", 50051, "rust"),
    ("shipping", "POST", "/quotes/{zone}", "shipping.shop.svc", 50050, "rust"),
    ("email", "POST", "/messages/send", "email.shop.svc", 6060, "ruby"),
];

/// Marks the bytes of a span that differ from trace to trace, so that they can be found in its encoding.
pub(crate) mod mark {
    pub(crate) const TRACE_ID: [u8; 16] = *b"<-- trace id -->";
    pub(crate) const SPAN_ID: [u8; 8] = *b"<span-->";
    pub(crate) const PARENT_ID: [u8; 8] = *b"<parent>";
    pub(crate) const START: [u8; 8] = *b"<start->";
    pub(crate) const END: [u8; 8] = *b"<-end-->";
    pub(crate) const CUSTOMER: &str = "customer-0000";
    pub(crate) const HTTP_STATUS: &str = "http.response.status_code";
}

/// The HTTP status of a span that went well, and of one that did not: equally long as varints.
pub(crate) const HTTP_STATUS: (i64, i64) = (200, 500);

pub(crate) fn resource(service: usize) -> Resource {
    let (name, _, _, _, _, language) = SERVICES[service];
    Resource {
        attributes: vec![
            text("service.name", name),
            text("service.version", "2.14.3"),
            text("k8s.namespace.name", "shop"),
            text("k8s.pod.name", &format!("{name}-6c9f7d5b8-x2k{service}q")),
            text("k8s.node.name", "node-a17.eu-central-1"),
            text("telemetry.sdk.language", language),
        ],
        ..Resource::default()
    }
}

pub(crate) fn scope(service: usize) -> InstrumentationScope {
    let (_, _, _, _, _, language) = SERVICES[service];
    InstrumentationScope {
        name: format!("io.opentelemetry.contrib.{language}.http"),
        version: "0.61.0".into(),
        ..InstrumentationScope::default()
    }
}

pub(crate) fn schema_url() -> String {
    SCHEMA_URL.into()
}

/// A span of a service, with marks where traces differ.
pub(crate) fn span(service: usize) -> Span {
    let (_, method, route, _, _, _) = SERVICES[service];
    let parent = parent_of(service).map(|_| mark::PARENT_ID.to_vec());
    Span {
        trace_id: mark::TRACE_ID.to_vec(),
        span_id: mark::SPAN_ID.to_vec(),
        parent_span_id: parent.unwrap_or_default(),
        // Sampled, and "is remote" is known to be false.
        flags: 0x101,
        name: format!("{method} {route}"),
        kind: 2,
        start_time_unix_nano: u64::from_le_bytes(mark::START),
        end_time_unix_nano: u64::from_le_bytes(mark::END),
        attributes: attributes(service),
        status: Some(Status { code: StatusCode::Ok as i32, message: String::new() }),
        ..Span::default()
    }
}

fn attributes(service: usize) -> Vec<KeyValue> {
    let (name, method, route, address, port, _) = SERVICES[service];
    vec![
        text("http.request.method", method),
        text("http.route", route),
        number(mark::HTTP_STATUS, HTTP_STATUS.0),
        text("url.scheme", "http"),
        text("server.address", address),
        number("server.port", port),
        text("client.address", "10.42.17.203"),
        text("network.protocol.version", "1.1"),
        text("user_agent.original", &format!("shop-{name}/2.14.3 (linux)")),
        text("enduser.id", mark::CUSTOMER),
        text("thread.name", "http-worker-11"),
    ]
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
