//! An OTLP/HTTP backend that keeps what it gets and can be told to misbehave, in the clear or in TLS.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

/// How long a slow one thinks about each request.
pub const SLOW: Duration = Duration::from_millis(300);

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// It takes everything.
    #[default]
    Well,
    /// 503 with Retry-After: 0.
    Unavailable,
    /// 503 with Retry-After: 3600, over gRPC without it.
    Later,
    /// 503 to every other request.
    HalfUnavailable,
    /// Never.
    Stalled,
    /// 400, with every header of the request in its words.
    Refusing,
    /// It takes all but one span of each request.
    AllButOne,
    /// It takes everything, each request in [`SLOW`].
    Slow,
}

/// A backend on a loopback port, for as long as it is held.
#[derive(Debug)]
pub struct HttpBackend {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    manner: Mutex<Manner>,
    calls: AtomicU64,
    /// Headers, path and decoded bodies of what it took.
    taken: Mutex<Vec<(HeaderMap, String, Taken)>>,
}

#[derive(Debug)]
enum Taken {
    Traces(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
}

// === impl HttpBackend ===

impl HttpBackend {
    /// Starts on a free port, in the clear.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), None).await
    }

    /// Starts at `address`, in TLS if there is something to show.
    pub async fn start_at(address: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, state).await,
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                                serve(stream, state).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, state, task }
    }

    /// From now on it answers like this.
    pub fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    /// How many requests came.
    pub fn calls(&self) -> u64 {
        self.state.calls.load(SeqCst)
    }

    /// Headers and path of every request that was taken.
    pub fn heads(&self) -> Vec<(HeaderMap, String)> {
        let taken = self.state.taken.lock().unwrap();
        taken.iter().map(|(headers, path, _)| (headers.clone(), path.clone())).collect()
    }

    /// Spans of each trace that were taken.
    pub fn traces(&self) -> HashMap<Vec<u8>, usize> {
        let mut traces: HashMap<_, usize> = HashMap::new();
        for (_, _, taken) in self.state.taken.lock().unwrap().iter() {
            let Taken::Traces(request) = taken else { continue };
            let scopes = request.resource_spans.iter().flat_map(|spans| &spans.scope_spans);
            for span in scopes.flat_map(|scope| &scope.spans) {
                *traces.entry(span.trace_id.clone()).or_default() += 1;
            }
        }
        traces
    }

    /// Every log request that was taken.
    pub fn logs(&self) -> Vec<ExportLogsServiceRequest> {
        let taken = self.state.taken.lock().unwrap();
        let logs = taken.iter().filter_map(|(_, _, taken)| match taken {
            Taken::Traces(_) => None,
            Taken::Logs(request) => Some(request.clone()),
        });
        logs.collect()
    }

    /// Spans taken.
    pub fn spans(&self) -> usize {
        self.traces().values().sum()
    }
}

impl Drop for HttpBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    state: Arc<State>,
) {
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(request, &state).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    // A client that goes away is no failure of the test.
    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let call = state.calls.fetch_add(1, SeqCst);
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return said(400, "a broken body") };
    let manner = *state.manner.lock().unwrap();
    let unavailable = matches!(manner, Manner::Unavailable | Manner::Later)
        || manner == Manner::HalfUnavailable && call.is_multiple_of(2);
    match manner {
        Manner::Stalled => std::future::pending().await,
        Manner::Slow => tokio::time::sleep(SLOW).await,
        _ => {}
    }
    if unavailable {
        let mut response = said(503, "the test says so");
        let pause = if manner == Manner::Later { "3600" } else { "0" };
        response.headers_mut().insert("retry-after", pause.parse().unwrap());
        return response;
    }
    if manner == Manner::Refusing {
        return said(
            400,
            &format!(
                "refused: {:?}",
                head.headers
                    .iter()
                    .map(|(name, value)| {
                        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
                    })
                    .collect::<Vec<_>>()
            ),
        );
    }
    let kind = head.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let is_json = kind.as_deref() == Some("application/json");
    let body = inflated(&head.headers, &body.to_bytes());
    let is_logs = head.uri.path().ends_with("/v1/logs");
    let decoded = match (is_logs, is_json) {
        (true, true) => serde_json::from_slice(&body).map(Taken::Logs).map_err(told),
        (false, true) => serde_json::from_slice(&body).map(Taken::Traces).map_err(told),
        (true, false) => Message::decode(body.as_slice()).map(Taken::Logs).map_err(told),
        (false, false) => Message::decode(body.as_slice()).map(Taken::Traces).map_err(told),
    };
    let request = match decoded {
        Ok(request) => request,
        Err(error) => return said(400, &error),
    };
    let path = head.uri.path().to_owned();
    state.taken.lock().unwrap().push((head.headers, path, request));
    let rejected = manner == Manner::AllButOne;
    let body = match (rejected, is_json) {
        (false, true) => b"{}".to_vec(),
        (false, false) => Vec::new(),
        (true, true) => br#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"no"}}"#.to_vec(),
        // partial_success {rejected_spans: 1, error_message: "no"}
        (true, false) => vec![0x0a, 6, 0x08, 1, 0x12, 2, b'n', b'o'],
    };
    Response::new(Full::new(body.into()))
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn said(status: u16, words: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(words.to_owned())));
    *response.status_mut() = status.try_into().unwrap();
    response
}

fn inflated(headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut out = Vec::new();
    match headers.get("content-encoding").map(|name| name.to_str().unwrap()) {
        None => out.extend_from_slice(body),
        Some("gzip") => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap()),
        Some("zstd") => out = zstd::stream::decode_all(body).unwrap(),
        Some(other) => panic!("content-encoding {other}"),
    }
    out
}
