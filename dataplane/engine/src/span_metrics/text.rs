//! Attribute values as the Collector writes them into labels: texts as they are, numbers as JavaScript has
//! them, lists and maps as JSON, bytes in base64.

use std::io::Write;

use super::VALUE_BYTES_MAX;
use crate::wire::{Reader, Value as Wire};

/// Lists in lists that are written; the scanner refuses requests that are nested deeper.
const DEPTH_MAX: u32 = 32;
/// JSON that is longer is of no use in a label, which is cut anyway; it ends somewhere after this.
const JSON_BYTES_MAX: usize = 4 * VALUE_BYTES_MAX;

/// A value as it stands in an `AnyValue`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Any<'a> {
    Unset,
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    List(&'a [u8]),
    Map(&'a [u8]),
    Bytes(&'a [u8]),
}

// === impl Any ===

impl<'a> Any<'a> {
    /// Of the bytes of an `AnyValue`: the last member that is set counts.
    pub(super) fn of(any: &'a [u8]) -> Self {
        let mut value = Self::Unset;
        let mut reader = Reader::new(any);
        while let Ok(Some(field)) = reader.next_field() {
            value = match (field.number, field.value) {
                (1, Wire::Bytes(text)) => Self::Text(text),
                (2, Wire::Varint(bits)) => Self::Bool(bits != 0),
                // Two's complement: what the varint holds is the integer's bits.
                (3, Wire::Varint(bits)) => Self::Int(bits as i64),
                (4, Wire::Fixed64(bits)) => Self::Double(f64::from_bits(bits)),
                (5, Wire::Bytes(list)) => Self::List(list),
                (6, Wire::Bytes(map)) => Self::Map(map),
                (7, Wire::Bytes(bytes)) => Self::Bytes(bytes),
                _ => value,
            };
        }
        value
    }

    /// Appends it as a label has it.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Unset => {}
            Self::Text(text) => out.extend_from_slice(text),
            Self::Double(number) if number.is_nan() => out.extend_from_slice(b"NaN"),
            Self::Double(f64::INFINITY) => out.extend_from_slice(b"Infinity"),
            Self::Double(f64::NEG_INFINITY) => out.extend_from_slice(b"-Infinity"),
            Self::Bytes(bytes) => base64(bytes, out),
            Self::List(_) | Self::Map(_) => {
                let start = out.len();
                if !self.json(out, start, 0) {
                    // JSON has no numbers that are not finite; the Collector then writes nothing.
                    out.truncate(start);
                }
            }
            // Status codes are nearly all numbers that there are.
            Self::Int(number) => integer(number, out),
            Self::Bool(_) | Self::Double(_) => drop(self.json(out, out.len(), 0)),
        }
    }

    /// Appends it as JSON; false when that has no word for it.
    fn json(self, out: &mut Vec<u8>, start: usize, depth: u32) -> bool {
        if depth > DEPTH_MAX || out.len() - start > JSON_BYTES_MAX {
            return true;
        }
        match self {
            Self::Unset => out.extend_from_slice(b"null"),
            Self::Text(text) => quote(text, out),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(number) => integer(number, out),
            Self::Double(number) => return double(number, out),
            Self::Bytes(bytes) => {
                out.push(b'"');
                base64(bytes, out);
                out.push(b'"');
            }
            Self::List(list) => {
                out.push(b'[');
                for (index, any) in members(list).enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    if !Any::of(any).json(out, start, depth + 1) {
                        return false;
                    }
                }
                out.push(b']');
            }
            Self::Map(map) => return object(map, out, start, depth),
        }
        true
    }
}

/// The members of an `ArrayValue` or `KeyValueList`.
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(list);
    std::iter::from_fn(move || {
        while let Ok(Some(field)) = reader.next_field() {
            if let (1, Wire::Bytes(member)) = (field.number, field.value) {
                return Some(member);
            }
        }
        None
    })
}

fn object(map: &[u8], out: &mut Vec<u8>, start: usize, depth: u32) -> bool {
    // Of equal keys the last one is in a map, and maps are written in the order of their keys.
    let pairs: std::collections::BTreeMap<&[u8], &[u8]> = members(map).map(pair).collect();
    out.push(b'{');
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        quote(key, out);
        out.push(b':');
        if !Any::of(value).json(out, start, depth + 1) {
            return false;
        }
    }
    out.push(b'}');
    true
}

/// Key and value of a `KeyValue`.
#[inline]
pub(super) fn pair(pair: &[u8]) -> (&[u8], &[u8]) {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = Reader::new(pair);
    while let Ok(Some(field)) = reader.next_field() {
        match (field.number, field.value) {
            (1, Wire::Bytes(bytes)) => key = bytes,
            // An empty message merges with the one before and changes nothing.
            (2, Wire::Bytes(bytes)) if !bytes.is_empty() => value = bytes,
            _ => {}
        }
    }
    (key, value)
}

