//! Calling a gRPC server: one finished frame out, one message back.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;

use super::admission::Admission;
use super::answer::{GRPC_ACCEPT_ENCODING, GRPC_CONTENT_TYPE};
use super::call::{GRPC_ENCODING, Method};
use super::compress::{ACCEPTED, Encoding, inflate};
use super::frame::{BodyReader, FrameError, Message, Pace};
use super::keyring::Keyring;
use super::limits::{CONNECTION_WINDOW_BYTES, MAX_FRAME_BYTES, STREAM_WINDOW_BYTES};
use super::link::{ConnectError, Link, Security};
use super::pieces::Pieces;
use super::status::{Code, Status};
use super::trust::{self, Trust};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Largest answer. Export answers carry an error text at most, peers' answers a few bytes a piece.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// Answers of one client in memory at a time: what 16 of the largest take.
const ANSWERS_BYTES: u64 = 16 * MAX_ANSWER_BYTES;

/// How a client connects.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Connections to the server; calls take turns on them. One carries some 0.5 cores' worth of sending.
    pub connections: usize,
    /// Resolving, connecting and the handshake together have this long.
    pub connect_timeout: Duration,
    /// The first pause after a failed attempt is at most this long.
    pub backoff_first: Duration,
    /// Pauses grow up to this.
    pub backoff_cap: Duration,
    /// HTTP/2 window of a stream.
    pub stream_window_bytes: u32,
    /// HTTP/2 window of a connection.
    pub connection_window_bytes: u32,
    /// Largest HTTP/2 frame.
    pub max_frame_bytes: u32,
    /// Bytes of one call that wait in the connection's send buffer.
    pub send_buffer_bytes: usize,
    /// A silent connection is pinged after this long.
    pub keepalive_interval: Duration,
    /// A ping has this long to be answered.
    pub keepalive_timeout: Duration,
}

/// A client of one server over HTTP/2 with prior knowledge, in the clear or with a keyring in TLS.
#[derive(Debug)]
pub struct Client {
    scheme: Scheme,
    authority: Authority,
    links: Vec<Link>,
    turn: AtomicUsize,
    answers: Admission,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection or the stream broke, or what came back is not gRPC. Whether the server did the work
    /// is not known.
    #[error("the call broke: {0}")]
    Transport(String),
    /// No answer in time. Whether the server did the work is not known.
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    /// The server answered with a status other than OK.
    #[error("the server answered {code:?}: {message}")]
    Status {
        /// The code.
        code: Code,
        /// The server's words.
        message: String,
        /// The pause it asks for before a retry.
        retry_after: Option<Duration>,
    },
    /// The server answered over HTTP with a status that is no success.
    #[error("the server answered {status}: {message}")]
    Http {
        /// The status.
        status: StatusCode,
        /// The server's words.
        message: String,
        /// The pause it asks for before a retry.
        retry_after: Option<Duration>,
    },
}

/// The endpoint is not "host:port".
#[derive(Debug, thiserror::Error)]
#[error("{endpoint:?} is not an endpoint: {reason}; write host:port, for example gateway:4317")]
pub struct EndpointError {
    endpoint: String,
    reason: String,
}

// === impl ClientLimits ===

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: 1,
            connect_timeout: Duration::from_secs(5),
            backoff_first: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(5),
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            max_frame_bytes: MAX_FRAME_BYTES,
            send_buffer_bytes: MAX_FRAME_BYTES as usize,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

// === impl Client ===

impl Client {
    /// A client of `endpoint` ("host:port"), which connects at its first call. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// When it is no endpoint.
    pub fn new(endpoint: &str, limits: &ClientLimits) -> Result<Self, EndpointError> {
        Self::with_keyring(endpoint, limits, None)
    }

