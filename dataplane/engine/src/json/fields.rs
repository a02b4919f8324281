//! The fields of OTLP's trace and log messages by their names in JSON: the tables behind the conversion.
//!
//! Written from `opentelemetry/proto/{collector,trace,logs,resource,common}/v1`, version 1.10, as
//! [`crate::schema`] is; a test holds the two against each other.

/// What a field holds, in JSON and on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A text.
    Text,
    /// Bytes in hexadecimal digits: trace and span IDs.
    Hex,
    /// Bytes in base64.
    Base64,
    /// A signed integer of 64 bits, as a varint.
    Int64,
    /// An unsigned integer of 32 bits, as a varint.
    Uint32,
    /// `true` or `false`.
    Bool,
    /// A number or one of these names, whose number is their place.
    Enum(&'static [&'static str]),
    /// An unsigned integer in 64 bits.
    Fixed64,
    /// An unsigned integer in 32 bits.
    Fixed32,
    /// A number, `NaN` or `Infinity`.
    Double,
    /// A message.
    Message(&'static Message),
}

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    /// In lower camel case; the name of the definition, in snake case, is taken too.
    pub(super) name: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    /// A list of such.
    pub(super) repeated: bool,
    /// Each of the list stands for itself: one that is wrong does not cost the others.
    pub(super) record: bool,
}

/// The fields of a message.
#[derive(Debug)]
pub(super) struct Message(pub(super) &'static [Field]);

impl Message {
    /// The field that a key names, if it is known.
    pub(super) fn field(&self, key: &[u8]) -> Option<&'static Field> {
        self.0.iter().find(|field| names(key, field.name.as_bytes()))
    }
}

/// Whether `key` is `name`, in camel case or in snake case.
fn names(key: &[u8], name: &[u8]) -> bool {
    if key == name {
        return true;
    }
    let mut key = key.iter();
    for letter in name {
        let same = match (letter.is_ascii_uppercase(), key.next()) {
            (true, Some(b'_')) => key.next() == Some(&letter.to_ascii_lowercase()),
            (false, Some(other)) => other == letter,
            _ => false,
        };
        if !same {
            return false;
        }
    }
    key.next().is_none()
}

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, repeated: false, record: false }
}

const fn many(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, number, kind, repeated: true, record: false }
}

use Kind::{Base64, Bool, Double, Enum, Fixed32, Fixed64, Hex, Int64, Message as In, Text, Uint32};

const SPAN_KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
const SEVERITIES: &[&str] = &[
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
];

