//! An OTLP/gRPC backend that keeps what it gets and can be told to misbehave.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::http_backend::{Manner, SLOW};

/// A backend on a free loopback port, for as long as it is held.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    requests: Mutex<Vec<ExportTraceServiceRequest>>,
    logs: Mutex<Vec<ExportLogsServiceRequest>>,
    manner: Mutex<Manner>,
    reject_spans: AtomicU64,
    calls: AtomicU64,
}

struct Service(Arc<State>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let rejected = self.0.answer(request.metadata()).await?;
        self.0.requests.lock().unwrap().push(request.into_inner());
        let partial_success = (rejected > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: i64::try_from(rejected).unwrap(),
            error_message: "the test says so".to_owned(),
        });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let rejected = self.0.answer(request.metadata()).await?;
        self.0.logs.lock().unwrap().push(request.into_inner());
        let partial_success = (rejected > 0).then(|| ExportLogsPartialSuccess {
            rejected_log_records: i64::try_from(rejected).unwrap(),
            error_message: "the test says so".to_owned(),
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

// === impl State ===

impl State {
    /// How many spans or records of a request are rejected, if it is taken.
    async fn answer(&self, metadata: &MetadataMap) -> Result<u64, Status> {
        let call = self.calls.fetch_add(1, SeqCst);
        let manner = *self.manner.lock().unwrap();
        let rejected = self.reject_spans.swap(0, SeqCst);
        match manner {
            Manner::Well => Ok(rejected),
            Manner::HalfUnavailable if call % 2 == 1 => Ok(rejected),
            Manner::Unavailable | Manner::Later | Manner::HalfUnavailable => {
                Err(Status::unavailable("the test says so"))
            }
            Manner::Stalled => std::future::pending().await,
            Manner::Refusing => {
                let told = format!("refused: {:?}", metadata.clone().into_headers());
                Err(Status::invalid_argument(told))
            }
            Manner::AllButOne => Ok(1),
            Manner::Slow => {
                tokio::time::sleep(SLOW).await;
                Ok(rejected)
            }
        }
    }
}

// === impl Backend ===

impl Backend {
    /// Starts on a free port.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    /// Starts at `address`. It answers in gzip whatever it is sent in gzip, as grpc-go does.
    pub async fn start_at(address: SocketAddr) -> Self {
        let incoming = TcpIncoming::bind(address).expect("a port for the backend");
        let address = incoming.local_addr().unwrap();
        let state = Arc::new(State::default());
        let service = TraceServiceServer::new(Service(Arc::clone(&state)))
            .max_decoding_message_size(64 << 20)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip);
        let logs = LogsServiceServer::new(Service(Arc::clone(&state)))
            .max_decoding_message_size(64 << 20)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Gzip);
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service).add_service(logs);
            server.serve_with_incoming(incoming).await.expect("the backend serves");
        });
        Self { address, state, task }
    }

    /// From now on every request is answered UNAVAILABLE, or no longer.
    pub fn unavailable(&self, unavailable: bool) {
        self.behave(if unavailable { Manner::Unavailable } else { Manner::Well });
    }

    /// From now on it answers like this.
    pub fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    /// The next request is answered with so many rejected spans.
    pub fn reject_next(&self, spans: u64) {
        self.state.reject_spans.store(spans, SeqCst);
    }

    /// How many requests came.
    pub fn calls(&self) -> u64 {
        self.state.calls.load(SeqCst)
    }

    /// Every span received, by trace ID, each with the name of its service.
    pub fn traces(&self) -> HashMap<Vec<u8>, Vec<(String, Span)>> {
        let mut traces: HashMap<_, Vec<_>> = HashMap::new();
        for request in self.state.requests.lock().unwrap().iter() {
            for resource_spans in &request.resource_spans {
                let service = crate::traces::service_of(resource_spans);
                let spans = resource_spans.scope_spans.iter().flat_map(|scope| &scope.spans);
                for span in spans {
                    let trace = traces.entry(span.trace_id.clone()).or_default();
                    trace.push((service.clone(), span.clone()));
                }
            }
        }
        traces
    }

    /// Every request received, as it came.
    pub fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Every log request received, as it came.
    pub fn logs(&self) -> Vec<ExportLogsServiceRequest> {
        self.state.logs.lock().unwrap().clone()
    }

    /// Spans received.
    pub fn spans(&self) -> usize {
        self.traces().values().map(Vec::len).sum()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}
