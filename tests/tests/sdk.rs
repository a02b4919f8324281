//! The official OpenTelemetry SDK for Rust, as it is, through an agent and a gateway, over gRPC and over
//! HTTP.

use std::time::Duration;

use opentelemetry::trace::{Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use ringtail_tests::backend::Backend;
use ringtail_tests::fleet::{ERRORS_AND_SLOW, Fleet};

fn provider(service: &'static str, exporter: SpanExporter) -> SdkTracerProvider {
    // The SDK's batch processor for an async runtime: its HTTP client has none of its own.
    let processor = BatchSpanProcessor::builder(exporter, Tokio).build();
    SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(service).build())
        .with_span_processor(processor)
        .build()
}

/// A request that fails in the second service, called by the first.
fn failing_request(front: &SdkTracerProvider, back: &SdkTracerProvider) -> [u8; 16] {
    let tracer = front.tracer("front");
    let context = Context::new().with_span(tracer.start("GET /cart"));
    let id = context.span().span_context().trace_id().to_bytes();
    let inner = back.tracer("back").start_with_context("SELECT", &context);
    let inner = context.with_span(inner);
    inner.span().set_attribute(KeyValue::new("db.system", "postgresql"));
    inner.span().set_status(Status::error("deadlock"));
    inner.span().end();
    context.span().end();
    id
}

fn ordinary_request(front: &SdkTracerProvider) {
    front.tracer("front").in_span("GET /", |_context| ());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_over_grpc_and_http() {
    let backend = Backend::start().await;
    let fleet = Fleet::start(ERRORS_AND_SLOW, 2, 2, &backend.address.to_string(), &[]);
    let grpc = SpanExporter::builder()
        .with_tonic()
        .with_compression(opentelemetry_otlp::Compression::Gzip)
        .with_endpoint(format!("http://{}", fleet.agents[0].grpc()))
        .build()
        .expect("a gRPC exporter");
    let http = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(Duration::from_secs(10))
        .with_endpoint(format!("http://{}/v1/traces", fleet.agents[1].http()))
        .build()
        .expect("an HTTP exporter");
    let (front, back) = (provider("front", grpc), provider("back", http));
    let failed: Vec<[u8; 16]> = (0..20).map(|_| failing_request(&front, &back)).collect();
    (0..20).for_each(|_| ordinary_request(&front));
    // Flushing blocks its thread, and the exporters' requests need the others.
    tokio::task::spawn_blocking(move || {
        front.shutdown().expect("spans go out over gRPC");
        back.shutdown().expect("spans go out over HTTP");
    })
    .await
    .unwrap();
    fleet.stop();
    let traces = backend.traces();
    assert_eq!(traces.len(), failed.len(), "only failed requests are kept");
    for id in failed {
        let mut services: Vec<&str> = traces[&id[..]].iter().map(|(s, _)| s.as_str()).collect();
        services.sort_unstable();
        assert_eq!(services, ["back", "front"], "each trace is whole");
    }
}
