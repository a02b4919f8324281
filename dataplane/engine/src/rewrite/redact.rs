//! Takes out of resources, scopes and spans what a [`Redaction`] is about.

use regex::bytes::NoExpand;

use super::copy::{Copy, put_bytes, put_nested};
use super::limits::DEPTH_MAX;
use super::redaction::{Redaction, Rule};
use super::value::{ELEMENT, KEY, VALUE, key_of, member, put_text_pair, value_of};
use crate::wire::{Field, Reader, Value as Wire, put_varint};

/// The field of a resource in `ResourceSpans`, and of a scope in `ScopeSpans`.
const HEADER: u32 = 1;

/// Where attributes and texts are, by message.
mod field {
    pub(super) const RESOURCE_ATTRIBUTES: u32 = 1;
    pub(super) const SCOPE_ATTRIBUTES: u32 = 3;
    pub(super) const SPAN_NAME: u32 = 5;
    pub(super) const SPAN_ATTRIBUTES: u32 = 9;
    pub(super) const SPAN_EVENTS: u32 = 11;
    pub(super) const SPAN_LINKS: u32 = 13;
    pub(super) const SPAN_STATUS: u32 = 15;
    pub(super) const STATUS_MESSAGE: u32 = 2;
    pub(super) const EVENT_NAME: u32 = 2;
    pub(super) const EVENT_ATTRIBUTES: u32 = 3;
    pub(super) const LINK_ATTRIBUTES: u32 = 4;
    pub(super) const RECORD_BODY: u32 = 5;
    pub(super) const RECORD_ATTRIBUTES: u32 = 6;
}

impl Redaction {
    /// Appends the fields of a `ResourceSpans` other than its spans.
    pub fn resource(&self, fields: &[u8], out: &mut Vec<u8>) {
        self.header(fields, field::RESOURCE_ATTRIBUTES, out);
    }

    /// Appends the fields of a `ScopeSpans` other than its spans.
    pub fn scope(&self, fields: &[u8], out: &mut Vec<u8>) {
        self.header(fields, field::SCOPE_ATTRIBUTES, out);
    }

    fn header(&self, fields: &[u8], attributes: u32, out: &mut Vec<u8>) {
        let mut copy = Copy::new(fields, out);
        while let Some(field) = copy.next_field() {
            if let (HEADER, Wire::Bytes(body)) = (field.number, field.value) {
                put_nested(copy.replace(), HEADER, body.len(), |out| {
                    self.message(body, attributes, None, out);
                });
            }
        }
        copy.finish();
    }

    /// Appends the body of a span.
    pub fn span(&self, span: &[u8], out: &mut Vec<u8>) {
        let mut copy = Copy::new(span, out);
        while let Some(field) = copy.next_field() {
            let Wire::Bytes(body) = field.value else { continue };
            let (attributes, text) = match field.number {
                field::SPAN_ATTRIBUTES => {
                    self.attribute(&field, body, &mut copy);
                    continue;
                }
                field::SPAN_NAME if self.texts.span_names => {
                    self.masked_text(&field, body, &mut copy);
                    continue;
                }
                field::SPAN_EVENTS => {
                    let named = self.texts.event_names.then_some(field::EVENT_NAME);
                    (field::EVENT_ATTRIBUTES, named)
                }
                field::SPAN_LINKS => (field::LINK_ATTRIBUTES, None),
                // A status has no attributes: no field has the number 0.
                field::SPAN_STATUS if self.texts.status_messages => {
                    (0, Some(field::STATUS_MESSAGE))
                }
                _ => continue,
            };
            put_nested(copy.replace(), field.number, body.len(), |out| {
                self.message(body, attributes, text, out);
            });
        }
        copy.finish();
    }

    /// Appends the body of a log record. Its attributes are as those of spans; its body is a value without a
    /// key, about which the masks for all values are, and the keys of a map in it are as attributes.
    pub fn record(&self, record: &[u8], out: &mut Vec<u8>) {
        let mut copy = Copy::new(record, out);
        while let Some(field) = copy.next_field() {
            match (field.number, field.value) {
                (field::RECORD_ATTRIBUTES, Wire::Bytes(pair)) => {
                    self.attribute(&field, pair, &mut copy);
                }
                (field::RECORD_BODY, Wire::Bytes(any)) => {
                    put_nested(copy.replace(), field.number, any.len(), |out| self.body(any, out));
                }
                _ => {}
            }
        }
        copy.finish();
    }

