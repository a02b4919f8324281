//! One call on the server side: from a request head to the handler and back to an answer.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderName, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use ringtail_crds::logs::Signal;
use ringtail_engine::json;
use ringtail_engine::scan::ScanLimits;
use tokio::sync::Semaphore;
use tokio::task::{spawn_blocking, yield_now};

use super::admission::{Admission, Permit};
use super::answer::{AnswerBody, Form, Refusal, Reply, accept, refuse};
use super::compress::{ACCEPTED, Encoding, Inflation};
use super::frame::{BodyReader, Message, Pace};
use super::guard::{Caller, Guard};
use super::limits::{
    CONVERT_HERE_BYTES, DISCARD_BYTES, MAX_INFLATIONS, MAX_JSON_BYTES, ServerLimits,
};
use crate::otlp::Malformed;
use crate::stats::Role;

pub(super) const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// What a server can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// OTLP traces.
    ExportTraces,
    /// OTLP metrics.
    ExportMetrics,
    /// OTLP logs.
    ExportLogs,
    /// A peer introduces itself.
    Hello,
    /// A peer hands over spans.
    Deliver,
    /// A gateway tells how traces were decided.
    Decide,
    /// An agent asks a gateway what it has to know.
    Poll,
}

/// One request, read and inflated.
#[derive(Debug)]
pub struct Call {
    /// What is asked for.
    pub method: Method,
    /// The protobuf message.
    pub message: Bytes,
    /// The charge for `message`; it may be larger than the message, never smaller.
    pub permit: Permit,
    /// What is not in `message`, because it could not be read as JSON.
    pub left_out: Malformed,
    /// Bytes of the message as it arrived, before inflating.
    pub wire_bytes: u64,
    /// Who asks.
    pub peer: Peer,
}

/// Who asks, as far as the connection tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// The tier that its certificate names, where there is TLS.
    pub certified: Option<Role>,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

/// What a role does with calls.
///
/// The future of `handle` is dropped when the client goes away or cancels, at whichever await it stands:
/// work that must not be cut in half has to be done without an await in between, or in a task of its own.
pub trait Handler: Send + Sync + 'static {
    /// Whether calls of this method are taken at all, asked before a byte of the body is read. The
    /// default takes traces only.
    fn admits(&self, method: Method) -> Result<(), Refusal> {
        match method {
            Method::ExportTraces => Ok(()),
            other => Err(other.unserved()),
        }
    }

    /// Does the work.
    fn handle(&self, call: Call) -> impl Future<Output = Result<Reply, Refusal>> + Send;

    /// Told of every call that ends in a refusal, whoever refused it, to be counted. `method` is `None`
    /// when the path names nothing we know.
    fn refused(&self, method: Option<Method>, refusal: &Refusal) {
        let _ = (method, refusal);
    }
}

/// A role that listens on several ports shares its handler among them.
impl<H: Handler> Handler for Arc<H> {
    fn admits(&self, method: Method) -> Result<(), Refusal> {
        H::admits(self, method)
    }

    fn handle(&self, call: Call) -> impl Future<Output = Result<Reply, Refusal>> + Send {
        H::handle(self, call)
    }

    fn refused(&self, method: Option<Method>, refusal: &Refusal) {
        H::refused(self, method, refusal);
    }
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2 with prior knowledge.
    Grpc,
    /// OTLP/HTTP over HTTP/1.1 or HTTP/2.
    Http,
}

/// All that calls of one listener share.
#[derive(Debug)]
pub(super) struct Desk<H> {
    pub(super) protocol: Protocol,
    pub(super) limits: ServerLimits,
    pub(super) admission: Admission,
    pub(super) handler: H,
    pub(super) guard: Guard,
    inflations: Arc<Semaphore>,
}

// === impl Method ===

impl Method {
    /// All methods.
    pub const ALL: [Method; 7] = [
        Method::ExportTraces,
        Method::ExportMetrics,
        Method::ExportLogs,
        Method::Hello,
        Method::Deliver,
        Method::Decide,
        Method::Poll,
    ];

