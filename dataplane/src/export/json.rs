//! An OTLP request in protobuf, written as OTLP/JSON.
//!
//! A table says what each message has, and one walk over the bytes writes what is there: trace and span IDs
//! in hexadecimal digits, other bytes in base64, integers of 64 bits as text, enums as numbers. What OTLP
//! does not know is left out, as JSON has no place for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringtail_crds::logs::Signal;
use ringtail_engine::wire::{Reader, Value};

/// Messages inside each other. What is received is refused beyond 32; this only bounds the stack.
const DEPTH_MAX: u32 = 64;

/// How a field is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Hex,
    Base64,
    Bool,
    /// 64 bits with a sign.
    Int64,
    /// 64 bits without a sign.
    Uint64,
    /// An enum: 32 bits with a sign.
    Enum,
    /// 32 bits without a sign.
    Uint32,
    Double,
    Message(&'static Message),
    List(&'static Message),
    Texts,
}

/// Number, name and kind of each field.
struct Message {
    fields: &'static [(u32, &'static str, Kind)],
    /// At most one field is set: the last one.
    choice: bool,
}

const fn message(fields: &'static [(u32, &'static str, Kind)]) -> Message {
    Message { fields, choice: false }
}

static REQUEST: Message = message(&[(1, "resourceSpans", Kind::List(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Message = message(&[
    (1, "resource", Kind::Message(&RESOURCE)),
    (2, "scopeSpans", Kind::List(&SCOPE_SPANS)),
    (3, "schemaUrl", Kind::Text),
]);
static RESOURCE: Message = message(&[
    (1, "attributes", Kind::List(&KEY_VALUE)),
    (2, "droppedAttributesCount", Kind::Uint32),
    (3, "entityRefs", Kind::List(&ENTITY)),
]);
static ENTITY: Message = message(&[
    (1, "schemaUrl", Kind::Text),
    (2, "type", Kind::Text),
    (3, "idKeys", Kind::Texts),
    (4, "descriptionKeys", Kind::Texts),
]);
static SCOPE_SPANS: Message = message(&[
    (1, "scope", Kind::Message(&SCOPE)),
    (2, "spans", Kind::List(&SPAN)),
    (3, "schemaUrl", Kind::Text),
]);
static SCOPE: Message = message(&[
    (1, "name", Kind::Text),
    (2, "version", Kind::Text),
    (3, "attributes", Kind::List(&KEY_VALUE)),
    (4, "droppedAttributesCount", Kind::Uint32),
]);
static SPAN: Message = message(&[
    (1, "traceId", Kind::Hex),
    (2, "spanId", Kind::Hex),
    (3, "traceState", Kind::Text),
    (4, "parentSpanId", Kind::Hex),
    (16, "flags", Kind::Uint32),
    (5, "name", Kind::Text),
    (6, "kind", Kind::Enum),
    (7, "startTimeUnixNano", Kind::Uint64),
    (8, "endTimeUnixNano", Kind::Uint64),
    (9, "attributes", Kind::List(&KEY_VALUE)),
    (10, "droppedAttributesCount", Kind::Uint32),
    (11, "events", Kind::List(&EVENT)),
    (12, "droppedEventsCount", Kind::Uint32),
    (13, "links", Kind::List(&LINK)),
    (14, "droppedLinksCount", Kind::Uint32),
    (15, "status", Kind::Message(&STATUS)),
]);
static LOGS_REQUEST: Message = message(&[(1, "resourceLogs", Kind::List(&RESOURCE_LOGS))]);
static RESOURCE_LOGS: Message = message(&[
    (1, "resource", Kind::Message(&RESOURCE)),
    (2, "scopeLogs", Kind::List(&SCOPE_LOGS)),
    (3, "schemaUrl", Kind::Text),
]);
static SCOPE_LOGS: Message = message(&[
    (1, "scope", Kind::Message(&SCOPE)),
    (2, "logRecords", Kind::List(&LOG_RECORD)),
    (3, "schemaUrl", Kind::Text),
]);
static LOG_RECORD: Message = message(&[
    (1, "timeUnixNano", Kind::Uint64),
    (11, "observedTimeUnixNano", Kind::Uint64),
    (2, "severityNumber", Kind::Enum),
    (3, "severityText", Kind::Text),
    (5, "body", Kind::Message(&ANY_VALUE)),
    (6, "attributes", Kind::List(&KEY_VALUE)),
    (7, "droppedAttributesCount", Kind::Uint32),
    (8, "flags", Kind::Uint32),
    (9, "traceId", Kind::Hex),
    (10, "spanId", Kind::Hex),
    (12, "eventName", Kind::Text),
]);
static EVENT: Message = message(&[
    (1, "timeUnixNano", Kind::Uint64),
    (2, "name", Kind::Text),
    (3, "attributes", Kind::List(&KEY_VALUE)),
    (4, "droppedAttributesCount", Kind::Uint32),
]);
static LINK: Message = message(&[
    (1, "traceId", Kind::Hex),
    (2, "spanId", Kind::Hex),
    (3, "traceState", Kind::Text),
    (4, "attributes", Kind::List(&KEY_VALUE)),
    (5, "droppedAttributesCount", Kind::Uint32),
    (6, "flags", Kind::Uint32),
]);
static STATUS: Message = message(&[(2, "message", Kind::Text), (3, "code", Kind::Enum)]);
static KEY_VALUE: Message =
    message(&[(1, "key", Kind::Text), (2, "value", Kind::Message(&ANY_VALUE))]);
static ANY_VALUE: Message = Message {
    fields: &[
        (1, "stringValue", Kind::Text),
        (2, "boolValue", Kind::Bool),
        (3, "intValue", Kind::Int64),
        (4, "doubleValue", Kind::Double),
        (5, "arrayValue", Kind::Message(&ARRAY)),
        (6, "kvlistValue", Kind::Message(&KEY_VALUES)),
        (7, "bytesValue", Kind::Base64),
    ],
    choice: true,
};
static ARRAY: Message = message(&[(1, "values", Kind::List(&ANY_VALUE))]);
static KEY_VALUES: Message = message(&[(1, "values", Kind::List(&KEY_VALUE))]);

/// An export request as OTLP/JSON, without a line break in it.
pub(super) fn request(signal: Signal, message: &[u8]) -> Vec<u8> {
    let request = match signal {
        Signal::Traces => &REQUEST,
        Signal::Logs => &LOGS_REQUEST,
    };
    // Names and hexadecimal digits make it about twice as long.
    let mut out = Vec::with_capacity(message.len() * 2);
    write(request, &[message], DEPTH_MAX, &mut out);
    out
}

/// Writes a message that may come in several parts: protobuf merges them.
fn write(message: &Message, parts: &[&[u8]], depth: u32, out: &mut Vec<u8>) {
    out.push(b'{');
    let chosen = if message.choice { last_known(message, parts) } else { None };
    let mut first = true;
    for (number, name, kind) in message.fields {
        if message.choice && chosen != Some(*number) {
            continue;
        }
        let mut found = values(parts, *number).filter(|value| kind.fits(value)).peekable();
        if found.peek().is_none() || depth == 0 {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        kind.write(found, depth - 1, out);
    }
    out.push(b'}');
}

/// The fields with a number, in their order. What is not protobuf ends its part.
fn values<'a>(parts: &[&'a [u8]], wanted: u32) -> impl Iterator<Item = Value<'a>> {
    let readers = parts.iter().map(|part| Reader::new(part));
    let fields = readers
        .flat_map(|mut reader| std::iter::from_fn(move || reader.next_field().ok().flatten()));
    fields.filter(move |field| field.number == wanted).map(|field| field.value)
}

fn last_known(message: &Message, parts: &[&[u8]]) -> Option<u32> {
    let mut last = None;
    for part in parts {
        let mut reader = Reader::new(part);
        while let Ok(Some(field)) = reader.next_field() {
            let known = |(number, _, kind): &&(u32, &str, Kind)| {
                *number == field.number && kind.fits(&field.value)
            };
            last = message.fields.iter().find(known).map(|(number, ..)| *number).or(last);
        }
    }
    last
}

// === impl Kind ===

impl Kind {
    /// Whether a value has the wire type of this kind.
    fn fits(self, value: &Value<'_>) -> bool {
        match self {
            Self::Text | Self::Hex | Self::Base64 | Self::Texts => matches!(value, Value::Bytes(_)),
            Self::Message(_) | Self::List(_) => matches!(value, Value::Bytes(_)),
            Self::Bool | Self::Int64 | Self::Enum => matches!(value, Value::Varint(_)),
            Self::Uint64 => matches!(value, Value::Varint(_) | Value::Fixed64(_)),
            Self::Uint32 => matches!(value, Value::Varint(_) | Value::Fixed32(_)),
            Self::Double => matches!(value, Value::Fixed64(_)),
        }
    }

    fn write<'a>(self, found: impl Iterator<Item = Value<'a>>, depth: u32, out: &mut Vec<u8>) {
        match self {
            Self::Message(message) => {
                let parts: Vec<&[u8]> = found.map(bytes).collect();
                write(message, &parts, depth, out);
            }
            Self::List(message) => {
                list(found, out, |value, out| write(message, &[bytes(value)], depth, out));
            }
            Self::Texts => list(found, out, |value, out| text(bytes(value), out)),
            // Of a field that is set twice the last one counts.
            single => {
                if let Some(value) = found.last() {
                    single.write_single(value, out);
                }
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "as protobuf cuts 32 bits out of 64")]
    fn write_single(self, value: Value<'_>, out: &mut Vec<u8>) {
        let number = match value {
            Value::Varint(number) | Value::Fixed64(number) => number,
            Value::Fixed32(number) => u64::from(number),
            Value::Bytes(_) | Value::Group(_) => 0,
        };
        let told = match self {
            Self::Hex => {
                let digits = bytes(value).iter().map(|byte| format!("{byte:02x}"));
                format!("\"{}\"", digits.collect::<String>())
            }
            Self::Base64 => format!("\"{}\"", STANDARD.encode(bytes(value))),
            Self::Bool => (number != 0).to_string(),
            Self::Int64 => format!("\"{}\"", number.cast_signed()),
            Self::Uint64 => format!("\"{number}\""),
            Self::Enum => (number as u32).cast_signed().to_string(),
            Self::Uint32 => (number as u32).to_string(),
            Self::Double => double(f64::from_bits(number)),
            Self::Text | Self::Texts | Self::Message(_) | Self::List(_) => {
                return text(bytes(value), out);
            }
        };
        out.extend_from_slice(told.as_bytes());
    }
}

fn list<'a>(
    found: impl Iterator<Item = Value<'a>>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(Value<'a>, &mut Vec<u8>),
) {
    out.push(b'[');
    for (index, value) in found.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(value, out);
    }
    out.push(b']');
}

fn bytes(value: Value<'_>) -> &[u8] {
    match value {
        Value::Bytes(bytes) => bytes,
        _ => &[],
    }
}

/// What JSON has no number for is text.
fn double(value: f64) -> String {
    if value.is_finite() {
        return format!("{value:?}");
    }
    let name = match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    };
    format!("\"{name}\"")
}

/// Text that is not UTF-8 is no text in protobuf either; it is written as far as it is.
fn text(bytes: &[u8], out: &mut Vec<u8>) {
    // Writing to a vector does not fail.
    let _ = serde_json::to_writer(out, &String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests;
