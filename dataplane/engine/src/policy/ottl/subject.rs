//! What a condition is asked about: the bytes of a span, its event, its resource and its scope, of which only
//! what a condition names is read.

use std::borrow::Cow;

use super::convert::hex;
use super::evaluate::Failed;
use super::path::{Field, Key, Path};
use super::value::{Value, attribute, elements};
use crate::policy::trace_state;
use crate::scan::Group;
use crate::wire::{Reader, Value as Wire};

/// The fields that are read, by message.
mod field {
    pub(super) const RESOURCE: u32 = 1;
    pub(super) const RESOURCE_ATTRIBUTES: u32 = 1;
    pub(super) const SCOPE: u32 = 1;
    pub(super) const SCOPE_NAME: u32 = 1;
    pub(super) const SCOPE_VERSION: u32 = 2;
    pub(super) const SCOPE_ATTRIBUTES: u32 = 3;
    pub(super) const SPAN_TRACE_ID: u32 = 1;
    pub(super) const SPAN_ID: u32 = 2;
    pub(super) const SPAN_TRACE_STATE: u32 = 3;
    pub(super) const SPAN_PARENT_ID: u32 = 4;
    pub(super) const SPAN_NAME: u32 = 5;
    pub(super) const SPAN_KIND: u32 = 6;
    pub(super) const SPAN_START: u32 = 7;
    pub(super) const SPAN_END: u32 = 8;
    pub(super) const SPAN_ATTRIBUTES: u32 = 9;
    pub(super) const SPAN_DROPPED_ATTRIBUTES: u32 = 10;
    pub(super) const SPAN_EVENTS: u32 = 11;
    pub(super) const SPAN_DROPPED_EVENTS: u32 = 12;
    pub(super) const SPAN_DROPPED_LINKS: u32 = 14;
    pub(super) const SPAN_STATUS: u32 = 15;
    pub(super) const SPAN_FLAGS: u32 = 16;
    pub(super) const STATUS_MESSAGE: u32 = 2;
    pub(super) const STATUS_CODE: u32 = 3;
    pub(super) const EVENT_TIME: u32 = 1;
    pub(super) const EVENT_NAME: u32 = 2;
    pub(super) const EVENT_ATTRIBUTES: u32 = 3;
    pub(super) const EVENT_DROPPED_ATTRIBUTES: u32 = 4;
}

/// A span with everything around it, and one of its events.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Subject<'a> {
    span: &'a [u8],
    /// The fields of `ResourceSpans` and `ScopeSpans` but the spans.
    resource: &'a [u8],
    scope: &'a [u8],
    event: &'a [u8],
}

impl<'a> Subject<'a> {
    pub(in super::super) fn new(group: &Group<'a>, span: &'a [u8]) -> Self {
        Self { span, resource: group.resource.bytes(), scope: group.scope.bytes(), event: &[] }
    }

    /// The same span, once for each of its events.
    pub(in super::super) fn events(self) -> impl Iterator<Item = Self> {
        messages(self.span, field::SPAN_EVENTS).map(move |event| Self { event, ..self })
    }

    pub(super) fn is_root(&self) -> bool {
        // As in the Collector, an ID of zeros is no ID.
        self.bytes(field::SPAN_PARENT_ID).iter().all(|byte| *byte == 0)
    }

