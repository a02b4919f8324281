//! An OTLP export request, checked, and the answer to it, read and written.

use bytes::Bytes;
use prost::Message;
use ringtail_crds::logs::Signal;
use ringtail_engine::scan::{self, Records, ScanLimits, Shape};

use crate::transport::{Permit, Refusal, Reply};

/// `opentelemetry.proto.collector.trace.v1.ExportTraceServiceResponse`; that of logs is the same.
#[derive(Clone, PartialEq, Eq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `opentelemetry.proto.collector.trace.v1.ExportTracePartialSuccess`; of logs: `rejected_log_records`.
#[derive(Clone, PartialEq, Eq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// Spans of a request that are left out, because something in them is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Malformed {
    /// How many.
    pub spans: u64,
    /// What is wrong with the first of them.
    pub why: String,
}

/// A request that can be taken.
#[derive(Debug)]
pub struct Checked {
    /// On the wire, without malformed spans.
    pub request: Bytes,
    /// What is in it.
    pub shape: Shape,
    /// What is not.
    pub malformed: Malformed,
}

/// Checks a request of which `malformed` was left out before. What is wrong inside of single spans costs
/// these spans alone.
///
/// # Errors
/// When something else is wrong, no span is left, or there is no room to leave spans out.
pub fn check(
    request: Bytes,
    permit: &mut Permit,
    mut malformed: Malformed,
    limits: &ScanLimits,
) -> Result<Checked, Refusal> {
    let wrong = |error: scan::ScanError| Refusal::Malformed(error.to_string());
    let (request, shape) = match scan::check(&request, limits) {
        Ok(shape) => (request, shape),
        Err(error) => {
            let length = request.len() as u64;
            permit.grow(length).map_err(|full| Refusal::overloaded(full.to_string()))?;
            let mended = scan::mend(&request, limits).map_err(wrong)?;
            permit.shrink(length);
            if mended.left_out == 0 {
                return Err(wrong(error));
            }
            malformed.add(mended.left_out, mended.why.map_or_else(String::new, |e| e.to_string()));
            let request = Bytes::from(mended.request);
            let shape = scan::check(&request, limits).map_err(wrong)?;
            (request, shape)
        }
    };
    if malformed.spans > 0 && shape.spans == 0 && shape.invalid_ids == 0 {
        return Err(Refusal::Malformed(malformed.why));
    }
    Ok(Checked { request, shape, malformed })
}

/// A log request that can be taken.
#[derive(Debug)]
pub struct CheckedLogs {
    /// On the wire, without malformed records.
    pub request: Bytes,
    /// What is in it.
    pub records: Records,
    /// What is not.
    pub malformed: Malformed,
}

/// Checks a log request, as [`check`] does one of traces.
///
/// # Errors
/// When something outside of records is wrong, no record is left, or there is no room to leave some out.
pub fn check_logs(
    request: Bytes,
    permit: &mut Permit,
    mut malformed: Malformed,
    limits: &ScanLimits,
) -> Result<CheckedLogs, Refusal> {
    let told = |error: scan::ScanError| {
        error.to_string().replace("OTLP trace request", "OTLP log request")
    };
    let wrong = |error| Refusal::Malformed(told(error));
    let (request, records) = match scan::check_logs(&request, limits) {
        Ok(records) => (request, records),
        Err(error) => {
            let length = request.len() as u64;
            permit.grow(length).map_err(|full| Refusal::overloaded(full.to_string()))?;
            let mended = scan::mend_logs(&request, limits).map_err(wrong)?;
            permit.shrink(length);
            if mended.left_out == 0 {
                return Err(wrong(error));
            }
            malformed.add(mended.left_out, mended.why.map_or_else(String::new, told));
            let request = Bytes::from(mended.request);
            let records = scan::check_logs(&request, limits).map_err(wrong)?;
            (request, records)
        }
    };
    if malformed.spans > 0 && records.shape.spans == 0 {
        return Err(Refusal::Malformed(malformed.why));
    }
    Ok(CheckedLogs { request, records, malformed })
}

