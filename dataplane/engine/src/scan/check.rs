//! The first pass: everything of a request is looked at once, so that nothing later can meet a malformed
//! byte.

use super::outline::{Draft, HeadersAt};
use super::{CHILDREN, LEGACY_SPANS, RESOURCE_SPANS, SPAN_DEPTH, TRACE_ID, TRACE_ID_HEAD};
use super::{ScanError, ScanLimits, Shape, valid_id};
use crate::schema::{self, Kind, Message, Step};
use crate::wire::{Field, Reader, Value, WireError};

/// Tag of a span's trace ID.
const TRACE_ID_TAG: u8 = TRACE_ID_HEAD[0];
/// Tags of `KeyValue`: its key and its value.
const KEY_TAG: u8 = 1 << 3 | 2;
const VALUE_TAG: u8 = 2 << 3 | 2;
/// Tags of `AnyValue`: text, truth value, integer.
const STRING_TAG: u8 = 1 << 3 | 2;
const BOOL_TAG: u8 = 2 << 3;
const INT_TAG: u8 = 3 << 3;
const DOUBLE_TAG: u8 = 4 << 3 | 1;
/// Tag of a span's attributes.
const ATTRIBUTE_TAG: u8 = 9 << 3 | 2;
/// Tag of a span's flags, and how long that field is: two bytes of tag, four of value.
const FLAGS_TAG: [u8; 2] = [(16 << 3 | 5) as u8 | 0x80, 1];
const FLAGS_BYTES: usize = 6;
/// The bits by which a byte is told not to be ASCII, in a word of eight.
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Validates all framing of a request down to the last attribute, counts what is in it, and notes where it
/// lies, which takes 108 KiB at most.
///
/// # Errors
/// When a decoder would refuse the request, or it passes a limit.
pub fn check(request: &[u8], limits: &ScanLimits) -> Result<Shape, ScanError> {
    let mut shape = Shape::default();
    let mut draft = Draft::new(request);
    let mut fields = Reader::new(request);
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (RESOURCE_SPANS, Value::Bytes(resource)) => {
                check_resource(resource, limits, &mut shape, &mut draft)?;
            }
            (RESOURCE_SPANS, _) => return Err(WireError::WrongType(RESOURCE_SPANS).into()),
            _ => shape.unknown_request_fields += 1,
        }
    }
    shape.outline = draft.finish(&shape);
    Ok(shape)
}

fn check_resource(
    bytes: &[u8],
    limits: &ScanLimits,
    shape: &mut Shape,
    draft: &mut Draft,
) -> Result<(), ScanError> {
    let mut headers = HeadersAt::default();
    let mut header_bytes = 0;
    let before = shape.groups;
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (CHILDREN, Value::Bytes(scope)) => {
                check_scope(scope, limits, shape, draft)?;
                continue;
            }
            (LEGACY_SPANS, _) => {
                shape.legacy_fields += 1;
                continue;
            }
            (1, Value::Bytes(resource)) => validate(resource, &schema::RESOURCE, 3, limits)?,
            (3, Value::Bytes(url)) => text(url, 3)?,
            (1..=3, _) => return Err(WireError::WrongType(field.number).into()),
            _ => {}
        }
        header_bytes += field.raw.len() as u64;
        headers.add(draft, field.raw);
    }
    if shape.groups > before {
        shape.header_bytes += header_bytes;
    }
    draft.resource(headers);
    limit_headers(header_bytes, limits)
}

fn check_scope(
    bytes: &[u8],
    limits: &ScanLimits,
    shape: &mut Shape,
    draft: &mut Draft,
) -> Result<(), ScanError> {
    let mut headers = HeadersAt::default();
    let mut header_bytes = 0;
    let before = shape.spans;
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (CHILDREN, Value::Bytes(span)) => {
                check_span(span, limits, shape, draft)?;
                continue;
            }
            (1, Value::Bytes(scope)) => validate(scope, &schema::SCOPE, SPAN_DEPTH, limits)?,
            (3, Value::Bytes(url)) => text(url, 3)?,
            (1..=3, _) => return Err(WireError::WrongType(field.number).into()),
            _ => {}
        }
        header_bytes += field.raw.len() as u64;
        headers.add(draft, field.raw);
    }
    if shape.spans > before {
        shape.groups += 1;
        shape.header_bytes += header_bytes;
        draft.group(headers);
    }
    limit_headers(header_bytes, limits)
}

