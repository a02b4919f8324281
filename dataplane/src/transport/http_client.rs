//! Calling an OTLP/HTTP server: one body out over HTTP/1.1, one answer back.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT};
use http::uri::{InvalidUri, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ringtail_crds::logs::Signal;
use tokio::net::TcpStream;

use super::client::{CallError, EndpointError, USER_AGENT_TEXT};
use super::compress::Encoding;
use super::link::ConnectError;
use super::pieces::Pieces;
use super::status::Status;
use super::trust::{self, Trust};
use super::wire::Wire;

/// Where OTLP/HTTP servers take spans.
const TRACES_PATH: &str = "/v1/traces";
/// The same of logs.
const LOGS_PATH: &str = "/v1/logs";
/// Largest answer that is read: a partial success, or an error with its words.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Of an answer in no known format so much is shown.
const SHOWN_BYTES_MAX: usize = 300;
/// Resolving, connecting and the handshake together have this long, as with gRPC.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is kept for so long: less than the minute after which servers and middleboxes let go.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// How spans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// Protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

/// A client of one OTLP/HTTP server, in the clear or in TLS.
#[derive(Debug)]
pub struct HttpClient {
    uri: Uri,
    client: legacy::Client<Connector, Full<Pieces>>,
}

/// Makes connections.
#[derive(Clone, Debug)]
struct Connector {
    address: Arc<str>,
    trust: Option<Arc<Trust>>,
}

/// A connection as hyper wants it.
struct Line(TokioIo<Wire>);

// === impl BodyFormat ===

impl BodyFormat {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// A path as it was written, unless it is the one of traces and something else is sent: then its end is the
/// other signal's.
fn path_of(path: &str, signal: Signal) -> String {
    let own = match signal {
        Signal::Traces => TRACES_PATH,
        Signal::Logs => LOGS_PATH,
    };
    if path.is_empty() {
        return own.to_owned();
    }
    let (plain, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    match plain.strip_suffix(TRACES_PATH) {
        Some(before) => format!("{before}{own}{query}"),
        None => path.to_owned(),
    }
}

// === impl HttpClient ===

impl HttpClient {
    /// A client of the server at `address` ("host:port"). Without a path it is that of the signal:
    /// `/v1/traces`, `/v1/logs`.
    ///
    /// # Errors
    /// When that is no address, or no path.
    pub fn new(
        address: &str,
        path: &str,
        signal: Signal,
        trust: Option<Arc<Trust>>,
    ) -> Result<Self, EndpointError> {
        let path = path_of(path, signal);
        let wrong = |reason: String| EndpointError::new(address, reason);
        let uri = Uri::builder()
            .scheme(if trust.is_some() { Scheme::HTTPS } else { Scheme::HTTP })
            .authority(address)
            .path_and_query(path)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let authority: Result<http::uri::Authority, InvalidUri> = address.parse();
        if authority.is_ok_and(|authority| authority.port_u16().is_none()) {
            return Err(wrong("it has no port".to_owned()));
        }
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(Connector { address: address.into(), trust });
        Ok(Self { uri, client })
    }

    /// Sends one body and waits for the one that answers it. `timeout` covers everything, connecting too.
    pub async fn post(
        &self,
        body: impl Into<Pieces>,
        format: BodyFormat,
        encoding: Encoding,
        headers: &HeaderMap,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let own = request.headers_mut();
        own.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        own.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_TEXT));
        if encoding != Encoding::Identity {
            own.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        }
        own.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(timeout)),
        }
    }

    async fn exchange(&self, request: Request<Full<Pieces>>) -> Result<Bytes, CallError> {
        let answer = self.client.request(request).await.map_err(|error| self.broken(&error))?;
        let (head, body) = answer.into_parts();
        let words = read(body).await;
        if head.status.is_success() {
            // An answer that breaks off after its status says that the spans were taken, and no more.
            return Ok(words.unwrap_or_default());
        }
        let words = words.unwrap_or_default();
        Err(CallError::Http {
            status: head.status,
            message: message(&head.headers, head.status, &words),
            retry_after: retry_after(&head.headers, SystemTime::now()),
        })
    }

    fn broken(&self, error: &legacy::Error) -> CallError {
        let connect = std::error::Error::source(error).filter(|_| error.is_connect());
        let Some(cause) = connect else {
            let told = in_full(error);
            return CallError::Transport(trust::hint(&told).unwrap_or(told));
        };
        let refused = cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        let endpoint = self.uri.authority().map_or("", |authority| authority.as_str());
        CallError::Connect(ConnectError {
            endpoint: endpoint.into(),
            detail: cause.to_string(),
            wait: Duration::ZERO,
            refused,
        })
    }
}