/// The answer to a log request of which some records were left out.
pub fn logs_reply(malformed: &Malformed) -> Reply {
    if malformed.spans == 0 {
        return Reply::default();
    }
    let partial_success = PartialSuccess {
        rejected_spans: i64::try_from(malformed.spans).unwrap_or(i64::MAX),
        error_message: format!("{} log records were left out: {}", malformed.spans, malformed.why),
    };
    let response = ExportResponse { partial_success: Some(partial_success) };
    Reply { message: response.encode_to_vec().into() }
}

impl Malformed {
    /// Counts more of them.
    pub fn add(&mut self, spans: u32, why: String) {
        if self.spans == 0 {
            self.why = why;
        }
        self.spans += u64::from(spans);
    }

    fn words(&self) -> String {
        format!("{} spans were left out: {}", self.spans, self.why)
    }
}

/// What to tell about spans with invalid trace IDs.
pub fn invalid_ids(spans: u64) -> String {
    format!(
        "{spans} spans have an invalid trace ID (not 16 bytes, or all zero); the others were taken"
    )
}

/// The answer to a request of which `invalid` spans were refused for their trace IDs, and others left out.
pub fn export_reply(invalid: u64, malformed: &Malformed) -> Reply {
    let words = match (invalid, malformed.spans) {
        (0, 0) => return Reply::default(),
        (_, 0) => invalid_ids(invalid),
        (0, _) => malformed.words(),
        _ => format!("{}; {}", invalid_ids(invalid), malformed.words()),
    };
    let partial_success = PartialSuccess {
        rejected_spans: i64::try_from(invalid + malformed.spans).unwrap_or(i64::MAX),
        error_message: words,
    };
    let response = ExportResponse { partial_success: Some(partial_success) };
    Reply { message: response.encode_to_vec().into() }
}

/// The same answer in OTLP/JSON.
pub fn json_reply(signal: Signal, reply: &Reply) -> Vec<u8> {
    match rejected(reply.message.clone()) {
        None => b"{}".to_vec(),
        Some((items, words)) => {
            // 64-bit integers are strings in JSON.
            let name = rejected_name(signal);
            let partial = serde_json::json!({ name: items.to_string(), "errorMessage": words });
            serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    }
}

const fn rejected_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Logs => "rejectedLogRecords",
    }
}

/// How many spans or records a backend says that it did not take, and its words. What cannot be read says
/// nothing.
pub fn rejected(response: Bytes) -> Option<(u64, String)> {
    let partial = ExportResponse::decode(response).ok()?.partial_success?;
    let rejected = u64::try_from(partial.rejected_spans).ok()?;
    (rejected > 0).then_some((rejected, partial.error_message))
}

/// The same of an answer in JSON, where 64 bits are text and a number is understood as well.
pub fn rejected_json(signal: Signal, response: &[u8]) -> Option<(u64, String)> {
    let response: serde_json::Value = serde_json::from_slice(response).ok()?;
    let partial = response.get("partialSuccess")?;
    let rejected = partial.get(rejected_name(signal))?;
    let rejected = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok())?;
    let words = partial.get("errorMessage").and_then(serde_json::Value::as_str);
    (rejected > 0).then(|| (rejected, words.unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_success_is_what_it_says() {
        let none = Malformed::default();
        assert!(export_reply(0, &none).message.is_empty());
        let (count, words) = rejected(export_reply(3, &none).message).unwrap();
        assert_eq!(count, 3);
        assert!(words.starts_with("3 spans have an invalid trace ID"), "{words}");
        let two = Malformed { spans: 2, why: "they are wrong".to_owned() };
        let both = export_reply(3, &two);
        let json = String::from_utf8(json_reply(Signal::Traces, &both)).unwrap();
        assert!(
            json.contains(r#""rejectedSpans":"5""#) && json.contains("they are wrong"),
            "{json}"
        );
        assert_eq!(json_reply(Signal::Logs, &Reply::default()), b"{}");
        assert_eq!(rejected(Bytes::new()), None);
        assert_eq!(rejected(Bytes::from_static(b"\xff")), None);
    }

    #[test]
    fn partial_success_in_json_is_what_it_says() {
        let read = |text: &str| rejected_json(Signal::Traces, text.as_bytes());
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