    /// A client of a gateway, which speaks TLS if there is a keyring. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When it is no endpoint.
    pub fn with_keyring(
        endpoint: &str,
        limits: &ClientLimits,
        keyring: Option<&Arc<Keyring>>,
    ) -> Result<Self, EndpointError> {
        let security = keyring.cloned().map_or(Security::Plain, Security::Peers);
        Self::secured(endpoint, limits, &security)
    }

    /// A client of a server that is not of the fleet, in TLS if there is something to trust. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// When it is no endpoint.
    pub fn with_trust(
        endpoint: &str,
        limits: &ClientLimits,
        trust: Option<Arc<Trust>>,
    ) -> Result<Self, EndpointError> {
        Self::secured(endpoint, limits, &trust.map_or(Security::Plain, Security::Server))
    }

    fn secured(
        endpoint: &str,
        limits: &ClientLimits,
        security: &Security,
    ) -> Result<Self, EndpointError> {
        let wrong = |reason: String| EndpointError::new(endpoint, reason);
        let authority: Authority =
            endpoint.parse().map_err(|error: InvalidUri| wrong(error.to_string()))?;
        if authority.port_u16().is_none() {
            return Err(wrong("it has no port".to_owned()));
        }
        let name: Arc<str> = Arc::from(endpoint);
        let link = || Link::new(Arc::clone(&name), limits.clone(), security.clone());
        // Proxies in front of backends compare the scheme with what they hear; peers always said http.
        let is_server = matches!(security, Security::Server(_));
        Ok(Self {
            scheme: if is_server { Scheme::HTTPS } else { Scheme::HTTP },
            authority,
            links: (0..limits.connections.max(1)).map(|_| link()).collect(),
            turn: AtomicUsize::new(0),
            answers: Admission::new(ANSWERS_BYTES),
        })
    }

    /// Sends one `frame` (see [`framed`](super::framed)), in one piece or in several, whose message is in
    /// `encoding`, and waits for the message that answers it. `metadata` is sent along; `timeout` covers
    /// everything, connecting too.
    pub async fn call(
        &self,
        method: Method,
        frame: impl Into<Pieces>,
        encoding: Encoding,
        metadata: &HeaderMap,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let calling = self.exchange(method, frame.into(), encoding, metadata, timeout);
        match tokio::time::timeout(timeout, calling).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(timeout)),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        frame: Pieces,
        encoding: Encoding,
        metadata: &HeaderMap,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let mut request = self.request(method, frame, encoding, timeout)?;
        request.headers_mut().extend(metadata.iter().map(|(k, v)| (k.clone(), v.clone())));
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(link) = self.links.get(turn % self.links.len().max(1)) else {
            return Err(CallError::Transport("the client has no connection".to_owned()));
        };
        let response = send(link, request).await?;
        self.read(response, timeout).await
    }

    fn request(
        &self,
        method: Method,
        frame: Pieces,
        encoding: Encoding,
        timeout: Duration,
    ) -> Result<Request<Full<Pieces>>, CallError> {
        let uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::from_static(method.path()))
            .build()
            .map_err(|error| CallError::Transport(error.to_string()))?;
        let mut request = Request::new(Full::new(frame));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_TEXT));
        headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
        headers.insert(GRPC_TIMEOUT, timeout_header(timeout));
        if encoding != Encoding::Identity {
            headers.insert(GRPC_ENCODING, HeaderValue::from_static(encoding.name()));
        }
        Ok(request)
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let (head, body) = response.into_parts();
        if let Some(status) = Status::from_trailers(&head.headers) {
            return Err(CallError::from(status));
        }
        if head.status != StatusCode::OK {
            return Err(not_grpc(head.status));
        }
        let encoding = head.headers.get(GRPC_ENCODING).map(|name| name.as_bytes());
        let encoding = encoding.map_or(Some(Encoding::Identity), Encoding::from_name);
        let mut body = BodyReader::new(body, Pace { progress: timeout, whole: timeout });
        let message = body.message(MAX_ANSWER_BYTES, &self.answers).await?;
        let status = body.trailers.as_ref().and_then(Status::from_trailers);
        let status = status.ok_or_else(|| broken("the answer has no grpc-status"))?;
        if status.code != Code::Ok {
            return Err(CallError::from(status));
        }
        let message = message.ok_or_else(|| broken("the answer has no message"))?;
        open(message, encoding)
    }
}

