//! The labels of a series, as the bytes by which it is found: what its resource is called, then name, kind
//! and status of the span, then its dimensions.

use super::VALUE_BYTES_MAX;
use super::plan::Plan;

/// The length that says that there is no text.
const ABSENT: u16 = u16::MAX;
/// The kind and the status of series that do not tell theirs.
pub(super) const UNTOLD: u8 = 254;
/// A kind or status that OTLP does not know.
pub(super) const UNKNOWN: u8 = 255;

/// What OTLP calls the kinds and statuses.
const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUSES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// The resource of a series, as far as series tell resources apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Owner<'a> {
    /// `service.name`, whatever its type.
    pub service: &'a str,
    /// `service.namespace`.
    pub namespace: Option<&'a str>,
    /// `service.instance.id`.
    pub instance: Option<&'a str>,
}

/// The labels of a series.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels<'a> {
    /// The resource; none for the overflow series.
    pub owner: Option<Owner<'a>>,
    /// Attributes as OTLP names them, in order.
    pub attributes: Vec<(&'a str, &'a str)>,
}

// === writing ===

/// Appends a text, cut to the length that a label may have.
#[inline]
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let text = cut(text);
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text);
}

/// Appends that there is no text.
#[inline]
pub(super) fn put_absent(out: &mut Vec<u8>) {
    out.extend_from_slice(&ABSENT.to_le_bytes());
}

/// As much of a UTF-8 text as a label takes, whole characters.
#[inline]
pub(super) fn cut(text: &[u8]) -> &[u8] {
    if text.len() <= VALUE_BYTES_MAX {
        return text;
    }
    let continues = |end: usize| text.get(end).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (0..=VALUE_BYTES_MAX).rev().find(|end| !continues(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

// === impl Labels ===

impl<'a> Labels<'a> {
    /// Of the series with this key, which is empty for the overflow series.
    pub fn of(key: &'a [u8], plan: &'a Plan, of_events: bool) -> Self {
        if key.is_empty() {
            return Self { owner: None, attributes: vec![("otel.metric.overflow", "true")] };
        }
        let mut rest = key;
        let service = text(&mut rest).unwrap_or_default();
        let named = byte(&mut rest) == 1;
        let owner = Owner { service, namespace: text(&mut rest), instance: text(&mut rest) };
        let mut attributes = Vec::with_capacity(4 + plan.names.len());
        if plan.names_service() {
            // As in the connector a name that is no string is none here, but is one in `job`.
            attributes.push(("service.name", if named { service } else { "" }));
        }
        attributes.extend(text(&mut rest).map(|name| ("span.name", name)));
        let word = |number: u8, words: &[&'static str]| match number {
            UNTOLD => None,
            number => Some(words.get(usize::from(number)).copied().unwrap_or_default()),
        };
        attributes.extend(word(byte(&mut rest), &KINDS).map(|kind| ("span.kind", kind)));
        attributes.extend(word(byte(&mut rest), &STATUSES).map(|code| ("status.code", code)));
        for name in plan.dimensions(of_events) {
            attributes.extend(text(&mut rest).map(|value| (name, value)));
        }
        Self { owner: Some(owner), attributes }
    }
}

fn byte(rest: &mut &[u8]) -> u8 {
    let Some((byte, after)) = rest.split_first() else { return UNTOLD };
    *rest = after;
    *byte
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (length, after) = rest.split_first_chunk::<2>()?;
    let length = u16::from_le_bytes(*length);
    if length == ABSENT {
        *rest = after;
        return None;
    }
    let (text, after) = after.split_at_checked(usize::from(length))?;
    *rest = after;
    // What was checked at the door is UTF-8, and is cut between characters.
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (prefix, kept) in [(0, 256), (1, 255), (2, 256)] {
            let text = "a".repeat(prefix) + &"ä".repeat(200);
            assert_eq!(cut(text.as_bytes()).len(), kept, "{prefix}");
            assert!(std::str::from_utf8(cut(text.as_bytes())).is_ok());
        }
        assert_eq!(cut(&[0x80; 300]), b"");
        assert_eq!(cut(&[b'a'; 256]).len(), 256);
    }
}
