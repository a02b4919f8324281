//! The official OpenTelemetry SDK talks to us: a foreign gRPC client (tonic) and a foreign HTTP client.

use std::time::SystemTime;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry_otlp::{
    Compression, Protocol as Exporting, SpanExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use prost::Message as _;
use ringtail::transport::{Method, Protocol, Refusal, Reply};

use crate::support::Server;

fn span(name: &'static str) -> SpanData {
    let trace = TraceId::from_bytes([7; 16]);
    let id = SpanId::from_bytes([8; 8]);
    let flags = TraceFlags::SAMPLED;
    SpanData {
        span_context: SpanContext::new(trace, id, flags, false, TraceState::default()),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Server,
        name: name.into(),
        start_time: SystemTime::UNIX_EPOCH,
        end_time: SystemTime::UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: Default::default(),
    }
}

fn over_grpc(server: &Server, compression: Option<Compression>) -> SpanExporter {
    let mut builder =
        SpanExporter::builder().with_tonic().with_endpoint(format!("http://{}", server.address));
    if let Some(compression) = compression {
        builder = builder.with_compression(compression);
    }
    builder.build().unwrap()
}

fn over_http(server: &Server) -> SpanExporter {
    SpanExporter::builder()
        .with_http()
        .with_protocol(Exporting::HttpBinary)
        .with_endpoint(format!("http://{}/v1/traces", server.address))
        .build()
        .unwrap()
}

/// Exports one span and looks at what arrived and at what the SDK makes of the answers.
async fn export(server: &Server, exporter: &SpanExporter) {
    exporter.export(vec![span("pay")]).await.unwrap();
    let (method, message, _) = server.seen().pop().unwrap();
    assert_eq!(method, Method::ExportTraces);
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    assert_eq!(request.resource_spans[0].scope_spans[0].spans[0].name, "pay");

    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "one has no trace ID".to_owned(),
        }),
    };
    server.answer(Ok(Reply { message: partial.encode_to_vec().into() }));
    exporter.export(vec![span("pay")]).await.unwrap();

    server.answer(Err(Refusal::Malformed("span 3 is cut short".to_owned())));
    let error = exporter.export(vec![span("pay")]).await.unwrap_err();
    assert!(matches!(error, OTelSdkError::InternalFailure(_)), "{error}");
    assert_eq!(server.probe.budget.used(), 0);
}

#[tokio::test]
async fn the_sdk_exports_over_grpc() {
    let server = Server::start(Protocol::Grpc);
    export(&server, &over_grpc(&server, None)).await;
}

#[tokio::test]
async fn the_sdk_exports_over_grpc_with_gzip() {
    let server = Server::start(Protocol::Grpc);
    export(&server, &over_grpc(&server, Some(Compression::Gzip))).await;
}

#[tokio::test]
async fn the_sdk_exports_over_http() {
    let server = Server::start(Protocol::Http);
    export(&server, &over_http(&server)).await;
}