    /// The path of the method over gRPC.
    pub const fn path(self) -> &'static str {
        match self {
            Method::ExportTraces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Method::ExportMetrics => {
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            }
            Method::ExportLogs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Method::Hello => "/ringtail.peer.v1.Peer/Hello",
            Method::Deliver => "/ringtail.peer.v1.Peer/Deliver",
            Method::Decide => "/ringtail.peer.v1.Peer/Decide",
            Method::Poll => "/ringtail.peer.v1.Peer/Poll",
        }
    }

    /// The path of the method over OTLP/HTTP, which has none for peers.
    pub const fn http_path(self) -> Option<&'static str> {
        match self {
            Method::ExportTraces => Some("/v1/traces"),
            Method::ExportMetrics => Some("/v1/metrics"),
            Method::ExportLogs => Some("/v1/logs"),
            Method::Hello | Method::Deliver | Method::Decide | Method::Poll => None,
        }
    }

    /// The refusal of a method that this server does not serve.
    pub fn unserved(self) -> Refusal {
        let what = match self {
            Method::ExportTraces => "traces are not taken here; send them to a Ringtail agent",
            Method::ExportMetrics => {
                "metrics are not taken here; point the metrics exporter at a Collector or \
                 set OTEL_METRICS_EXPORTER=none"
            }
            Method::ExportLogs => {
                "logs are not taken here; point the logs exporter at a Collector or \
                 set OTEL_LOGS_EXPORTER=none"
            }
            Method::Hello | Method::Deliver | Method::Decide | Method::Poll => {
                "this server does not speak the peer protocol; send OTLP instead"
            }
        };
        Refusal::Unimplemented(what.to_owned())
    }

    fn of_grpc(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.path() == path)
    }

    fn of_http(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.http_path() == Some(path))
    }
}

// === impl Desk ===

impl<H: Handler> Desk<H> {
    pub(super) fn new(
        protocol: Protocol,
        limits: ServerLimits,
        admission: Admission,
        handler: H,
        guard: Guard,
    ) -> Self {
        let inflations = Arc::new(Semaphore::new(MAX_INFLATIONS));
        Self { protocol, limits, admission, handler, guard, inflations }
    }

