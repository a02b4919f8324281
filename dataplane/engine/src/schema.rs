//! Which fields of OTLP's trace and log messages hold what: the tables behind the validating walk.
//!
//! Written from `opentelemetry/proto/{collector,trace,logs,resource,common}/v1`, version 1.10. A field that
//! is missing here is unknown to us: it is skipped by its wire type and survives untouched.

/// What a known field holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Nothing is known of the field.
    Unknown,
    /// Integers, booleans and enums.
    Varint,
    /// 64 bits.
    Fixed64,
    /// 32 bits.
    Fixed32,
    /// Bytes of any content.
    Bytes,
    /// Bytes that must be UTF-8.
    Text,
    /// A message.
    Message(&'static Message),
}

/// The fields of a message.
#[derive(Debug)]
pub struct Message {
    /// The kind of field `n` stands at `n`.
    fields: &'static [Kind],
    /// What to do at a byte that begins a field, for the fields that every message has.
    steps: [Step; 256],
}

/// What to do with a field whose tag is one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum Step {
    /// The tag is longer, or the field is unknown, or has a wire type that is not its own: read it slowly.
    Look,
    /// Skip a varint.
    Varint,
    /// Skip 64 bits.
    Fixed64,
    /// Skip 32 bits.
    Fixed32,
    /// Skip bytes of any content.
    Bytes,
    /// Read a text.
    Text,
    /// Read a message.
    Message,
}

impl Message {
    const fn new(fields: &'static [Kind]) -> Self {
        let mut steps = [Step::Look; 256];
        let mut number = 1;
        // Tags of one byte end with number 15.
        while number < fields.len() && number < 16 {
            let (wire_type, step) = match fields[number] {
                Kind::Unknown => (0, Step::Look),
                Kind::Varint => (0, Step::Varint),
                Kind::Fixed64 => (1, Step::Fixed64),
                Kind::Fixed32 => (5, Step::Fixed32),
                Kind::Bytes => (2, Step::Bytes),
                Kind::Text => (2, Step::Text),
                Kind::Message(_) => (2, Step::Message),
            };
            steps[number << 3 | wire_type] = step;
            number += 1;
        }
        Self { fields, steps }
    }

    /// What field `number` holds.
    #[inline]
    pub fn kind(&self, number: u32) -> Kind {
        self.fields.get(number as usize).copied().unwrap_or(Kind::Unknown)
    }

    /// The message that field `number` holds.
    #[inline]
    pub fn inner(&self, number: u8) -> Option<&'static Message> {
        match self.fields.get(usize::from(number)) {
            Some(Kind::Message(inner)) => Some(inner),
            _ => None,
        }
    }

    /// What to do at a byte that begins a field.
    #[inline]
    pub const fn step(&self, tag: u8) -> Step {
        self.steps[tag as usize]
    }
}

use Kind::{Bytes, Fixed32, Fixed64, Message as In, Text, Unknown, Varint};

/// `opentelemetry.proto.resource.v1.Resource`
pub static RESOURCE: Message = Message::new(&[Unknown, In(&KEY_VALUE), Varint, In(&ENTITY_REF)]);
/// `opentelemetry.proto.common.v1.EntityRef`
pub static ENTITY_REF: Message = Message::new(&[Unknown, Text, Text, Text, Text]);
/// `opentelemetry.proto.common.v1.InstrumentationScope`
pub static SCOPE: Message = Message::new(&[Unknown, Text, Text, In(&KEY_VALUE), Varint]);
/// `opentelemetry.proto.trace.v1.Span`
pub static SPAN: Message = Message::new(&[
    Unknown,
    Bytes,          //  1 trace_id
    Bytes,          //  2 span_id
    Text,           //  3 trace_state
    Bytes,          //  4 parent_span_id
    Text,           //  5 name
    Varint,         //  6 kind
    Fixed64,        //  7 start_time_unix_nano
    Fixed64,        //  8 end_time_unix_nano
    In(&KEY_VALUE), //  9 attributes
    Varint,         // 10 dropped_attributes_count
    In(&EVENT),     // 11 events
    Varint,         // 12 dropped_events_count
    In(&LINK),      // 13 links
    Varint,         // 14 dropped_links_count
    In(&STATUS),    // 15 status
    Fixed32,        // 16 flags
]);
/// `opentelemetry.proto.logs.v1.LogRecord`; field 4 is reserved.
pub static LOG_RECORD: Message = Message::new(&[
    Unknown,
    Fixed64,        //  1 time_unix_nano
    Varint,         //  2 severity_number
    Text,           //  3 severity_text
    Unknown,        //  4
    In(&ANY_VALUE), //  5 body
    In(&KEY_VALUE), //  6 attributes
    Varint,         //  7 dropped_attributes_count
    Fixed32,        //  8 flags
    Bytes,          //  9 trace_id
    Bytes,          // 10 span_id
    Fixed64,        // 11 observed_time_unix_nano
    Text,           // 12 event_name
]);
/// `opentelemetry.proto.trace.v1.Span.Event`
pub static EVENT: Message = Message::new(&[Unknown, Fixed64, Text, In(&KEY_VALUE), Varint]);
/// `opentelemetry.proto.trace.v1.Span.Link`
pub static LINK: Message =
    Message::new(&[Unknown, Bytes, Bytes, Text, In(&KEY_VALUE), Varint, Fixed32]);
/// `opentelemetry.proto.trace.v1.Status`; field 1 is reserved.
pub static STATUS: Message = Message::new(&[Unknown, Unknown, Text, Varint]);
/// `opentelemetry.proto.common.v1.KeyValue`
pub static KEY_VALUE: Message = Message::new(&[Unknown, Text, In(&ANY_VALUE), Varint]);
/// `opentelemetry.proto.common.v1.AnyValue`
pub static ANY_VALUE: Message = Message::new(&[
    Unknown,
    Text,
    Varint,
    Varint,
    Fixed64,
    In(&ARRAY_VALUE),
    In(&KEY_VALUE_LIST),
    Bytes,
    Varint,
]);
/// `opentelemetry.proto.common.v1.ArrayValue`
pub static ARRAY_VALUE: Message = Message::new(&[Unknown, In(&ANY_VALUE)]);
/// `opentelemetry.proto.common.v1.KeyValueList`
pub static KEY_VALUE_LIST: Message = Message::new(&[Unknown, In(&KEY_VALUE)]);