/// Decimal digits.
fn integer(number: i64, out: &mut Vec<u8>) {
    // 19 digits and a sign.
    let mut digits = [0; 20];
    let (mut rest, mut from) = (number.unsigned_abs(), digits.len());
    while from == digits.len() || rest > 0 {
        from -= 1;
        digits[from] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if number < 0 {
        from -= 1;
        digits[from] = b'-';
    }
    out.extend_from_slice(&digits[from..]);
}

/// The shortest digits that read back as the same number; an exponent below 1e-6 and from 1e21.
fn double(number: f64, out: &mut Vec<u8>) -> bool {
    if !number.is_finite() {
        return false;
    }
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        // A positive exponent has its sign.
        let text = if text.contains("e-") { text } else { text.replace('e', "e+") };
        out.extend_from_slice(text.as_bytes());
    } else {
        // Writing to memory does not fail.
        drop(write!(out, "{number}"));
    }
    true
}

fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            // Lines that JavaScript would break at are escaped as well.
            '\0'..='\x1f' | '\u{2028}' | '\u{2029}' => {
                drop(write!(out, "\\u{:04x}", u32::from(character)));
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3).take(JSON_BYTES_MAX / 4) {
        let byte = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place > three.len() { b'=' } else { digit });
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
    use prost::Message;

    use super::*;

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn shown(value: Value) -> String {
        let mut out = Vec::new();
        Any::of(&any(value).encode_to_vec()).write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn text(value: &str) -> Value {
        Value::StringValue(value.to_owned())
    }

    fn list(values: Vec<Value>) -> Value {
        Value::ArrayValue(ArrayValue { values: values.into_iter().map(any).collect() })
    }

    fn map(pairs: Vec<(&str, Value)>) -> Value {
        let pair = |(key, value): (&str, Value)| KeyValue {
            key: key.to_owned(),
            value: Some(any(value)),
            ..KeyValue::default()
        };
        Value::KvlistValue(KeyValueList { values: pairs.into_iter().map(pair).collect() })
    }

    #[test]
    fn values_are_written_as_in_the_collector() {
        let nested = map(vec![("b", list(vec![Value::IntValue(1), text("<&>")])), ("a", text(""))]);
        let cases = [
            (text("GET"), "GET"),
            (text(""), ""),
            (text("\"q\""), "\"q\""),
            (Value::BoolValue(true), "true"),
            (Value::BoolValue(false), "false"),
            (Value::IntValue(-5), "-5"),
            (Value::IntValue(i64::MIN), "-9223372036854775808"),
            (Value::DoubleValue(0.0), "0"),
            (Value::DoubleValue(-0.0), "-0"),
            (Value::DoubleValue(1.0), "1"),
            (Value::DoubleValue(0.1), "0.1"),
            (Value::DoubleValue(1e-6), "0.000001"),
            (Value::DoubleValue(1.5e-7), "1.5e-7"),
            (Value::DoubleValue(1e20), "100000000000000000000"),
            (Value::DoubleValue(1e21), "1e+21"),
            (Value::DoubleValue(-2.5e300), "-2.5e+300"),
            (Value::DoubleValue(f64::NAN), "NaN"),
            (Value::DoubleValue(f64::INFINITY), "Infinity"),
            (Value::DoubleValue(f64::NEG_INFINITY), "-Infinity"),
            (Value::BytesValue(b"".to_vec()), ""),
            (Value::BytesValue(b"f".to_vec()), "Zg=="),
            (Value::BytesValue(b"fo".to_vec()), "Zm8="),
            (Value::BytesValue(b"foo\xff".to_vec()), "Zm9v/w=="),
            (list(vec![]), "[]"),
            (
                list(vec![text("a\"\n\u{1}\u{2028}"), Value::BytesValue(vec![0])]),
                "[\"a\\\"\\n\\u0001\\u2028\",\"AA==\"]",
            ),
            (list(vec![Value::DoubleValue(f64::NAN)]), ""),
            (nested, "{\"a\":\"\",\"b\":[1,\"<&>\"]}"),
        ];
        for (value, expected) in cases {
            assert_eq!(shown(value.clone()), expected, "{value:?}");
        }
        let mut out = Vec::new();
        Any::of(&[]).write(&mut out);
        assert_eq!(out, b"");
    }

    #[test]
    fn json_that_is_long_ends() {
        let long = list(vec![text(&"x".repeat(100)); 10_000]);
        assert!(shown(long).len() < 40_000);
        let mut deep = text("x");
        for _ in 0..100 {
            deep = list(vec![deep]);
        }
        assert!(shown(deep).starts_with("[["));
    }
}