    /// The value at a path.
    pub(super) fn value(&self, path: &Path) -> Result<Value<'a>, Failed> {
        let int = |value: u64| Value::Int(value as i64);
        let time = |value: u64| Value::Time(value as i64);
        let text = |value: String| Value::Text(Cow::Owned(value.into_bytes()));
        Ok(match path.field {
            Field::SpanAttributes
            | Field::EventAttributes
            | Field::ResourceAttributes
            | Field::ScopeAttributes => return self.attribute(path),
            Field::SpanName => Value::text(self.bytes(field::SPAN_NAME)),
            Field::SpanKind => int(self.kind()),
            Field::SpanKindText => Value::text(kind_text(self.kind()).0.as_bytes()),
            Field::SpanKindOldText => Value::text(kind_text(self.kind()).1.as_bytes()),
            Field::SpanStart => int(number(self.span, field::SPAN_START)),
            Field::SpanStartTime => time(number(self.span, field::SPAN_START)),
            Field::SpanEnd => int(number(self.span, field::SPAN_END)),
            Field::SpanEndTime => time(number(self.span, field::SPAN_END)),
            Field::SpanStatusCode => self.status_code(),
            Field::SpanStatusMessage => self.status_message(),
            Field::SpanTraceState => self.trace_state(path),
            Field::SpanTraceId => Value::TraceId(id(self.bytes(field::SPAN_TRACE_ID))),
            Field::SpanTraceIdText => text(id_text(self.bytes(field::SPAN_TRACE_ID))),
            Field::SpanId => Value::SpanId(id(self.bytes(field::SPAN_ID))),
            Field::SpanIdText => text(id_text(self.bytes(field::SPAN_ID))),
            Field::SpanParentId => Value::SpanId(id(self.bytes(field::SPAN_PARENT_ID))),
            Field::SpanParentIdText => text(id_text(self.bytes(field::SPAN_PARENT_ID))),
            Field::SpanDroppedAttributes => int(number(self.span, field::SPAN_DROPPED_ATTRIBUTES)),
            Field::SpanDroppedEvents => int(number(self.span, field::SPAN_DROPPED_EVENTS)),
            Field::SpanDroppedLinks => int(number(self.span, field::SPAN_DROPPED_LINKS)),
            Field::SpanFlags => int(number(self.span, field::SPAN_FLAGS)),
            Field::EventName => Value::text(last(self.event, field::EVENT_NAME)),
            Field::EventTime => time(number(self.event, field::EVENT_TIME)),
            Field::EventTimeNano => int(number(self.event, field::EVENT_TIME)),
            Field::EventDroppedAttributes => {
                int(number(self.event, field::EVENT_DROPPED_ATTRIBUTES))
            }
            Field::ScopeName => self.scope_text(field::SCOPE_NAME),
            Field::ScopeVersion => self.scope_text(field::SCOPE_VERSION),
        })
    }

    fn attribute(&self, path: &Path) -> Result<Value<'a>, Failed> {
        let [Key::Text(key), rest @ ..] = path.keys.as_slice() else { return Err(Failed) };
        let key = key.as_bytes();
        let found = match path.field {
            Field::SpanAttributes => attribute(self.span, field::SPAN_ATTRIBUTES, key),
            Field::EventAttributes => attribute(self.event, field::EVENT_ATTRIBUTES, key),
            // Several resources merge: their attributes are one list. So do scopes.
            Field::ResourceAttributes => messages(self.resource, field::RESOURCE)
                .find_map(|resource| attribute(resource, field::RESOURCE_ATTRIBUTES, key)),
            _ => messages(self.scope, field::SCOPE)
                .find_map(|scope| attribute(scope, field::SCOPE_ATTRIBUTES, key)),
        };
        match found {
            Some(value) => rest.iter().try_fold(value, pick),
            None => Ok(Value::Nil),
        }
    }

    fn bytes(&self, number: u32) -> &'a [u8] {
        last(self.span, number)
    }

    fn kind(&self) -> u64 {
        // Enums are 32 bits wide; decoders cut off the rest.
        i64::from(number(self.span, field::SPAN_KIND) as i32) as u64
    }

    fn status_code(&self) -> Value<'a> {
        let codes = messages(self.span, field::SPAN_STATUS)
            .filter_map(|status| find_number(status, field::STATUS_CODE));
        Value::Int(i64::from(codes.last().unwrap_or_default() as i32))
    }

    fn status_message(&self) -> Value<'a> {
        let texts = messages(self.span, field::SPAN_STATUS)
            .filter_map(|status| messages(status, field::STATUS_MESSAGE).last());
        Value::text(texts.last().unwrap_or_default())
    }

    fn trace_state(&self, path: &Path) -> Value<'a> {
        let state = self.bytes(field::SPAN_TRACE_STATE);
        match path.keys.first() {
            Some(Key::Text(key)) => {
                Value::text(trace_state::value(state, key.as_bytes()).unwrap_or_default())
            }
            _ => Value::text(state),
        }
    }

    fn scope_text(&self, number: u32) -> Value<'a> {
        let texts =
            messages(self.scope, field::SCOPE).filter_map(|scope| messages(scope, number).last());
        Value::text(texts.last().unwrap_or_default())
    }
}

/// A part of a list or map.
fn pick<'a>(value: Value<'a>, key: &Key) -> Result<Value<'a>, Failed> {
    match (value, key) {
        (Value::Nil, _) => Ok(Value::Nil),
        (Value::Map(body), Key::Text(key)) => {
            let found = attribute(body, super::value::ELEMENT, key.as_bytes());
            Ok(found.unwrap_or(Value::Nil))
        }
        (Value::Array(body), Key::Index(index)) => {
            let index = usize::try_from(*index).map_err(|_| Failed)?;
            elements(body).nth(index).map(|any| Value::Nil.then(any)).ok_or(Failed)
        }
        _ => Err(Failed),
    }
}

/// The bodies of all fields with a number.
fn messages(fields: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(fields);
    std::iter::from_fn(move || {
        loop {
            let field = reader.next_field().ok()??;
            if let Wire::Bytes(body) = field.value
                && field.number == wanted
            {
                return Some(body);
            }
        }
    })
}

/// The last of the fields with a number.
fn last(fields: &[u8], wanted: u32) -> &[u8] {
    messages(fields, wanted).last().unwrap_or_default()
}

fn number(fields: &[u8], wanted: u32) -> u64 {
    find_number(fields, wanted).unwrap_or_default()
}

fn find_number(fields: &[u8], wanted: u32) -> Option<u64> {
    let (mut reader, mut found) = (Reader::new(fields), None);
    while let Ok(Some(field)) = reader.next_field() {
        if field.number == wanted {
            found = match field.value {
                Wire::Varint(value) | Wire::Fixed64(value) => Some(value),
                Wire::Fixed32(value) => Some(u64::from(value)),
                _ => found,
            };
        }
    }
    found
}

/// An ID; one of another length is none.
fn id<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

/// An ID in hexadecimal digits; empty when there is none.
fn id_text(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) { String::new() } else { hex(bytes) }
}

fn kind_text(kind: u64) -> (&'static str, &'static str) {
    match kind {
        0 => ("Unspecified", "SPAN_KIND_UNSPECIFIED"),
        1 => ("Internal", "SPAN_KIND_INTERNAL"),
        2 => ("Server", "SPAN_KIND_SERVER"),
        3 => ("Client", "SPAN_KIND_CLIENT"),
        4 => ("Producer", "SPAN_KIND_PRODUCER"),
        5 => ("Consumer", "SPAN_KIND_CONSUMER"),
        _ => ("", ""),
    }
}