pub(super) const USER_AGENT_TEXT: &str = concat!("ringtail/", env!("CARGO_PKG_VERSION"));

/// Sends on the link's connection; a request that never left, because the connection had just ended, is
/// sent once more on the next one.
async fn send(
    link: &Link,
    request: Request<Full<Pieces>>,
) -> Result<Response<Incoming>, CallError> {
    let mut lease = link.lease().await?;
    let mut answer = lease.sender.try_send_request(request).await;
    if let Err(failed) = &mut answer
        && let Some(unsent) = failed.take_message()
    {
        lease = link.lease().await?;
        answer = lease.sender.try_send_request(unsent).await;
    }
    let answer = answer.map_err(|failed| {
        let told = in_full(&failed.into_error());
        CallError::Transport(trust::hint(&told).unwrap_or(told))
    })?;
    lease.answered();
    Ok(answer)
}

/// An error with its causes, which hyper leaves out of its own words.
pub(super) fn in_full(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The bytes of an answer, inflated if its server compressed it (grpc-go answers in the request's
/// compression).
fn open(message: Message, encoding: Option<Encoding>) -> Result<Bytes, CallError> {
    let Message { compressed, payload, mut permit } = message;
    match (compressed, encoding) {
        (false, _) => Ok(payload),
        (true, Some(encoding)) if encoding != Encoding::Identity => {
            let inflated = inflate(encoding, &payload, MAX_ANSWER_BYTES as usize, &mut permit);
            inflated.map(Bytes::from).map_err(|error| CallError::Transport(error.to_string()))
        }
        (true, _) => Err(broken("the answer is compressed in a way we did not offer")),
    }
}

fn timeout_header(timeout: Duration) -> HeaderValue {
    // At most eight digits are allowed: 99,999,999 ms are 27 hours.
    let millis = timeout.as_millis().clamp(1, 99_999_999);
    HeaderValue::try_from(format!("{millis}m")).unwrap_or(HeaderValue::from_static("99999999m"))
}

fn broken(text: &str) -> CallError {
    CallError::Transport(text.to_owned())
}

/// A proxy in between or a server of another kind answered.
fn not_grpc(status: StatusCode) -> CallError {
    CallError::Status {
        code: Code::from_http(status),
        message: format!("HTTP status {status} without grpc-status; is this a gRPC server?"),
        retry_after: None,
    }
}

// === impl EndpointError ===

impl EndpointError {
    pub(super) fn new(endpoint: &str, reason: String) -> Self {
        Self { endpoint: endpoint.to_owned(), reason }
    }
}

// === impl CallError ===

impl CallError {
    /// Whether OTLP lets the same request be sent again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Transport(_) | Self::Timeout(_) => true,
            Self::Http { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::Status { code, retry_after, .. } => match code {
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss => true,
                // Full for now, if it says when to come back; too large for ever, if not.
                Code::ResourceExhausted => retry_after.is_some(),
                _ => false,
            },
        }
    }

    /// The pause that the server, or our own back-off, asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Connect(error) => Some(error.wait),
            Self::Status { retry_after, .. } | Self::Http { retry_after, .. } => *retry_after,
            Self::Transport(_) | Self::Timeout(_) => None,
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let Status { code, message, retry_after } = status;
        match code {
            Code::Ok => broken("the server answered OK without a message"),
            _ => Self::Status { code, message, retry_after },
        }
    }
}

impl From<FrameError> for CallError {
    fn from(error: FrameError) -> Self {
        Self::Transport(error.to_string())
    }
}