async fn read(body: Incoming) -> Option<Bytes> {
    Limited::new(body, ANSWER_BYTES_MAX).collect().await.ok().map(|body| body.to_bytes())
}

/// An error with its causes.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a server says of a request that it did not take.
fn message(headers: &HeaderMap, status: StatusCode, body: &[u8]) -> String {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let told = if kind.starts_with(b"application/x-protobuf") {
        Status::from_protobuf(body).map(|status| status.message)
    } else if kind.starts_with(b"application/json") {
        let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        json.and_then(|json| Some(json.get("message")?.as_str()?.to_owned()))
    } else {
        None
    };
    let told = told.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    let told = told.get(..told.floor_char_boundary(SHOWN_BYTES_MAX)).unwrap_or_default();
    let target = headers.get(LOCATION).and_then(|target| target.to_str().ok());
    match (status, target) {
        (StatusCode::NOT_FOUND, _) => {
            format!(
                "is the path of the endpoint right? It is {TRACES_PATH} or {LOGS_PATH} by default; {told}"
            )
        }
        (status, Some(target)) if status.is_redirection() => {
            format!("it redirects to {target}, which is not followed: write that as endpoint")
        }
        _ => told.to_owned(),
    }
}

/// The pause that a server asks for, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

// === impl Connector ===

impl tower::Service<Uri> for Connector {
    type Response = Line;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Line>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Self { address, trust } = self.clone();
        Box::pin(async move {
            let connecting = async {
                let stream = TcpStream::connect(&*address).await?;
                stream.set_nodelay(true)?;
                match trust {
                    Some(trust) => trust.connect(stream).await,
                    None => Ok(Wire::Plain(stream)),
                }
            };
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let late = || {
                let why = format!("no answer in {CONNECT_TIMEOUT:?}");
                io::Error::new(io::ErrorKind::TimedOut, why)
            };
            Ok(Line(TokioIo::new(connected.map_err(|_| late())??)))
        })
    }
}

// === impl Line ===

impl Connection for Line {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(context, pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_read_in_seconds_and_as_a_date() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers, now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Wed, 21 Oct 2015 07:30:00 GMT"), Some(Duration::from_secs(120)));
        assert_eq!(read("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn what_a_server_says_is_found_in_every_format() {
        let told = |kind: &'static str, body: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            message(&headers, StatusCode::BAD_REQUEST, body)
        };
        let status = Status {
            code: super::super::status::Code::InvalidArgument,
            message: "no".to_owned(),
            retry_after: None,
        };
        assert_eq!(told("application/x-protobuf", &status.to_protobuf()), "no");
        assert_eq!(told("application/json; charset=utf-8", br#"{"code":3,"message":"no"}"#), "no");
        assert_eq!(told("text/plain", b"no\n"), "no");
        assert_eq!(told("application/json", b"no"), "no");
        assert_eq!(told("text/html", "ä".repeat(400).as_bytes()).len(), SHOWN_BYTES_MAX);
        let found = message(&HeaderMap::new(), StatusCode::NOT_FOUND, b"");
        assert!(found.contains("/v1/traces"), "{found}");
    }
}
