//! The one place where wire status codes are chosen: refusals and replies become gRPC and OTLP/HTTP answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::compress::{ACCEPTED, InflateError};
use super::frame::{FrameError, framed};
use super::status::{Code, GRPC_STATUS, Status};
use crate::otlp;
use ringtail_crds::logs::Signal;

pub(super) const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
pub(super) const GRPC_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The pause we ask for when the memory budget is full: long enough for queues to move, short enough that
/// an SDK's own queue (2048 spans, exported every 5 s) does not overflow.
pub const OVERLOAD_PAUSE: Duration = Duration::from_secs(1);

/// An uncompressed frame of no bytes, which is what an `ExportTraceServiceResponse` without partial
/// success is.
const EMPTY_FRAME: Bytes = Bytes::from_static(&[0; 5]);

/// Why a call is refused. The text says what happened and what the sender can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request does not follow its format; sending it again would not help.
    #[error("{0}")]
    Malformed(String),
    /// The request is larger than allowed; sending it again would not help.
    #[error("{0}")]
    TooLarge(String),
    /// The request did not arrive in time.
    #[error("{0}")]
    TooSlow(String),
    /// The client or its connection gave up inside the body.
    #[error("{0}")]
    Aborted(String),
    /// There is no room now.
    #[error("{message}")]
    Overloaded {
        /// What is full.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The work cannot be done now.
    #[error("{message}")]
    Unavailable {
        /// What is missing.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Nothing here serves this path.
    #[error("{0}")]
    Unimplemented(String),
    /// Whoever asks has not shown that it may.
    #[error("{0}")]
    Forbidden(String),
    /// Whoever asks has shown no valid token.
    #[error("{0}")]
    Unauthenticated(String),
    /// The HTTP method is not POST.
    #[error("{0}")]
    NotPost(String),
    /// The content type is not one we take.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The content encoding is not one we take.
    #[error("{0}")]
    UnsupportedEncoding(String),
    /// Our own fault.
    #[error("{0}")]
    Internal(String),
}

/// What a handler answers: one protobuf message, without prefix, not compressed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The encoded message.
    pub message: Bytes,
}

/// The language an answer is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Grpc,
    Protobuf,
    Json,
    Text,
}

/// The body of an answer: at most one piece of data and the trailers.
#[derive(Debug, Default)]
pub(super) struct AnswerBody {
    data: Option<Bytes>,
    trailers: Option<Box<HeaderMap>>,
}

// === impl Refusal ===

