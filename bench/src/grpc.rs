//! What generator and sink need to know of gRPC: paths, prefixes, encodings, status codes.
//!
//! They do not share the product's transport, so that a fault there cannot hide on both ends at once.

use std::io::Read;
use std::time::Duration;

use base64::Engine as _;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use ringtail_engine::wire::{Reader, Value};

use crate::failure::{Doing, Failure, Result};
use crate::template::PREFIX_LEN;

/// Where OTLP traces go.
pub const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// HTTP/2 windows that never stop a bench: 4 MiB a stream, 16 MiB a connection, frames of 1 MiB.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
pub(crate) const FRAME_SIZE: u32 = 1 << 20;

/// A message may inflate to this much: larger ones come from a broken peer, not from this load.
const INFLATED_MAX: u64 = 256 << 20;

/// The status codes that this crate tells apart.
pub mod code {
    /// Done.
    pub const OK: u32 = 0;
    /// The message makes no sense.
    pub const INVALID_ARGUMENT: u32 = 3;
    /// Overload; may be sent again only if the answer says when.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// No such method here.
    pub const UNIMPLEMENTED: u32 = 12;
    /// Not now; may be sent again.
    pub const UNAVAILABLE: u32 = 14;
    /// What OTLP lets clients send again: CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE,
    /// DATA_LOSS.
    pub const RETRYABLE: [u32; 6] = [1, 4, 10, 11, UNAVAILABLE, 15];
}

/// How a message is compressed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// As the `grpc-encoding` header spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The encoding that a message's headers name.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        match headers.get("grpc-encoding").map(|value| value.as_bytes()) {
            None | Some(b"identity") => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(b"zstd") => Ok(Self::Zstd),
            Some(other) => Err(Failure::new(format!(
                "grpc-encoding {:?} is none of identity, gzip, zstd",
                String::from_utf8_lossy(other)
            ))),
        }
    }
}

/// The payload of the only message in `body`, inflated.
pub fn unframe(body: &Bytes, encoding: Encoding) -> Result<Bytes> {
    let prefix = body.get(..PREFIX_LEN).ok_or_else(|| Failure::new("a message without prefix"))?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if body.len() != PREFIX_LEN + length {
        return Err(Failure::new(format!(
            "a body of {} bytes that announces {length}: this bench takes one message a call",
            body.len()
        )));
    }
    let payload = body.slice(PREFIX_LEN..);
    if prefix[0] == 0 {
        return Ok(payload);
    }
    match encoding {
        Encoding::Identity => Ok(payload),
        Encoding::Gzip => inflate(flate2::read::MultiGzDecoder::new(&payload[..])),
        Encoding::Zstd => inflate(zstd::Decoder::new(&payload[..]).doing(|| "zstd".into())?),
    }
}

fn inflate(decoder: impl Read) -> Result<Bytes> {
    let mut inflated = Vec::new();
    decoder.take(INFLATED_MAX).read_to_end(&mut inflated).doing(|| "inflating a message".into())?;
    Ok(inflated.into())
}

/// A gRPC message whose payload is the gzip of `payload`.
pub fn frame_gzip(payload: &[u8], level: u32) -> Result<Bytes> {
    let mut encoder = flate2::read::GzEncoder::new(payload, flate2::Compression::new(level));
    let mut deflated = Vec::new();
    encoder.read_to_end(&mut deflated).doing(|| "compressing a request".into())?;
    let length = u32::try_from(deflated.len()).doing(|| "compressing a request".into())?;
    let mut message = BytesMut::with_capacity(PREFIX_LEN + deflated.len());
    message.put_u8(1);
    message.put_u32(length);
    message.put_slice(&deflated);
    Ok(message.freeze())
}

/// When a refusal may be tried again, if `grpc-status-details-bin` holds a `google.rpc.RetryInfo`.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let encoded = headers.get("grpc-status-details-bin")?.as_bytes();
    let unpadded = encoded.split(|byte| *byte == b'=').next()?;
    let status = base64::engine::general_purpose::STANDARD_NO_PAD.decode(unpadded).ok()?;
    // google.rpc.Status.details, each an Any {type_url, value}; RetryInfo.retry_delay is {seconds, nanos}.
    messages(&status, 3)
        .into_iter()
        .filter(|any| messages(any, 1).iter().any(|url| url.ends_with(b"google.rpc.RetryInfo")))
        .find_map(|any| {
            let info = messages(any, 2).into_iter().next()?;
            let delay = messages(info, 1).into_iter().next().unwrap_or_default();
            Some(Duration::from_secs(varint(delay, 1)) + Duration::from_nanos(varint(delay, 2)))
        })
}

/// How many spans the answer's `partial_success` rejects.
pub fn rejected_spans(answer: &[u8]) -> u64 {
    messages(answer, 1).iter().map(|partial| varint(partial, 1)).sum()
}

fn messages(bytes: &[u8], number: u32) -> Vec<&[u8]> {
    fields(bytes, number)
        .filter_map(|value| match value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        })
        .collect()
}

fn varint(bytes: &[u8], number: u32) -> u64 {
    fields(bytes, number)
        .filter_map(|value| match value {
            Value::Varint(value) => Some(value),
            _ => None,
        })
        .last()
        .unwrap_or_default()
}

fn fields(bytes: &[u8], number: u32) -> impl Iterator<Item = Value<'_>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || reader.next_field().ok().flatten())
        .filter(move |field| field.number == number)
        .map(|field| field.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_message_comes_back() {
        let payload = b"spans spans spans spans".repeat(100);
        let message = frame_gzip(&payload, 6).unwrap();
        assert!(message.len() < payload.len() / 4);
        assert_eq!(unframe(&message, Encoding::Gzip).unwrap(), payload);
        assert!(unframe(&message.slice(..20), Encoding::Gzip).is_err());
        assert!(unframe(&Bytes::from_static(b"abc"), Encoding::Gzip).is_err());
    }

    #[test]
    fn retry_info_is_read() {
        // Status {code: 8, details: [Any {type_url, RetryInfo {retry_delay {2 s, 500000000 ns}}}]}.
        let mut delay = vec![0x08, 2, 0x10];
        delay.extend([0x80, 0xca, 0xb5, 0xee, 0x01]);
        let info = [vec![0x0a, delay.len() as u8], delay].concat();
        let url = b"type.googleapis.com/google.rpc.RetryInfo";
        let any = [vec![0x0a, url.len() as u8], url.to_vec(), vec![0x12, info.len() as u8], info]
            .concat();
        let status = [vec![0x08, 8, 0x1a, any.len() as u8], any].concat();
        let mut headers = HeaderMap::new();
        let encoded = base64::engine::general_purpose::STANDARD.encode(&status);
        headers.insert("grpc-status-details-bin", encoded.parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_millis(2500)));
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn rejected_spans_are_read() {
        assert_eq!(rejected_spans(&[0x0a, 2, 0x08, 7]), 7);
        assert_eq!(rejected_spans(&[]), 0);
    }
}