pub(super) fn limit_headers(bytes: u64, limits: &ScanLimits) -> Result<(), ScanError> {
    if bytes > u64::from(limits.max_header_bytes) {
        return Err(ScanError::HeadersTooLong(limits.max_header_bytes));
    }
    Ok(())
}

fn check_span(
    span: &[u8],
    limits: &ScanLimits,
    shape: &mut Shape,
    draft: &mut Draft,
) -> Result<(), ScanError> {
    let mut ids = 0_u32;
    let mut id: &[u8] = &[];
    let mut fields = Reader::new(span);
    while let Some(tag) = fields.first() {
        if tag == TRACE_ID_TAG {
            fields.skip_byte();
            id = fields.delimited()?;
            ids += 1;
        } else if tag == ATTRIBUTE_TAG && SPAN_DEPTH + 2 <= limits.max_depth {
            fields = check_attributes(fields, limits)?;
        } else if tag < 0x80 {
            pass_field(tag, &mut fields, &schema::SPAN, SPAN_DEPTH, limits)?;
        } else if let Some(rest) = after_flags(fields) {
            fields = rest;
        } else {
            let (rest, found) = look_for_id(fields, limits)?;
            fields = rest;
            id = found.unwrap_or(id);
            ids += u32::from(found.is_some());
        }
    }
    let valid = valid_id(id).is_some();
    if valid {
        shape.spans += 1;
        shape.span_bytes += span.len() as u64;
        draft.span(span);
    } else {
        shape.invalid_ids += 1;
    }
    shape.odd_ids += u32::from(ids > 1 || valid && !span.starts_with(&TRACE_ID_HEAD));
    if shape.spans.saturating_add(shape.invalid_ids) > limits.max_spans {
        return Err(ScanError::TooManySpans(limits.max_spans));
    }
    Ok(())
}

/// Skips the flags of a span, which nearly every span has and whose tag has two bytes.
#[inline]
fn after_flags(mut fields: Reader<'_>) -> Option<Reader<'_>> {
    let field = fields.rest().get(..FLAGS_BYTES)?;
    if !field.starts_with(&FLAGS_TAG) {
        return None;
    }
    fields.skip(FLAGS_BYTES);
    Some(fields)
}

/// Validates the attributes in a row that begins here. Structure first; whether all texts are ASCII is then
/// seen in one sweep over the row: every byte of it but those of numbers must be. If one is not, each
/// attribute is validated by itself, so that no byte is looked at more than three times.
#[inline]
fn check_attributes<'a>(
    mut fields: Reader<'a>,
    limits: &ScanLimits,
) -> Result<Reader<'a>, ScanError> {
    let bytes = fields.rest();
    let (mut rest, mut high) = (bytes, 0);
    while let Some((numbers, after)) = plain_attribute(rest) {
        high += numbers;
        rest = after;
    }
    let row = bytes.len() - rest.len();
    if row > 0 && high_bytes(&bytes[..row]) == high {
        fields.skip(row);
        return Ok(fields);
    }
    validate_attributes(fields, rest.len(), limits)
}

/// Validates one attribute at least, and all until no more than `left` bytes follow.
#[inline(never)]
fn validate_attributes<'a>(
    mut fields: Reader<'a>,
    left: usize,
    limits: &ScanLimits,
) -> Result<Reader<'a>, ScanError> {
    loop {
        pass_field(ATTRIBUTE_TAG, &mut fields, &schema::SPAN, SPAN_DEPTH, limits)?;
        if fields.remaining() <= left {
            return Ok(fields);
        }
    }
}