    fn body(&self, any: &[u8], out: &mut Vec<u8>) {
        let Some(allowed) = &self.allowed else {
            return self.any(any, self.everywhere, DEPTH_MAX, out);
        };
        let mut masked = Vec::with_capacity(any.len());
        self.any(any, self.everywhere, DEPTH_MAX, &mut masked);
        let mut copy = Copy::new(&masked, out);
        while let Some(field) = copy.next_field() {
            let (member::MAP, Wire::Bytes(map)) = (field.number, field.value) else { continue };
            put_nested(copy.replace(), member::MAP, map.len(), |out| {
                let mut pairs = Copy::new(map, out);
                while let Some(pair) = pairs.next_field() {
                    if let (ELEMENT, Wire::Bytes(body)) = (pair.number, pair.value)
                        && !allowed.contains(key_of(body))
                    {
                        pairs.replace();
                    }
                }
                pairs.finish();
            });
        }
        copy.finish();
    }

    /// A message with attributes and maybe a text beside them.
    fn message(&self, message: &[u8], attributes: u32, text: Option<u32>, out: &mut Vec<u8>) {
        let mut copy = Copy::new(message, out);
        while let Some(field) = copy.next_field() {
            let Wire::Bytes(body) = field.value else { continue };
            if field.number == attributes {
                self.attribute(&field, body, &mut copy);
            } else if Some(field.number) == text {
                self.masked_text(&field, body, &mut copy);
            }
        }
        copy.finish();
    }

    fn masked_text(&self, field: &Field<'_>, text: &[u8], copy: &mut Copy<'_, '_>) {
        if let Some(masked) = self.masked(text, self.everywhere) {
            put_bytes(copy.replace(), field.number, &masked);
        }
    }

    /// An attribute at the outermost level.
    fn attribute(&self, field: &Field<'_>, pair: &[u8], copy: &mut Copy<'_, '_>) {
        let rule = self.rule_of(key_of(pair), true);
        if rule == Rule::default() && self.everywhere == 0 && !has_inner(pair) {
            return;
        }
        self.pair(field.number, pair, (rule, self.everywhere), DEPTH_MAX, copy.replace());
    }

    /// Appends what is left of a `KeyValue`, as a field of this number. The masks of what is around it are
    /// about it too.
    fn pair(
        &self,
        number: u32,
        pair: &[u8],
        (rule, around): (Rule, u64),
        depth: u32,
        out: &mut Vec<u8>,
    ) {
        let masks = rule.masks | around;
        let whole = |out: &mut Vec<u8>, text: &[u8]| {
            let key = key_of(pair);
            let guess = key.len() + text.len() + 6;
            put_nested(out, number, guess, |out| put_text_pair(out, key, text));
        };
        if rule.remove {
            return;
        }
        if rule.hash {
            return whole(out, self.hasher.hash(&value_of(pair)).as_bytes());
        }
        if let Some(replacement) = self.replacement(masks) {
            return whole(out, replacement);
        }
        put_nested(out, number, pair.len(), |out| {
            let mut copy = Copy::new(pair, out);
            while let Some(field) = copy.next_field() {
                if let (VALUE, Wire::Bytes(any)) = (field.number, field.value) {
                    put_nested(copy.replace(), VALUE, any.len(), |out| {
                        self.any(any, masks, depth, out);
                    });
                }
            }
            copy.finish();
        });
    }

    /// Appends what is left of an `AnyValue`.
    fn any(&self, any: &[u8], masks: u64, depth: u32, out: &mut Vec<u8>) {
        let mut copy = Copy::new(any, out);
        while let Some(field) = copy.next_field() {
            match (field.number, field.value) {
                (member::ARRAY | member::MAP, Wire::Bytes(body)) => {
                    let out = copy.replace();
                    // What is too deep to be looked at must not leave.
                    if let Some(depth) = depth.checked_sub(1) {
                        put_nested(out, field.number, body.len(), |out| {
                            self.elements(body, field.number, masks, depth, out);
                        });
                    }
                }
                _ if masks == 0 => {}
                (member::STRING, Wire::Bytes(text)) => {
                    if let Some(masked) = self.masked(text, masks) {
                        put_bytes(copy.replace(), member::STRING, &masked);
                    }
                }
                (member::BYTES, Wire::Bytes(bytes)) => self.blob(bytes, masks, &mut copy),
                _ => {
                    if let Some(text) = shown(&field)
                        && let Some(masked) = self.masked(text.as_bytes(), masks)
                    {
                        put_bytes(copy.replace(), member::STRING, &masked);
                    }
                }
            }
        }
        copy.finish();
    }