impl Refusal {
    /// The memory budget is full: try again after [`OVERLOAD_PAUSE`].
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::Overloaded { message: message.into(), retry_after: OVERLOAD_PAUSE }
    }

    /// Every word for metrics.
    pub const REASONS: [&'static str; 13] = [
        "malformed",
        "too_large",
        "too_slow",
        "aborted",
        "overloaded",
        "unavailable",
        "unimplemented",
        "forbidden",
        "unauthenticated",
        "not_post",
        "media_type",
        "encoding",
        "internal",
    ];

    /// A word for metrics, one of [`Self::REASONS`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooLarge(_) => "too_large",
            Self::TooSlow(_) => "too_slow",
            Self::Aborted(_) => "aborted",
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable { .. } => "unavailable",
            Self::Unimplemented(_) => "unimplemented",
            Self::Forbidden(_) => "forbidden",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::NotPost(_) => "not_post",
            Self::UnsupportedMediaType(_) => "media_type",
            Self::UnsupportedEncoding(_) => "encoding",
            Self::Internal(_) => "internal",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                Some(*retry_after)
            }
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            // RESOURCE_EXHAUSTED without RetryInfo would say the same by the letter of OTLP, but several
            // SDKs retry it without looking for RetryInfo, for ever.
            Self::Malformed(_) | Self::TooLarge(_) | Self::UnsupportedMediaType(_) => {
                Code::InvalidArgument
            }
            Self::TooSlow(_) => Code::DeadlineExceeded,
            Self::Aborted(_) => Code::Cancelled,
            // OTLP: "to signal backpressure the server MUST return Unavailable and MAY supply RetryInfo".
            Self::Overloaded { .. } | Self::Unavailable { .. } => Code::Unavailable,
            Self::Unimplemented(_) | Self::NotPost(_) | Self::UnsupportedEncoding(_) => {
                Code::Unimplemented
            }
            // Not UNIMPLEMENTED: an agent would take that for a Collector, and send in the clear.
            Self::Forbidden(_) => Code::PermissionDenied,
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Internal(_) => Code::Internal,
        }
    }

    fn http_status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Aborted(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unimplemented(_) => StatusCode::NOT_FOUND,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::NotPost(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType(_) | Self::UnsupportedEncoding(_) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn status(&self) -> Status {
        Status { code: self.code(), message: self.to_string(), retry_after: self.retry_after() }
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        let message = error.to_string();
        match error {
            FrameError::Truncated | FrameError::Extra | FrameError::BadFlag(_) => {
                Self::Malformed(message)
            }
            FrameError::TooLarge { .. } => Self::TooLarge(message),
            FrameError::Overloaded(_) => Self::overloaded(message),
            FrameError::TooSlow => Self::TooSlow(message),
            FrameError::Broken(_) => Self::Aborted(message),
        }
    }
}

impl From<InflateError> for Refusal {
    fn from(error: InflateError) -> Self {
        let message = error.to_string();
        match error {
            InflateError::Malformed { .. } => Self::Malformed(message),
            InflateError::TooLarge { .. } => Self::TooLarge(message),
            InflateError::Overloaded(_) => Self::overloaded(message),
        }
    }
}

// === answers ===

/// The answer to a call that went well.
pub(super) fn accept(reply: Reply, form: Form, signal: Signal) -> Response<AnswerBody> {
    let mut answer = Response::default();
    if form == Form::Grpc {
        answer.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        let data = match reply.message.is_empty() {
            true => EMPTY_FRAME,
            false => framed(reply.message.len(), |out| out.extend_from_slice(&reply.message)),
        };
        *answer.body_mut() = AnswerBody { data: Some(data), trailers: Some(Box::new(trailers)) };
    } else if form == Form::Json {
        answer.headers_mut().insert(CONTENT_TYPE, JSON);
        *answer.body_mut() = AnswerBody::of(Bytes::from(otlp::json_reply(signal, &reply)));
    } else {
        answer.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
        *answer.body_mut() = AnswerBody::of(reply.message);
    }
    answer
}

/// The answer to a call that is refused.
pub(super) fn refuse(refusal: &Refusal, form: Form) -> Response<AnswerBody> {
    let status = refusal.status();
    let mut answer = Response::default();
    if form == Form::Grpc {
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        status.write_trailers(headers);
        if matches!(refusal, Refusal::UnsupportedEncoding(_)) {
            headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
        }
        return answer;
    }
    *answer.status_mut() = refusal.http_status();
    let headers = answer.headers_mut();
    if let Some(pause) = refusal.retry_after() {
        // Whole seconds, rounded up: 0 would invite an immediate retry.
        let seconds = pause.as_millis().div_ceil(1000).max(1);
        headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
    }
    match refusal {
        Refusal::Unauthenticated(_) => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        }
        Refusal::NotPost(_) => headers.insert(ALLOW, HeaderValue::from_static("POST")),
        Refusal::UnsupportedEncoding(_) => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED))
        }
        _ => None,
    };
    let (content_type, body) = match form {
        Form::Json => (JSON, json_status(&status)),
        Form::Text => (TEXT, format!("{}\n", status.message).into_bytes()),
        Form::Grpc | Form::Protobuf => (PROTOBUF, status.to_protobuf()),
    };
    headers.insert(CONTENT_TYPE, content_type);
    *answer.body_mut() = AnswerBody::of(Bytes::from(body));
    answer
}

fn json_status(status: &Status) -> Vec<u8> {
    serde_json::json!({ "code": status.code as u8, "message": status.message })
        .to_string()
        .into_bytes()
}

// === impl AnswerBody ===

impl AnswerBody {
    fn of(data: Bytes) -> Self {
        Self { data: Some(data).filter(|data| !data.is_empty()), trailers: None }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.data.take().map(Frame::data);
        let frame = data.or_else(|| self.trailers.take().map(|map| Frame::trailers(*map)));
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // An exact size becomes a content-length, which an answer with trailers must not have.
        match self.trailers {
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64)),
        }
    }
}
