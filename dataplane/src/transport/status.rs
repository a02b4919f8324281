//! gRPC statuses as they stand in trailers: codes, percent-encoded messages, `google.rpc.Status` with
//! `RetryInfo`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const RETRY_INFO_URL: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Bytes of a status message we send or keep: enough for a sentence or two that says what to do, and a
/// peer cannot make us log more.
const MAX_STATUS_TEXT: usize = 1024;

/// gRPC pads binary headers or does not, as it likes, and takes both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of the gRPC specification")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// A status with what OTLP needs of its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// What happened and what to do.
    pub message: String,
    /// The pause the server asks for: present only when a retry makes sense.
    pub retry_after: Option<Duration>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyDetail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyDetail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

// === impl Code ===

impl Code {
    const ALL: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// The code of a number; numbers nobody has defined are `Unknown`, as the gRPC specification asks.
    pub fn from_number(number: usize) -> Self {
        Self::ALL.get(number).copied().unwrap_or(Code::Unknown)
    }

    /// The code that the gRPC specification derives from an HTTP status without `grpc-status`.
    pub fn from_http(status: http::StatusCode) -> Self {
        match status.as_u16() {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        }
    }
}

// === impl Status ===

impl Status {
    /// Reads the status out of trailers (or the headers of a trailers-only answer), if they carry one.
    pub(super) fn from_trailers(trailers: &HeaderMap) -> Option<Self> {
        let number = trailers.get(GRPC_STATUS)?;
        let number = number.to_str().ok().and_then(|text| text.parse().ok());
        let code = number.map_or(Code::Unknown, Code::from_number);
        let message = trailers.get(GRPC_MESSAGE).map(|text| percent_decode(text.as_bytes()));
        let retry_after = trailers.get(GRPC_DETAILS).and_then(|text| retry_delay(text.as_bytes()));
        Some(Self { code, message: message.unwrap_or_default(), retry_after })
    }

    /// Writes the status into trailers.
    pub(super) fn write_trailers(&self, trailers: &mut HeaderMap) {
        trailers.insert(GRPC_STATUS, HeaderValue::from(self.code as u16));
        if let Ok(text) = HeaderValue::from_bytes(&percent_encode(clip(&self.message))) {
            trailers.insert(GRPC_MESSAGE, text);
        }
        if self.retry_after.is_some() {
            let details = BASE64.encode(self.to_protobuf());
            if let Ok(details) = HeaderValue::try_from(details) {
                trailers.insert(GRPC_DETAILS, details);
            }
        }
    }

    /// The status as a `google.rpc.Status` message, which is what OTLP/HTTP answers carry.
    pub(super) fn to_protobuf(&self) -> Vec<u8> {
        let details = self.retry_after.map(|pause| AnyDetail {
            type_url: RETRY_INFO_URL.to_owned(),
            value: RetryInfo { retry_delay: Some(Delay::from(pause)) }.encode_to_vec(),
        });
        let status = RpcStatus {
            code: self.code as i32,
            message: clip(&self.message).to_owned(),
            details: details.into_iter().collect(),
        };
        status.encode_to_vec()
    }
}

impl Status {
    /// Reads a `google.rpc.Status` message.
    pub(super) fn from_protobuf(bytes: &[u8]) -> Option<Self> {
        let RpcStatus { code, message, .. } = RpcStatus::decode(bytes).ok()?;
        let code = usize::try_from(code).map_or(Code::Unknown, Code::from_number);
        Some(Self { code, message: clip(&message).to_owned(), retry_after: None })
    }
}

impl From<Duration> for Delay {
    fn from(pause: Duration) -> Self {
        let seconds = i64::try_from(pause.as_secs()).unwrap_or(i64::MAX);
        let nanos = i32::try_from(pause.subsec_nanos()).unwrap_or(0);
        Self { seconds, nanos }
    }
}

/// The pause asked for in a `grpc-status-details-bin` value. Broken details are as good as none: the code
/// stands.
fn retry_delay(text: &[u8]) -> Option<Duration> {
    let bytes = BASE64.decode(text).ok()?;
    let status = RpcStatus::decode(bytes.as_slice()).ok()?;
    let detail = status.details.iter().find(|detail| detail.type_url == RETRY_INFO_URL)?;
    let delay = RetryInfo::decode(detail.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(seconds, nanos))
}

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_STATUS_TEXT)]
}

/// Printable ASCII without `%` stands as it is, everything else becomes `%XX`.
fn percent_encode(text: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte),
            _ => out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
    out
}

/// The reverse, which keeps what it cannot decode, because a mangled message is better than none.
fn percent_decode(text: &[u8]) -> String {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, hex(after.first()), hex(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => out.push(byte),
        }
    }
    clip(&String::from_utf8_lossy(&out)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_its_trailers() {
        let cases = [
            Status { code: Code::Unavailable, message: String::new(), retry_after: None },
            Status {
                code: Code::ResourceExhausted,
                message: "100 % full: größer\n".to_owned(),
                retry_after: Some(Duration::from_millis(1500)),
            },
            Status { code: Code::Ok, message: "%".to_owned(), retry_after: Some(Duration::ZERO) },
        ];
        for case in cases {
            let mut trailers = HeaderMap::new();
            case.write_trailers(&mut trailers);
            assert_eq!(Status::from_trailers(&trailers), Some(case));
        }
    }

    #[test]
    fn odd_trailers_are_read_as_far_as_they_go() {
        let read = |status: &'static str, message: &'static str, details: &'static str| {
            let mut trailers = HeaderMap::new();
            trailers.insert(GRPC_STATUS, HeaderValue::from_static(status));
            trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
            trailers.insert(GRPC_DETAILS, HeaderValue::from_static(details));
            Status::from_trailers(&trailers).unwrap()
        };
        let odd = read("99", "50%", "!!");
        assert_eq!(odd, Status { code: Code::Unknown, message: "50%".into(), retry_after: None });
        assert_eq!(read("8", "a%2", "").message, "a%2");
        assert_eq!(read("8", "%c3%A4", "").message, "ä");
        assert_eq!(Status::from_trailers(&HeaderMap::new()), None);
    }

    #[test]
    fn long_messages_are_clipped() {
        let status = Status { code: Code::Internal, message: "ä".repeat(4000), retry_after: None };
        let mut trailers = HeaderMap::new();
        status.write_trailers(&mut trailers);
        let read = Status::from_trailers(&trailers).unwrap();
        assert_eq!(read.message.len(), MAX_STATUS_TEXT);
    }
}
