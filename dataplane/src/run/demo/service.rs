//! The services of the shop: each with an SDK, a resource and an exporter of its own, as real ones have.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Compression, Protocol, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use opentelemetry_sdk::trace::{BatchConfigBuilder, Sampler, SdkTracer, SdkTracerProvider};

use super::{AgentAddress, DemoError};

/// The SDK waits five seconds by default, which is longer than the demo lets gateways wait for a trace.
const BATCH_DELAY: Duration = Duration::from_millis(400);
/// Spans that wait for one export: a few hundred a second and service at most, for ten times the delay.
const QUEUE_SPANS: usize = 4_096;
/// What an SDK waits for an answer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A service of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceName {
    /// Takes requests.
    Frontend,
    /// Carts.
    Cart,
    /// Orders.
    Checkout,
    /// Money.
    Payment,
    /// Products and stock.
    Inventory,
    /// Parcels.
    Shipping,
}

/// How a service sends its spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Grpc,
    GrpcGzip,
    Http,
}

/// Who sends where, and how. Callers and callees sit on different agents, so that nearly every trace crosses
/// both.
const SERVICES: [(ServiceName, usize, Wire); 6] = [
    (ServiceName::Frontend, 0, Wire::Grpc),
    (ServiceName::Cart, 1, Wire::GrpcGzip),
    (ServiceName::Checkout, 0, Wire::Grpc),
    (ServiceName::Payment, 1, Wire::Http),
    (ServiceName::Inventory, 1, Wire::Grpc),
    (ServiceName::Shipping, 0, Wire::Http),
];

/// All services, ready to make spans.
#[derive(Debug)]
pub struct Services(BTreeMap<ServiceName, Service>);

#[derive(Debug)]
struct Service {
    agent: usize,
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

// === impl Services ===

impl Services {
    /// Starts the SDK of every service.
    pub fn start(agents: &[AgentAddress]) -> Result<Self, DemoError> {
        let start = |(name, agent, wire): &(ServiceName, usize, Wire)| {
            let address = agents.get(*agent).or(agents.first());
            let address = address.ok_or_else(|| DemoError::Agent("the fleet".to_owned()))?;
            Ok((*name, Service::start(*name, *agent, *wire, address)?))
        };
        SERVICES.iter().map(start).collect::<Result<_, DemoError>>().map(Self)
    }

    /// What makes the spans of a service.
    pub fn tracer(&self, name: ServiceName) -> &SdkTracer {
        &self.0[&name].tracer
    }

    /// Which agent a service sends to.
    pub fn agent(&self, name: ServiceName) -> usize {
        self.0[&name].agent
    }

    /// Exports what waits, and stops. Blocks: call it where blocking is allowed.
    ///
    /// Returns what the SDKs complain of.
    pub fn shutdown(&self) -> Vec<String> {
        let shutdown = |(name, service): (&ServiceName, &Service)| {
            let error = service.provider.shutdown().err()?;
            Some(format!("the SDK of {}: {error}", name.name()))
        };
        self.0.iter().filter_map(shutdown).collect()
    }
}

// === impl Service ===

impl Service {
    fn start(
        name: ServiceName,
        agent: usize,
        wire: Wire,
        address: &AgentAddress,
    ) -> Result<Self, DemoError> {
        let batches = BatchConfigBuilder::default()
            .with_scheduled_delay(BATCH_DELAY)
            .with_max_queue_size(QUEUE_SPANS)
            .build();
        let processor = BatchSpanProcessor::builder(exporter(wire, address)?, Tokio)
            .with_batch_config(batches)
            .build();
        let resource = Resource::builder_empty()
            .with_service_name(name.name())
            .with_attributes([
                KeyValue::new("service.namespace", "shop"),
                KeyValue::new("service.version", "1.4.2"),
                KeyValue::new("deployment.environment.name", "demo"),
                KeyValue::new("k8s.pod.name", format!("{}-5d9c7b6f4-x2x7k", name.name())),
                KeyValue::new("k8s.node.name", format!("node-{agent}")),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .with_span_processor(processor)
            .build();
        let tracer = provider.tracer("shop");
        Ok(Self { agent, provider, tracer })
    }
}

fn exporter(wire: Wire, address: &AgentAddress) -> Result<SpanExporter, DemoError> {
    let AgentAddress { grpc, http } = address;
    let built = match wire {
        Wire::Grpc => {
            let exporter = SpanExporter::builder().with_tonic().with_timeout(EXPORT_TIMEOUT);
            exporter.with_endpoint(format!("http://{grpc}")).build()
        }
        Wire::GrpcGzip => {
            let exporter = SpanExporter::builder().with_tonic().with_timeout(EXPORT_TIMEOUT);
            let exporter = exporter.with_compression(Compression::Gzip);
            exporter.with_endpoint(format!("http://{grpc}")).build()
        }
        Wire::Http => {
            let exporter = SpanExporter::builder().with_http().with_timeout(EXPORT_TIMEOUT);
            let exporter = exporter.with_protocol(Protocol::HttpBinary);
            exporter.with_endpoint(format!("http://{http}/v1/traces")).build()
        }
    };
    built.map_err(|error| DemoError::Exporter(error.to_string()))
}

impl ServiceName {
    /// Its `service.name`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frontend => "frontend",
            Self::Cart => "cart",
            Self::Checkout => "checkout",
            Self::Payment => "payment",
            Self::Inventory => "inventory",
            Self::Shipping => "shipping",
        }
    }
}
