//! One type read as another, as OTTL's functions do it.

use std::borrow::Cow;

use super::evaluate::Failed;
use super::value::Value;

/// The text of a number, bool or text; none for nil.
pub(super) fn to_text(value: Value<'_>) -> Result<Option<Cow<'_, [u8]>>, Failed> {
    let owned = |text: String| Ok(Some(Cow::Owned(text.into_bytes())));
    match value {
        Value::Nil => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        Value::Int(value) => owned(value.to_string()),
        Value::Bool(value) => owned(value.to_string()),
        Value::Double(value) => owned(double(value)),
        Value::Bytes(bytes) => owned(hex(bytes)),
        Value::SpanId(id) => owned(hex(&id)),
        Value::TraceId(id) => owned(hex(&id)),
        _ => Err(Failed),
    }
}

/// The integer that a value stands for; nil when a text is none.
pub(super) fn to_int(value: &Value<'_>) -> Result<Value<'static>, Failed> {
    Ok(match value {
        Value::Nil => Value::Nil,
        Value::Int(value) => Value::Int(*value),
        Value::Double(value) => Value::Int(*value as i64),
        Value::Bool(value) => Value::Int(i64::from(*value)),
        Value::Text(text) => read(text).map_or(Value::Nil, Value::Int),
        _ => return Err(Failed),
    })
}

/// The double that a value stands for; fails when a text is none, as OTTL's does.
pub(super) fn to_double(value: &Value<'_>) -> Result<Value<'static>, Failed> {
    Ok(match value {
        Value::Nil => Value::Nil,
        Value::Int(value) => Value::Double(*value as f64),
        Value::Double(value) => Value::Double(*value),
        Value::Bool(value) => Value::Double(f64::from(u8::from(*value))),
        Value::Text(text) => Value::Double(read(text).ok_or(Failed)?),
        _ => return Err(Failed),
    })
}

fn read<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A double as Go's JSON has it: shortest digits, an exponent only for very small and very large ones.
fn double(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) || !value.is_finite() {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => text.replace('e', "e+"),
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A text with all letters changed.
pub(super) fn cased(text: &[u8], upper: bool) -> Vec<u8> {
    match (std::str::from_utf8(text), upper) {
        (Ok(text), true) => text.to_uppercase().into_bytes(),
        (Ok(text), false) => text.to_lowercase().into_bytes(),
        (Err(_), true) => text.to_ascii_uppercase(),
        (Err(_), false) => text.to_ascii_lowercase(),
    }
}
