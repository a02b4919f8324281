//! OTLP/JSON into the wire format, in one pass and without a tree: what is read is written at once.
//!
//! A request in JSON is never shorter than the same on the wire, so the room that it takes is known before
//! anything of it is read. Names are taken in camel and in snake case, numbers as numbers and as strings,
//! enums as numbers and as names; unknown fields and nulls are passed over, as the Collector does.
//!
//! ```
//! use ringtail_engine::{json, scan::ScanLimits};
//!
//! let text = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"GET /","kind":2}]}]}]}"#;
//! let converted = json::traces(text, &ScanLimits::default()).unwrap();
//! assert_eq!(&converted.wire[..], b"\x0a\x0d\x12\x0b\x12\x09\x2a\x05GET /\x30\x02");
//! ```

use thiserror::Error;

use self::fields::{Field, Kind, Message};
use self::scanner::Scanner;
use crate::scan::ScanLimits;
use crate::wire::{begin, finish, put_varint};

mod fields;
mod scanner;

/// A request, converted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// The request on the wire.
    pub wire: Vec<u8>,
    /// Spans, or records, that are not in it, since something in them was wrong.
    pub left_out: u32,
    /// What was wrong with the first of them.
    pub why: Option<JsonError>,
}

/// Why a request, or a span of it, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// It ends inside a value.
    #[error("not JSON: it ends too early")]
    Truncated,
    /// This byte cannot stand there.
    #[error("not JSON: what stands at byte {0} cannot stand there")]
    Syntax(usize),
    /// A known field holds something else than it should.
    #[error("not OTLP/JSON: {field} at byte {at} is not {wanted}")]
    Value {
        /// Its name.
        field: &'static str,
        /// What it should be.
        wanted: &'static str,
        /// Where.
        at: usize,
    },
    /// It is nested too deeply.
    #[error("messages are nested more than {0} deep; flatten nested attribute values")]
    TooDeep(u32),
}

/// Reads and writes.
struct Converter<'a> {
    text: Scanner<'a>,
    max_depth: u32,
    done: Converted,
}

/// Converts an `ExportTraceServiceRequest`. The wire format takes at most as many bytes as `text`, and
/// nothing else is allocated that grows with it but one bit for every bracket that is open in a value that
/// is skipped.
///
/// A span with something wrong in it is left out, and the others are taken.
///
/// # Errors
/// When it is not JSON, or something outside of a span is wrong.
pub fn traces(text: &[u8], limits: &ScanLimits) -> Result<Converted, JsonError> {
    request(text, &fields::TRACES, limits)
}

/// The same for an `ExportLogsServiceRequest` and its records.
///
/// # Errors
/// When it is not JSON, or something outside of a record is wrong.
pub fn logs(text: &[u8], limits: &ScanLimits) -> Result<Converted, JsonError> {
    request(text, &fields::LOGS, limits)
}

fn request(
    text: &[u8],
    message: &'static Message,
    limits: &ScanLimits,
) -> Result<Converted, JsonError> {
    let done = Converted { wire: Vec::with_capacity(text.len()), left_out: 0, why: None };
    let text = Scanner::new(text);
    let mut converter = Converter { text, max_depth: limits.max_depth, done };
    let request = Field {
        name: "the request",
        number: 0,
        kind: Kind::Message(message),
        repeated: false,
        record: false,
    };
    converter.message(&request, message, 1)?;
    converter.text.end()?;
    Ok(converter.done)
}

impl JsonError {
    /// Whether the text is JSON all the same, so that one can go on after the span that it is in.
    const fn is_contained(self) -> bool {
        matches!(self, Self::Value { .. } | Self::TooDeep(_))
    }
}

// === impl Converter ===

