//! What a condition computes with, and how attribute values on the wire are read as that.

use std::borrow::Cow;

use crate::wire::{Reader, Value as Wire};

/// A value. Texts are bytes: nothing here depends on their being UTF-8.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, [u8]>),
    Bytes(&'a [u8]),
    /// Nanoseconds since 1970.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
    SpanId([u8; 8]),
    TraceId([u8; 16]),
    /// The body of an `ArrayValue`.
    Array(&'a [u8]),
    /// The body of a `KeyValueList`.
    Map(&'a [u8]),
    /// A list that stands in the condition.
    List(Vec<Value<'a>>),
}

/// The members of `AnyValue`.
mod member {
    pub(super) const STRING: u32 = 1;
    pub(super) const BOOL: u32 = 2;
    pub(super) const INT: u32 = 3;
    pub(super) const DOUBLE: u32 = 4;
    pub(super) const ARRAY: u32 = 5;
    pub(super) const MAP: u32 = 6;
    pub(super) const BYTES: u32 = 7;
    pub(super) const LAST: u32 = 8;
}

/// Key and value of `KeyValue`; the values of `ArrayValue`; the pairs of `KeyValueList`.
const KEY: u32 = 1;
const VALUE: u32 = 2;
pub(super) const ELEMENT: u32 = 1;

impl<'a> Value<'a> {
    pub(super) fn text(bytes: &'a [u8]) -> Self {
        Self::Text(Cow::Borrowed(bytes))
    }

    /// This value after an `AnyValue` was merged into it: the last member that is set counts.
    pub(super) fn then(mut self, any: &'a [u8]) -> Self {
        let mut reader = Reader::new(any);
        while let Ok(Some(field)) = reader.next_field() {
            self = match (field.number, field.value) {
                (member::STRING, Wire::Bytes(text)) => Self::text(text),
                (member::BOOL, Wire::Varint(value)) => Self::Bool(value != 0),
                // Two's complement: what the varint holds is the integer's bits.
                (member::INT, Wire::Varint(bits)) => Self::Int(bits as i64),
                (member::DOUBLE, Wire::Fixed64(bits)) => Self::Double(f64::from_bits(bits)),
                (member::ARRAY, Wire::Bytes(body)) => Self::Array(body),
                (member::MAP, Wire::Bytes(body)) => Self::Map(body),
                (member::BYTES, Wire::Bytes(bytes)) => Self::Bytes(bytes),
                (1..=member::LAST, _) => Self::Nil,
                _ => self,
            };
        }
        self
    }
}

/// The first attribute with a key among fields of which those with a `number` are attributes.
pub(super) fn attribute<'a>(fields: &'a [u8], number: u32, wanted: &[u8]) -> Option<Value<'a>> {
    let mut reader = Reader::new(fields);
    while let Ok(Some(field)) = reader.next_field() {
        if field.number != number {
            continue;
        }
        if let Wire::Bytes(pair) = field.value
            && let Some(value) = value_if(pair, wanted)
        {
            return Some(value);
        }
    }
    None
}

/// The value of a `KeyValue` if it has this key.
fn value_if<'a>(pair: &'a [u8], wanted: &[u8]) -> Option<Value<'a>> {
    // Nearly every pair is of another key, and most keys are of another length.
    if let [0x0a, length @ ..0x80, rest @ ..] = pair
        && usize::from(*length) != wanted.len()
        && rest.get(usize::from(*length)) == Some(&0x12)
    {
        return None;
    }
    let (mut key, mut value): (&[u8], _) = (&[], Value::Nil);
    let mut reader = Reader::new(pair);
    while let Ok(Some(field)) = reader.next_field() {
        match (field.number, field.value) {
            (KEY, Wire::Bytes(bytes)) => key = bytes,
            (VALUE, Wire::Bytes(any)) => value = value.then(any),
            _ => {}
        }
    }
    (key == wanted).then_some(value)
}

/// The bodies of the elements of an array or a map.
pub(super) fn elements(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(body);
    std::iter::from_fn(move || {
        loop {
            let field = reader.next_field().ok()??;
            if let (ELEMENT, Wire::Bytes(element)) = (field.number, field.value) {
                return Some(element);
            }
        }
    })
}