/// Looks whether `fields` begin with an attribute that is what nearly all are: less than 128 bytes, a key,
/// then one text, number or truth value. Gives what follows it, and how many bytes of its numbers have their
/// high bit set; its tags and lengths have none. Whether its texts are valid is not known yet.
#[inline]
fn plain_attribute(fields: &[u8]) -> Option<(usize, &[u8])> {
    let ([ATTRIBUTE_TAG, pair_len @ ..0x80], rest) = fields.split_first_chunk::<2>()? else {
        return None;
    };
    let (pair, after) = rest.split_at_checked(usize::from(*pair_len))?;
    let ([KEY_TAG, key_len], pair) = pair.split_first_chunk::<2>()? else {
        return None;
    };
    let (_, value) = pair.split_at_checked(usize::from(*key_len))?;
    let ([VALUE_TAG, value_len, tag], value) = value.split_first_chunk::<3>()? else {
        return None;
    };
    if usize::from(*value_len) != value.len() + 1 {
        return None;
    }
    let high = match (*tag, value) {
        (STRING_TAG, [len, text @ ..]) if usize::from(*len) == text.len() => 0,
        (INT_TAG | BOOL_TAG, [..0x80]) => 0,
        (INT_TAG, [0x80..=0xff, ..0x80]) => 1,
        (INT_TAG, [0x80..=0xff, 0x80..=0xff, ..0x80]) => 2,
        (DOUBLE_TAG, value) => {
            let word = u64::from_ne_bytes(<[u8; 8]>::try_from(value).ok()?);
            (word & HIGH_BITS).count_ones() as usize
        }
        _ => return None,
    };
    Some((high, after))
}

/// How many bytes have their high bit set.
#[inline]
fn high_bytes(bytes: &[u8]) -> usize {
    /// Words whose high bits can be summed up in one, a count a byte.
    const WORDS_MAX: usize = 255;
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut count = rest.iter().filter(|byte| **byte >= 0x80).count();
    for words in words.chunks(WORDS_MAX) {
        let sums =
            words.iter().fold(0, |sums, word| sums + (u64::from_ne_bytes(*word) >> 7 & ONES));
        count += sums.to_ne_bytes().iter().map(|sum| usize::from(*sum)).sum::<usize>();
    }
    count
}

/// Validates a field of a span whose tag has several bytes; it may be that of a trace ID too, longer than it
/// need be.
#[inline(never)]
fn look_for_id<'a>(
    mut fields: Reader<'a>,
    limits: &ScanLimits,
) -> Result<(Reader<'a>, Option<&'a [u8]>), ScanError> {
    let mut id = None;
    match fields.next_field()? {
        Some(Field { number: TRACE_ID, value: Value::Bytes(bytes), .. }) => id = Some(bytes),
        Some(field) => validate_field(&field, &schema::SPAN, SPAN_DEPTH, limits)?,
        None => {}
    }
    Ok((fields, id))
}

/// Validates a message at nesting level `depth`. Recursion ends at `max_depth`.
pub(super) fn validate(
    bytes: &[u8],
    message: &'static Message,
    depth: u32,
    limits: &ScanLimits,
) -> Result<(), ScanError> {
    if depth > limits.max_depth {
        return Err(ScanError::TooDeep(limits.max_depth));
    }
    let mut fields = Reader::new(bytes);
    while let Some(tag) = fields.first() {
        pass_field(tag, &mut fields, message, depth, limits)?;
    }
    Ok(())
}

/// Validates the field that begins with the byte `tag`. The table of steps knows both its wire type and its
/// content, which makes this several times faster than to read the field and then to ask what it should be.
#[inline(always)]
fn pass_field(
    tag: u8,
    fields: &mut Reader<'_>,
    message: &'static Message,
    depth: u32,
    limits: &ScanLimits,
) -> Result<(), ScanError> {
    let step = message.step(tag);
    if step == Step::Look {
        *fields = look(*fields, message, depth, limits)?;
        return Ok(());
    }
    fields.skip_byte();
    if step >= Step::Bytes {
        let bytes = fields.delimited()?;
        if step == Step::Text {
            return text(bytes, u32::from(tag >> 3));
        }
        if let Some(inner) = message.inner(tag >> 3) {
            if std::ptr::eq(inner, &schema::KEY_VALUE)
                && depth + 2 <= limits.max_depth
                && is_plain_attribute(bytes)
            {
                return Ok(());
            }
            return validate(bytes, inner, depth + 1, limits);
        }
        return Ok(());
    }
    if step == Step::Varint {
        fields.varint()?;
    } else if step == Step::Fixed64 {
        fields.array::<8>()?;
    } else {
        fields.array::<4>()?;
    }
    Ok(())
}