impl Converter<'_> {
    /// Recursion ends at `max_depth`.
    fn message(
        &mut self,
        field: &Field,
        message: &'static Message,
        depth: u32,
    ) -> Result<(), JsonError> {
        if depth > self.max_depth {
            return Err(JsonError::TooDeep(self.max_depth));
        }
        if self.text.word(b"null")? {
            return Ok(());
        }
        if !self.text.eat(b'{')? {
            return Err(self.wrong(field, "an object"));
        }
        if self.text.eat(b'}')? {
            return Ok(());
        }
        loop {
            let key = self.text.string()?;
            self.text.expect(b':')?;
            let known = if key.escaped {
                let mut plain = Vec::new();
                key.put(&mut plain).and_then(|()| message.field(&plain))
            } else {
                message.field(key.bytes)
            };
            match known {
                Some(_) if self.text.word(b"null")? => {}
                Some(field) if field.repeated => self.list(field, depth)?,
                Some(field) => self.value(field, depth)?,
                None => self.text.skip()?,
            }
            if !self.text.eat(b',')? {
                return self.text.expect(b'}');
            }
        }
    }

    fn list(&mut self, field: &'static Field, depth: u32) -> Result<(), JsonError> {
        if !self.text.eat(b'[')? {
            return Err(self.wrong(field, "a list"));
        }
        if self.text.eat(b']')? {
            return Ok(());
        }
        loop {
            if field.record {
                self.record(field, depth)?;
            } else {
                self.value(field, depth)?;
            }
            if !self.text.eat(b',')? {
                return self.text.expect(b']');
            }
        }
    }

    /// Leaves out a record in which something is wrong. It is read twice then, and no more often.
    fn record(&mut self, field: &'static Field, depth: u32) -> Result<(), JsonError> {
        let (from, written) = (self.text.at(), self.done.wire.len());
        match self.value(field, depth) {
            Err(error) if error.is_contained() => {
                self.done.wire.truncate(written);
                self.text.seek(from);
                self.text.skip()?;
                self.done.left_out = self.done.left_out.saturating_add(1);
                self.done.why.get_or_insert(error);
                Ok(())
            }
            other => other,
        }
    }

    fn value(&mut self, field: &'static Field, depth: u32) -> Result<(), JsonError> {
        let wire_type = match field.kind {
            Kind::Int64 | Kind::Uint32 | Kind::Bool | Kind::Enum(_) => 0,
            Kind::Fixed64 | Kind::Double => 1,
            Kind::Text | Kind::Hex | Kind::Base64 | Kind::Message(_) => 2,
            Kind::Fixed32 => 5,
        };
        put_varint(&mut self.done.wire, u64::from(field.number << 3 | wire_type));
        match field.kind {
            Kind::Message(inner) => {
                let start = begin(&mut self.done.wire);
                self.message(field, inner, depth + 1)?;
                finish(&mut self.done.wire, start);
            }
            Kind::Text | Kind::Hex | Kind::Base64 => self.bytes(field)?,
            Kind::Bool => {
                let yes = self.text.word(b"true")?;
                if !yes && !self.text.word(b"false")? {
                    return Err(self.wrong(field, "true or false"));
                }
                self.done.wire.push(u8::from(yes));
            }
            _ => self.number(field)?,
        }
        Ok(())
    }

    fn bytes(&mut self, field: &Field) -> Result<(), JsonError> {
        let wanted = match field.kind {
            Kind::Hex => "hexadecimal digits in pairs",
            Kind::Base64 => "bytes in base64",
            _ => "a text in UTF-8",
        };
        if self.text.peek()? != b'"' {
            return Err(self.wrong(field, wanted));
        }
        let at = self.text.at();
        let quoted = self.text.string()?;
        let out = &mut self.done.wire;
        let start = begin(out);
        let put = match field.kind {
            Kind::Hex => put_hex(quoted.bytes, out),
            // A slash may be escaped; nothing else of the alphabet is.
            Kind::Base64 if quoted.escaped => {
                let mut plain = Vec::new();
                quoted.put(&mut plain).and_then(|()| put_base64(&plain, out))
            }
            Kind::Base64 => put_base64(quoted.bytes, out),
            _ => quoted.put(out),
        };
        put.ok_or(JsonError::Value { field: field.name, wanted, at })?;
        finish(out, start);
        Ok(())
    }

    fn number(&mut self, field: &Field) -> Result<(), JsonError> {
        let wanted = match field.kind {
            Kind::Int64 => "an integer of 64 bits",
            Kind::Fixed64 => "a positive integer of 64 bits",
            Kind::Uint32 | Kind::Fixed32 => "a positive integer of 32 bits",
            Kind::Enum(_) => "a number or name of that enum",
            _ => "a number",
        };
        if !matches!(self.text.peek()?, b'"' | b'-' | b'0'..=b'9') {
            return Err(self.wrong(field, wanted));
        }
        let at = self.text.at();
        let text = std::str::from_utf8(self.text.scalar()?).unwrap_or_default();
        let wrong = JsonError::Value { field: field.name, wanted, at };
        let out = &mut self.done.wire;
        match field.kind {
            Kind::Int64 => put_varint(out, i64_of(text).ok_or(wrong)?.cast_unsigned()),
            Kind::Uint32 => put_varint(out, u32_of(text).ok_or(wrong)?.into()),
            Kind::Enum(names) => {
                let named = names.iter().position(|name| *name == text);
                let number = named.map_or_else(|| i64_of(text), |place| i64::try_from(place).ok());
                let number = number.filter(|number| i32::try_from(*number).is_ok());
                put_varint(out, number.ok_or(wrong)?.cast_unsigned());
            }
            Kind::Fixed64 => out.extend(u64_of(text).ok_or(wrong)?.to_le_bytes()),
            Kind::Fixed32 => out.extend(u32_of(text).ok_or(wrong)?.to_le_bytes()),
            _ => out.extend(f64_of(text).ok_or(wrong)?.to_le_bytes()),
        }
        Ok(())
    }

    fn wrong(&self, field: &Field, wanted: &'static str) -> JsonError {
        JsonError::Value { field: field.name, wanted, at: self.text.at() }
    }
}

// === values ===

fn i64_of(text: &str) -> Option<i64> {
    // Numbers such as 1e3 are integers in JSON too; beyond 2^53 a double is not one of them for sure.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        let exact = number.fract() == 0.0 && number.abs() <= EXACT;
        exact.then_some(number as i64)
    })
}

fn u64_of(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| u64::try_from(i64_of(text)?).ok())
}

fn u32_of(text: &str) -> Option<u32> {
    u32::try_from(i64_of(text)?).ok()
}

fn f64_of(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // What Rust reads beyond numbers is not in JSON.
        _ if text.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')) => None,
        _ => text.parse().ok(),
    }
}

fn put_hex(digits: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    for [high, low] in pairs {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        out.push((digit(*high)? << 4 | digit(*low)?) as u8);
    }
    Some(())
}

/// Both alphabets, with and without padding.
fn put_base64(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let (mut bits, mut held) = (0_u32, 0);
    for byte in &text[..text.len() - padding.min(2)] {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    // Six bits that are left over are not a byte.
    (held < 6).then_some(())
}

#[cfg(test)]
mod tests;
