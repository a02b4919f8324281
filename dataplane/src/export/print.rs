//! Kept spans in the log of the gateway, for people who look.
//!
//! What is printed goes to standard error, whatever the log's level is: who asks for it wants to see it.
//! Standard output belongs to the lines that programs read.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use ringtail_crds::exporter::Verbosity;
use ringtail_crds::logs::Signal;
use ringtail_crds::resolved::Debug;
use serde_json::Value;

use super::json;

/// Bytes printed in a second, once the first request of it has been: more is read by nobody, and a log that
/// is shipped costs money.
const BYTES_A_SECOND: usize = 1 << 20;
/// The window of the samples.
const WINDOW: Duration = Duration::from_secs(1);
/// What a span's line begins its attributes after.
const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];

/// Prints requests.
#[derive(Debug)]
pub(super) struct Printer {
    exporter: String,
    settings: Debug,
    window: Option<Instant>,
    requests: u32,
    bytes: usize,
}

// === impl Printer ===

impl Printer {
    pub(super) fn new(exporter: &str, settings: Debug) -> Self {
        Self { exporter: exporter.to_owned(), settings, window: None, requests: 0, bytes: 0 }
    }

    /// Prints a request, unless enough was printed in this second.
    pub(super) fn print(&mut self, signal: Signal, message: &[u8], items: u64) -> bool {
        let Some(text) = self.text(signal, message, items, Instant::now()) else { return false };
        // Whoever closed our standard error does not want to see it.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        true
    }

    fn text(&mut self, signal: Signal, message: &[u8], items: u64, now: Instant) -> Option<String> {
        if !self.is_due(now) {
            return None;
        }
        let exporter = &self.exporter;
        let what = signal.items();
        let mut text = format!("{exporter}: {items} {what}, {} bytes\n", message.len());
        if self.settings.verbosity != Verbosity::Basic {
            let json = json::request(signal, message);
            let read: Value = serde_json::from_slice(&json).unwrap_or_default();
            match self.settings.verbosity {
                Verbosity::Detailed => detail(&read, 1, &mut text),
                Verbosity::Basic | Verbosity::Normal => lines(&read, &mut text),
            }
        }
        self.bytes += text.len();
        Some(text)
    }

    fn is_due(&mut self, now: Instant) -> bool {
        if self.window.is_none_or(|start| now.duration_since(start) >= WINDOW) {
            (self.window, self.requests, self.bytes) = (Some(now), 0, 0);
        }
        let further = self.requests.checked_sub(self.settings.initial);
        self.requests = self.requests.saturating_add(1);
        let sampled = further.is_none_or(|n| (n + 1).is_multiple_of(self.settings.thereafter));
        sampled && self.bytes < BYTES_A_SECOND
    }
}

fn children<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A line for each span, and for each log record.
fn lines(request: &Value, text: &mut String) {
    for resource in children(request, "resourceLogs") {
        let of_resource = attributes(resource.get("resource").unwrap_or(&Value::Null));
        for scope in children(resource, "scopeLogs") {
            for record in children(scope, "logRecords") {
                record_line(record, &of_resource, text);
            }
        }
    }
    for resource in children(request, "resourceSpans") {
        let of_resource = attributes(resource.get("resource").unwrap_or(&Value::Null));
        for scope in children(resource, "scopeSpans") {
            for span in children(scope, "spans") {
                line(span, &of_resource, text);
            }
        }
    }
}

fn line(span: &Value, of_resource: &str, text: &mut String) {
    let nanos = |name| word(span, name).parse::<u64>().unwrap_or(0);
    let took = nanos("endTimeUnixNano").saturating_sub(nanos("startTimeUnixNano"));
    let kind = span.get("kind").and_then(Value::as_u64).unwrap_or(0);
    let kind = usize::try_from(kind).ok().and_then(|kind| KINDS.get(kind)).unwrap_or(&"?");
    let (trace, id) = (word(span, "traceId"), word(span, "spanId"));
    let (name, took) = (word(span, "name"), Duration::from_nanos(took));
    // Writing to a string does not fail.
    let _ = write!(text, "  {name:?} {kind} {took:?} trace={trace} span={id}");
    let status = span.get("status").unwrap_or(&Value::Null);
    match status.get("code").and_then(Value::as_u64) {
        Some(1) => text.push_str(" ok"),
        Some(2) => {
            let _ = write!(text, " error={:?}", word(status, "message"));
        }
        _ => {}
    }
    let _ = writeln!(text, "{of_resource}{}", attributes(span));
}

fn record_line(record: &Value, of_resource: &str, text: &mut String) {
    let severity = match word(record, "severityText") {
        "" => record.get("severityNumber").map_or_else(|| "-".to_owned(), Value::to_string),
        told => told.to_owned(),
    };
    let body = plain(record.get("body").unwrap_or(&Value::Null));
    // Writing to a string does not fail.
    let _ = write!(text, "  {severity} {body}");
    for (name, field) in [("trace", "traceId"), ("span", "spanId")] {
        if !word(record, field).is_empty() {
            let _ = write!(text, " {name}={}", word(record, field));
        }
    }
    let _ = writeln!(text, "{of_resource}{}", attributes(record));
}

fn attributes(of: &Value) -> String {
    let mut text = String::new();
    for attribute in children(of, "attributes") {
        let value = plain(attribute.get("value").unwrap_or(&Value::Null));
        let _ = write!(text, " {}={value}", word(attribute, "key"));
    }
    text
}

/// The value of an attribute without the name of its type.
fn plain(any: &Value) -> String {
    let Some((kind, value)) = any.as_object().and_then(|any| any.iter().next()) else {
        return "-".to_owned();
    };
    match (kind.as_str(), value) {
        ("intValue", Value::String(number)) => number.clone(),
        ("arrayValue", list) => {
            let items: Vec<String> = children(list, "values").map(plain).collect();
            format!("[{}]", items.join(", "))
        }
        ("kvlistValue", list) => {
            let pair = |pair: &Value| {
                let value = pair.get("value").unwrap_or(&Value::Null);
                format!("{}: {}", word(pair, "key"), plain(value))
            };
            let pairs: Vec<String> = children(list, "values").map(pair).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        (_, value) => value.to_string(),
    }
}

/// Everything, a line for each field, indented by depth.
fn detail(value: &Value, depth: usize, text: &mut String) {
    let Some(fields) = value.as_object() else { return };
    let indent = "  ".repeat(depth);
    for (name, field) in fields {
        match field {
            Value::Array(_) if name == "attributes" => {
                for attribute in children(value, "attributes") {
                    let of = plain(attribute.get("value").unwrap_or(&Value::Null));
                    let _ = writeln!(text, "{indent}{}: {of}", word(attribute, "key"));
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let _ = writeln!(text, "{indent}{name}[{index}]");
                    detail(item, depth + 1, text);
                }
            }
            Value::Object(_) => {
                let _ = writeln!(text, "{indent}{name}");
                detail(field, depth + 1, text);
            }
            Value::String(told) => {
                let _ = writeln!(text, "{indent}{name}: {told:?}");
            }
            other => {
                let _ = writeln!(text, "{indent}{name}: {other}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
