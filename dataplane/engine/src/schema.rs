//! Which fields of OTLP's trace messages hold what: the table behind the validating walk.
//!
//! Written from `opentelemetry/proto/{collector/trace,trace,resource,common}/v1`, version 1.10. A field that is missing
//! here is unknown to us: it is skipped by its wire type and survives untouched.

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

/// The fields of a message; the kind of field `n` stands at `n`.
#[derive(Debug)]
pub struct Message {
    fields: &'static [Kind],
}

impl Message {
    /// What field `number` holds.
    #[inline]
    pub fn kind(&self, number: u32) -> Kind {
        self.fields
            .get(number as usize)
            .copied()
            .unwrap_or(Kind::Unknown)
    }
}

use Kind::{Bytes, Fixed32, Fixed64, Message as In, Text, Unknown, Varint};

/// `opentelemetry.proto.resource.v1.Resource`
pub static RESOURCE: Message = Message {
    fields: &[Unknown, In(&KEY_VALUE), Varint, In(&ENTITY_REF)],
};
/// `opentelemetry.proto.common.v1.EntityRef`
pub static ENTITY_REF: Message = Message {
    fields: &[Unknown, Text, Text, Text, Text],
};
/// `opentelemetry.proto.common.v1.InstrumentationScope`
pub static SCOPE: Message = Message {
    fields: &[Unknown, Text, Text, In(&KEY_VALUE), Varint],
};
/// `opentelemetry.proto.trace.v1.Span`
pub static SPAN: Message = Message {
    fields: &[
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
    ],
};
/// `opentelemetry.proto.trace.v1.Span.Event`
pub static EVENT: Message = Message {
    fields: &[Unknown, Fixed64, Text, In(&KEY_VALUE), Varint],
};
/// `opentelemetry.proto.trace.v1.Span.Link`
pub static LINK: Message = Message {
    fields: &[Unknown, Bytes, Bytes, Text, In(&KEY_VALUE), Varint, Fixed32],
};
/// `opentelemetry.proto.trace.v1.Status`; field 1 is reserved.
pub static STATUS: Message = Message {
    fields: &[Unknown, Unknown, Text, Varint],
};
/// `opentelemetry.proto.common.v1.KeyValue`
pub static KEY_VALUE: Message = Message {
    fields: &[Unknown, Text, In(&ANY_VALUE), Varint],
};
/// `opentelemetry.proto.common.v1.AnyValue`
pub static ANY_VALUE: Message = Message {
    fields: &[
        Unknown,
        Text,
        Varint,
        Varint,
        Fixed64,
        In(&ARRAY_VALUE),
        In(&KEY_VALUE_LIST),
        Bytes,
        Varint,
    ],
};
/// `opentelemetry.proto.common.v1.ArrayValue`
pub static ARRAY_VALUE: Message = Message {
    fields: &[Unknown, In(&ANY_VALUE)],
};
/// `opentelemetry.proto.common.v1.KeyValueList`
pub static KEY_VALUE_LIST: Message = Message {
    fields: &[Unknown, In(&KEY_VALUE)],
};