    /// Takes one request to its answer.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller,
    ) -> Response<AnswerBody> {
        let form = form_of(request.headers());
        let method = match self.protocol {
            Protocol::Grpc => Method::of_grpc(request.uri().path()),
            Protocol::Http => Method::of_http(request.uri().path()),
        };
        let result = match self.protocol {
            Protocol::Grpc => self.grpc(request, method, form, caller).await,
            Protocol::Http => self.http(request, method, form, caller).await,
        };
        match result {
            Ok(reply) => {
                let is_logs = method == Some(Method::ExportLogs);
                accept(reply, form, if is_logs { Signal::Logs } else { Signal::Traces })
            }
            Err(refusal) => {
                self.guard.tally.refuse(&refusal);
                self.handler.refused(method, &refusal);
                refuse(&refusal, form)
            }
        }
    }

    async fn grpc(
        &self,
        request: Request<Incoming>,
        method: Option<Method>,
        form: Form,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        if form != Form::Grpc {
            let text = "this port speaks gRPC; send OTLP/HTTP to the OTLP/HTTP port (4318)";
            return Err(Refusal::UnsupportedMediaType(text.to_owned()));
        }
        let method = method.ok_or_else(|| unknown_path(request.uri().path()))?;
        self.let_in(request.headers(), caller)?;
        self.handler.admits(method)?;
        let encoding = encoding_of(request.headers(), GRPC_ENCODING)?;
        let mut body = BodyReader::new(request.into_body(), self.pace());
        let message = body.message(self.limits.max_wire_bytes, &caller.admission).await?;
        let Some(Message { compressed, payload, permit }) = message else {
            let text = "the call has no message; send exactly one";
            return Err(Refusal::Malformed(text.to_owned()));
        };
        let encoding = match (compressed, encoding) {
            (false, _) => Encoding::Identity,
            (true, Encoding::Identity) => {
                let text = "the message is flagged as compressed but grpc-encoding is missing";
                return Err(Refusal::Malformed(text.to_owned()));
            }
            (true, encoding) => encoding,
        };
        let message = Message { payload, permit, compressed };
        self.hand_over(method, encoding, message, form, caller.peer).await
    }

    async fn http(
        &self,
        request: Request<Incoming>,
        method: Option<Method>,
        form: Form,
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let head = self.check_http(&request, method, form, caller);
        let lingers = must_be_read(&request);
        let declared = request.body().size_hint().exact();
        let mut body = BodyReader::new(request.into_body(), self.pace());
        let read = match head {
            Err(refusal) => Err(refusal),
            Ok(head) => body
                .whole(declared, self.limits.max_wire_bytes, &caller.admission)
                .await
                .map(|read| (head, read))
                .map_err(Refusal::from),
        };
        match read {
            Ok(((method, encoding), (payload, permit))) => {
                let message = Message { payload, permit, compressed: false };
                self.hand_over(method, encoding, message, form, caller.peer).await
            }
            Err(refusal) => {
                if lingers && !matches!(refusal, Refusal::TooSlow(_) | Refusal::Aborted(_)) {
                    body.discard(DISCARD_BYTES).await;
                }
                Err(refusal)
            }
        }
    }

    fn check_http(
        &self,
        request: &Request<Incoming>,
        method: Option<Method>,
        form: Form,
        caller: &Caller,
    ) -> Result<(Method, Encoding), Refusal> {
        if form == Form::Grpc {
            let text = "this port speaks OTLP/HTTP; send gRPC to the OTLP/gRPC port (4317)";
            return Err(Refusal::Unimplemented(text.to_owned()));
        }
        let method = method.ok_or_else(|| unknown_path(request.uri().path()))?;
        if request.method() != http::Method::POST {
            let text = format!("{} takes POST only", request.uri().path());
            return Err(Refusal::NotPost(text));
        }
        self.let_in(request.headers(), caller)?;
        self.handler.admits(method)?;
        if !matches!(form, Form::Protobuf | Form::Json) {
            let text = "only application/x-protobuf and application/json are taken here; \
                        set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf or use OTLP/gRPC";
            return Err(Refusal::UnsupportedMediaType(text.to_owned()));
        }
        Ok((method, encoding_of(request.headers(), CONTENT_ENCODING)?))
    }

    /// Who may ask for anything at all. Looked at before a byte of the body is read.
    fn let_in(&self, headers: &HeaderMap, caller: &Caller) -> Result<(), Refusal> {
        if caller.misplaced {
            let text =
                "this port speaks TLS; use an https:// endpoint (OTEL_EXPORTER_OTLP_ENDPOINT)";
            return Err(Refusal::Forbidden(text.to_owned()));
        }
        match &self.guard.tokens {
            Some(tokens) => tokens.check(headers),
            None => Ok(()),
        }
    }

    async fn hand_over(
        &self,
        method: Method,
        encoding: Encoding,
        message: Message,
        form: Form,
        peer: Peer,
    ) -> Result<Reply, Refusal> {
        let Message { payload, permit, .. } = message;
        let wire_bytes = payload.len() as u64;
        let (message, permit) = match encoding {
            Encoding::Identity => (payload, permit),
            _ => self.inflate(encoding, payload, permit).await?,
        };
        let (message, permit, left_out) = match form {
            Form::Json => self.convert(method, message, permit).await?,
            _ => (message, permit, Malformed::default()),
        };
        self.handler.handle(Call { method, message, permit, left_out, wire_bytes, peer }).await
    }

    /// From JSON to the wire format. Large bodies take their turn on a thread of their own: nothing else
    /// would be served meanwhile. Who goes away does not end that work, so its charge goes with it.
    async fn convert(
        &self,
        method: Method,
        text: Bytes,
        mut permit: Permit,
    ) -> Result<(Bytes, Permit, Malformed), Refusal> {
        let length = text.len() as u64;
        if length > MAX_JSON_BYTES {
            let text = format!(
                "the JSON has {length} bytes, {MAX_JSON_BYTES} are allowed; send smaller batches"
            );
            return Err(Refusal::TooLarge(text));
        }
        permit.grow(length).map_err(|full| Refusal::overloaded(full.to_string()))?;
        let read = if method == Method::ExportLogs { json::logs } else { json::traces };
        let convert = move || {
            let converted = read(&text, &ScanLimits::default());
            drop(text);
            permit.shrink(length);
            (converted, permit)
        };
        let (converted, permit) = if length <= CONVERT_HERE_BYTES {
            convert()
        } else {
            let turn = Arc::clone(&self.inflations).acquire_owned().await;
            let work = move || (convert(), turn);
            let done = spawn_blocking(work).await;
            done.map_err(|_| Refusal::Internal("the conversion from JSON ended".to_owned()))?.0
        };
        let converted = converted.map_err(|error| Refusal::Malformed(error.to_string()))?;
        let mut left_out = Malformed::default();
        if let Some(why) = converted.why {
            left_out.add(converted.left_out, why.to_string());
        }
        Ok((Bytes::from(converted.wire), permit, left_out))
    }

    /// Inflates in steps, so that one large body does not keep a thread from its other connections.
    async fn inflate(
        &self,
        encoding: Encoding,
        payload: Bytes,
        mut permit: Permit,
    ) -> Result<(Bytes, Permit), Refusal> {
        let limit = usize::try_from(self.limits.max_message_bytes).unwrap_or(usize::MAX);
        // Closing the semaphore is nobody's business, so this always gets its turn.
        let _turn = self.inflations.acquire().await;
        let mut inflation = Inflation::new(encoding, &payload, limit)?;
        while !inflation.step(&mut permit)? {
            yield_now().await;
        }
        let message = Bytes::from(inflation.finish());
        // The compressed bytes are gone once `payload` is.
        permit.shrink(payload.len() as u64);
        Ok((message, permit))
    }

    fn pace(&self) -> Pace {
        Pace { progress: self.limits.progress_timeout, whole: self.limits.body_timeout }
    }
}