    /// What of bytes a pattern is found in cannot be told from the rest: all of them are replaced.
    fn blob(&self, bytes: &[u8], masks: u64, copy: &mut Copy<'_, '_>) {
        let found = |(place, mask): (usize, &(Option<regex::bytes::Regex>, Box<[u8]>))| {
            let applies = masks >> place & 1 == 1;
            let pattern = mask.0.as_ref().filter(|_| applies)?;
            pattern.is_match(bytes).then(|| mask.1.clone())
        };
        if let Some(replacement) = self.masks.iter().enumerate().find_map(found) {
            put_bytes(copy.replace(), member::STRING, &replacement);
        }
    }

    /// Appends what is left of an `ArrayValue` or a `KeyValueList`.
    fn elements(&self, body: &[u8], kind: u32, masks: u64, depth: u32, out: &mut Vec<u8>) {
        let mut copy = Copy::new(body, out);
        while let Some(field) = copy.next_field() {
            let (ELEMENT, Wire::Bytes(element)) = (field.number, field.value) else { continue };
            let out = copy.replace();
            if kind == member::MAP {
                let rule = self.rule_of(key_of(element), false);
                self.pair(ELEMENT, element, (rule, masks), depth, out);
            } else {
                put_nested(out, ELEMENT, element.len(), |out| {
                    self.any(element, masks, depth, out);
                });
            }
        }
        copy.finish();
    }

    /// The text after all of these masks, in their order; `None` when none is found in it.
    fn masked(&self, text: &[u8], masks: u64) -> Option<Vec<u8>> {
        let mut masked: Option<Vec<u8>> = None;
        for (place, (pattern, replacement)) in self.masks.iter().enumerate() {
            let Some(pattern) = pattern.as_ref().filter(|_| masks >> place & 1 == 1) else {
                continue;
            };
            let current = masked.as_deref().unwrap_or(text);
            if !pattern.is_match(current) {
                continue;
            }
            let replaced = pattern.replace_all(current, NoExpand(replacement)).into_owned();
            // A pattern of bytes may cut a character in two.
            let whole = std::str::from_utf8(&replaced).is_ok();
            masked = Some(if whole { replaced } else { replacement.to_vec() });
        }
        masked
    }
}

/// Whether a `KeyValue` holds a list or a map, or cannot be read.
fn has_inner(pair: &[u8]) -> bool {
    let mut fields = Reader::new(pair);
    loop {
        let any = match fields.next_field() {
            Ok(Some(Field { number: VALUE, value: Wire::Bytes(any), .. })) => any,
            Ok(Some(_)) => continue,
            Ok(None) => return false,
            Err(_) => return true,
        };
        let mut members = Reader::new(any);
        loop {
            match members.next_field() {
                Ok(Some(Field { number: member::ARRAY | member::MAP, .. })) | Err(_) => {
                    return true;
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
            }
        }
    }
}

/// A number or bool as people write it.
fn shown(field: &Field<'_>) -> Option<String> {
    Some(match (field.number, field.value) {
        (member::BOOL, Wire::Varint(value)) => (value != 0).to_string(),
        (member::INT, Wire::Varint(bits)) => (bits as i64).to_string(),
        (member::DOUBLE, Wire::Fixed64(bits)) => f64::from_bits(bits).to_string(),
        _ => return None,
    })
}

/// Appends an attribute with a text, as a field of this number.
pub(super) fn put_attribute(out: &mut Vec<u8>, number: u32, key: &str, text: &str) {
    let guess = key.len() + text.len() + 6;
    put_nested(out, number, guess, |out| put_text_pair(out, key.as_bytes(), text.as_bytes()));
}

/// Appends an attribute with a bool, as a field of this number.
pub(super) fn put_flag(out: &mut Vec<u8>, number: u32, key: &str) {
    put_nested(out, number, key.len() + 6, |out| {
        put_bytes(out, KEY, key.as_bytes());
        put_nested(out, VALUE, 2, |out| {
            put_varint(out, u64::from(member::BOOL) << 3);
            put_varint(out, 1);
        });
    });
}