/// `ExportTraceServiceRequest`, and `TracesData`, which files hold.
pub(super) static TRACES: Message = Message(&[many("resourceSpans", 1, In(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Message = Message(&[
    one("resource", 1, In(&RESOURCE)),
    many("scopeSpans", 2, In(&SCOPE_SPANS)),
    one("schemaUrl", 3, Text),
]);
static SCOPE_SPANS: Message = Message(&[
    one("scope", 1, In(&SCOPE)),
    Field { name: "spans", number: 2, kind: In(&SPAN), repeated: true, record: true },
    one("schemaUrl", 3, Text),
]);
pub(super) static RESOURCE: Message = Message(&[
    many("attributes", 1, In(&KEY_VALUE)),
    one("droppedAttributesCount", 2, Uint32),
    many("entityRefs", 3, In(&ENTITY_REF)),
]);
static ENTITY_REF: Message = Message(&[
    one("schemaUrl", 1, Text),
    one("type", 2, Text),
    many("idKeys", 3, Text),
    many("descriptionKeys", 4, Text),
]);
pub(super) static SCOPE: Message = Message(&[
    one("name", 1, Text),
    one("version", 2, Text),
    many("attributes", 3, In(&KEY_VALUE)),
    one("droppedAttributesCount", 4, Uint32),
]);
pub(super) static SPAN: Message = Message(&[
    one("traceId", 1, Hex),
    one("spanId", 2, Hex),
    one("parentSpanId", 4, Hex),
    one("name", 5, Text),
    one("kind", 6, Enum(SPAN_KINDS)),
    one("startTimeUnixNano", 7, Fixed64),
    one("endTimeUnixNano", 8, Fixed64),
    many("attributes", 9, In(&KEY_VALUE)),
    one("status", 15, In(&STATUS)),
    one("flags", 16, Fixed32),
    one("traceState", 3, Text),
    many("events", 11, In(&EVENT)),
    many("links", 13, In(&LINK)),
    one("droppedAttributesCount", 10, Uint32),
    one("droppedEventsCount", 12, Uint32),
    one("droppedLinksCount", 14, Uint32),
]);
/// `ExportLogsServiceRequest`, and `LogsData`, which files hold.
pub(super) static LOGS: Message = Message(&[many("resourceLogs", 1, In(&RESOURCE_LOGS))]);
static RESOURCE_LOGS: Message = Message(&[
    one("resource", 1, In(&RESOURCE)),
    many("scopeLogs", 2, In(&SCOPE_LOGS)),
    one("schemaUrl", 3, Text),
]);
static SCOPE_LOGS: Message = Message(&[
    one("scope", 1, In(&SCOPE)),
    Field { name: "logRecords", number: 2, kind: In(&LOG_RECORD), repeated: true, record: true },
    one("schemaUrl", 3, Text),
]);
pub(super) static LOG_RECORD: Message = Message(&[
    one("timeUnixNano", 1, Fixed64),
    one("observedTimeUnixNano", 11, Fixed64),
    one("severityNumber", 2, Enum(SEVERITIES)),
    one("severityText", 3, Text),
    one("body", 5, In(&ANY_VALUE)),
    many("attributes", 6, In(&KEY_VALUE)),
    one("traceId", 9, Hex),
    one("spanId", 10, Hex),
    one("flags", 8, Fixed32),
    one("droppedAttributesCount", 7, Uint32),
    one("eventName", 12, Text),
]);
static EVENT: Message = Message(&[
    one("timeUnixNano", 1, Fixed64),
    one("name", 2, Text),
    many("attributes", 3, In(&KEY_VALUE)),
    one("droppedAttributesCount", 4, Uint32),
]);
static LINK: Message = Message(&[
    one("traceId", 1, Hex),
    one("spanId", 2, Hex),
    one("traceState", 3, Text),
    many("attributes", 4, In(&KEY_VALUE)),
    one("droppedAttributesCount", 5, Uint32),
    one("flags", 6, Fixed32),
]);
static STATUS: Message = Message(&[one("message", 2, Text), one("code", 3, Enum(STATUS_CODES))]);
static KEY_VALUE: Message = Message(&[one("key", 1, Text), one("value", 2, In(&ANY_VALUE))]);
static ANY_VALUE: Message = Message(&[
    one("stringValue", 1, Text),
    one("boolValue", 2, Bool),
    one("intValue", 3, Int64),
    one("doubleValue", 4, Double),
    one("arrayValue", 5, In(&ARRAY_VALUE)),
    one("kvlistValue", 6, In(&KEY_VALUE_LIST)),
    one("bytesValue", 7, Base64),
]);
static ARRAY_VALUE: Message = Message(&[many("values", 1, In(&ANY_VALUE))]);
static KEY_VALUE_LIST: Message = Message(&[many("values", 1, In(&KEY_VALUE))]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn keys_are_taken_in_both_cases_and_in_no_other() {
        let cases = [
            ("traceId", true),
            ("trace_id", true),
            ("traceid", false),
            ("TraceId", false),
            ("trace_Id", false),
            ("trace_id_", false),
            ("trace", false),
        ];
        for (key, known) in cases {
            assert_eq!(names(key.as_bytes(), b"traceId"), known, "{key}");
        }
    }

    #[test]
    fn the_tables_of_json_and_of_the_wire_agree() {
        let pairs = [
            (&RESOURCE, &schema::RESOURCE),
            (&SCOPE, &schema::SCOPE),
            (&SPAN, &schema::SPAN),
            (&LOG_RECORD, &schema::LOG_RECORD),
        ];
        let mut seen = Vec::new();
        for (ours, wire) in pairs {
            compare(ours, wire, &mut seen);
        }
        assert!(seen.len() > 8);
    }

    fn compare(
        ours: &'static Message,
        wire: &'static schema::Message,
        seen: &mut Vec<*const Message>,
    ) {
        if seen.contains(&std::ptr::from_ref(ours)) {
            return;
        }
        seen.push(ours);
        for field in ours.0 {
            match (field.kind, wire.kind(field.number)) {
                (In(ours), schema::Kind::Message(wire)) => compare(ours, wire, seen),
                (Text, schema::Kind::Text)
                | (Hex | Base64, schema::Kind::Bytes)
                | (Int64 | Uint32 | Bool | Enum(_), schema::Kind::Varint)
                | (Fixed64 | Double, schema::Kind::Fixed64)
                | (Fixed32, schema::Kind::Fixed32) => {}
                (ours, wire) => panic!("{}: {ours:?} is not {wire:?}", field.name),
            }
        }
    }
}