/// Whether a `KeyValue` is what nearly all are: a short key, then one short text, a number or a truth value,
/// all texts ASCII. The rest is for [`validate`] to judge; this has fewer turns that a processor could miss.
#[inline]
fn is_plain_attribute(bytes: &[u8]) -> bool {
    let [KEY_TAG, key_len, rest @ ..] = bytes else { return false };
    let Some((_, rest)) = rest.split_at_checked(usize::from(*key_len)) else { return false };
    let [VALUE_TAG, value_len, value @ ..] = rest else { return false };
    if usize::from(*value_len) != value.len() {
        return false;
    }
    // Tags are ASCII, and so are lengths of one byte: one look sees that all of them and the texts are.
    match value {
        [STRING_TAG, len, text @ ..] => usize::from(*len) == text.len() && is_ascii(bytes),
        [BOOL_TAG | INT_TAG, 0..0x80] | [INT_TAG, 0x80..=0xff, 0..0x80] => {
            is_ascii(&bytes[..bytes.len() - value.len()])
        }
        _ => false,
    }
}

/// Takes the reader by value, and gives it back, so that the caller's can stay in registers.
#[cold]
fn look<'a>(
    mut fields: Reader<'a>,
    message: &'static Message,
    depth: u32,
    limits: &ScanLimits,
) -> Result<Reader<'a>, ScanError> {
    if let Some(field) = fields.next_field()? {
        validate_field(&field, message, depth, limits)?;
    }
    Ok(fields)
}

fn validate_field(
    field: &Field<'_>,
    message: &'static Message,
    depth: u32,
    limits: &ScanLimits,
) -> Result<(), ScanError> {
    match (message.kind(field.number), field.value) {
        (Kind::Text, Value::Bytes(bytes)) => text(bytes, field.number),
        (Kind::Message(inner), Value::Bytes(bytes)) => validate(bytes, inner, depth + 1, limits),
        (Kind::Unknown, _)
        | (Kind::Bytes, Value::Bytes(_))
        | (Kind::Varint, Value::Varint(_))
        | (Kind::Fixed64, Value::Fixed64(_))
        | (Kind::Fixed32, Value::Fixed32(_)) => Ok(()),
        _ => Err(WireError::WrongType(field.number).into()),
    }
}

#[inline]
pub(super) fn text(bytes: &[u8], field: u32) -> Result<(), ScanError> {
    // Nearly every text is ASCII, and that is quickly seen.
    if is_ascii(bytes) || is_utf8(bytes) { Ok(()) } else { Err(ScanError::Text(field)) }
}

#[cold]
fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// Like the library's, but inlined, and texts of up to 32 bytes, which most are, take no loop. Words may
/// overlap.
#[inline]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH_BITS_TWICE: u128 = u128::from_ne_bytes([0x80; 16]);
    if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
        let mut bits = u128::from_ne_bytes(*first) | u128::from_ne_bytes(*last);
        if bytes.len() > 32 {
            let (words, _) = bytes.as_chunks::<16>();
            bits = words.iter().fold(bits, |bits, word| bits | u128::from_ne_bytes(*word));
        }
        return bits & HIGH_BITS_TWICE == 0;
    }
    let bits = if let (Some(first), Some(last)) =
        (bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
    {
        u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        u64::from(u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last))
    } else {
        u64::from(bytes.iter().fold(0, |all, byte| all | byte))
    };
    bits & HIGH_BITS == 0
}