/// Whether a client that is refused reads the answer only when its body has been read.
fn must_be_read(request: &Request<Incoming>) -> bool {
    // HTTP/2 resets the one stream, and who sends `expect: 100-continue` has not sent the body yet.
    request.version() < Version::HTTP_2 && !request.headers().contains_key(EXPECT)
}

/// The language to answer in, which is the one asked in.
fn form_of(headers: &HeaderMap) -> Form {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Form::Text;
    };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/x-protobuf") {
        Form::Protobuf
    } else if essence.eq_ignore_ascii_case(b"application/json") {
        Form::Json
    } else if essence == b"application/grpc" || essence.starts_with(b"application/grpc+proto") {
        Form::Grpc
    } else {
        Form::Text
    }
}

fn encoding_of(headers: &HeaderMap, name: HeaderName) -> Result<Encoding, Refusal> {
    let Some(value) = headers.get(name) else {
        return Ok(Encoding::Identity);
    };
    Encoding::from_name(value.as_bytes().trim_ascii()).ok_or_else(|| {
        let given = String::from_utf8_lossy(value.as_bytes());
        let text = format!("the compression {given:.32?} is not supported; use one of {ACCEPTED}");
        Refusal::UnsupportedEncoding(text)
    })
}

fn unknown_path(path: &str) -> Refusal {
    let text = format!(
        "nothing is served at {path:.100}; OTLP traces go to {} over gRPC, /v1/traces over HTTP",
        Method::ExportTraces.path()
    );
    Refusal::Unimplemented(text)
}
