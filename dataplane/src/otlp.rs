//! The answer to an OTLP export request, read and written.

use bytes::Bytes;
use prost::Message;

use crate::transport::Reply;

/// `opentelemetry.proto.collector.trace.v1.ExportTraceServiceResponse`
#[derive(Clone, PartialEq, Eq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `opentelemetry.proto.collector.trace.v1.ExportTracePartialSuccess`
#[derive(Clone, PartialEq, Eq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// What to tell about spans with invalid trace IDs.
pub fn invalid_ids(spans: u64) -> String {
    format!(
        "{spans} spans have an invalid trace ID (not 16 bytes, or all zero); the others were taken"
    )
}

/// The answer to a request of which `invalid` spans were refused for their trace IDs.
pub fn export_reply(invalid: u64) -> Reply {
    if invalid == 0 {
        return Reply::default();
    }
    let partial_success = PartialSuccess {
        rejected_spans: i64::try_from(invalid).unwrap_or(i64::MAX),
        error_message: invalid_ids(invalid),
    };
    let response = ExportResponse { partial_success: Some(partial_success) };
    Reply { message: response.encode_to_vec().into() }
}

/// How many spans a backend says that it did not take, and its words. What cannot be read says nothing.
pub fn rejected_spans(response: Bytes) -> Option<(u64, String)> {
    let partial = ExportResponse::decode(response).ok()?.partial_success?;
    let rejected = u64::try_from(partial.rejected_spans).ok()?;
    (rejected > 0).then_some((rejected, partial.error_message))
}

/// The same of an answer in JSON, where 64 bits are text and a number is understood as well.
pub fn rejected_spans_json(response: &[u8]) -> Option<(u64, String)> {
    let response: serde_json::Value = serde_json::from_slice(response).ok()?;
    let partial = response.get("partialSuccess")?;
    let rejected = partial.get("rejectedSpans")?;
    let rejected = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok())?;
    let words = partial.get("errorMessage").and_then(serde_json::Value::as_str);
    (rejected > 0).then(|| (rejected, words.unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_success_is_what_it_says() {
        assert!(export_reply(0).message.is_empty());
        let (rejected, words) = rejected_spans(export_reply(3).message).unwrap();
        assert_eq!(rejected, 3);
        assert!(words.starts_with("3 spans have an invalid trace ID"), "{words}");
        assert_eq!(rejected_spans(Bytes::new()), None);
        assert_eq!(rejected_spans(Bytes::from_static(b"\xff")), None);
    }

    #[test]
    fn partial_success_in_json_is_what_it_says() {
        let read = |text: &str| rejected_spans_json(text.as_bytes());
        let words = ("no".to_owned(), 3);
        for number in ["\"3\"", "3"] {
            let text =
                format!(r#"{{"partialSuccess":{{"rejectedSpans":{number},"errorMessage":"no"}}}}"#);
            assert_eq!(read(&text), Some((words.1, words.0.clone())), "{text}");
        }
        let nothing =
            ["", "{}", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":{"rejectedSpans":"0"}}"#];
        for text in nothing {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
