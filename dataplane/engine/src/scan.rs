//! Reads an OTLP trace request without decoding it: first [`check`], then [`walk`] its groups and spans as
//! byte ranges.
//!
//! A *group* is the spans of one scope of one resource; its *headers* are all fields of the resource and of
//! the scope that are not children. Two passes over every level, because field order is not promised: headers
//! may follow the spans that they describe, and a repeated header field merges with the one before.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, LazyLock};

use foldhash::quality::RandomState;
use thiserror::Error;

use crate::wire::{Field, Reader, Value, WireError};

mod check;
mod mend;
mod outline;
mod records;
pub use check::check;
pub use mend::{Mended, mend};
use outline::Outline;
pub use records::{Records, check_logs, mend_logs, walk_logs};

/// A trace ID as it stands in a span.
pub type TraceId = [u8; 16];

/// Field 1 of the request: `resource_spans`.
const RESOURCE_SPANS: u32 = 1;
/// Field 2 of `ResourceSpans` and of `ScopeSpans`: their children.
const CHILDREN: u32 = 2;
/// Their tag, when it is as short as it can be: field 2, length-delimited.
const CHILD_TAG: u8 = (CHILDREN as u8) << 3 | 2;
/// Field 1000 of `ResourceSpans`: spans of instrumentation libraries, before 2022. Reserved since; copying it
/// along with the headers would repeat its spans in every output.
const LEGACY_SPANS: u32 = 1000;
/// Field 1 of a span.
const TRACE_ID: u32 = 1;
/// How a span begins whose first field is a trace ID of 16 bytes.
const TRACE_ID_HEAD: [u8; 2] = [0x0a, 16];
/// Request, resource, scope and span are levels 1 to 4 of nesting.
const SPAN_DEPTH: u32 = 4;

/// Keyed anew in every process, so that nobody can make headers that collide.
static HEADER_HASH: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// Limits of the scanner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// Messages inside messages, the request counted. OTLP itself needs 7 for an attribute; 32 leaves room
    /// for nested attribute values, where decoders in the field stop at about 46.
    pub max_depth: u32,
    /// Spans in a request. Nothing is allocated per span, so this bounds work alone: 4 Mi spans of the least
    /// size, two bytes, make half of the largest request.
    pub max_spans: u32,
    /// Bytes of the headers of a resource, and of a scope. Every output that gets a span gets its headers
    /// too: without a limit, a request of 16 MiB with one huge resource becomes as many copies of it as
    /// batches are begun. 256 KiB hold two of the longest arguments that Linux allows (128 KiB each), and a
    /// batch of 1 MiB holds two such pairs.
    pub max_header_bytes: u32,
}

/// What [`check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Spans with a valid trace ID.
    pub spans: u32,
    /// Spans with another one.
    pub invalid_ids: u32,
    /// Scopes that have spans.
    pub groups: u32,
    /// Bytes of the valid spans, without their tags and lengths.
    pub span_bytes: u64,
    /// Bytes of the headers of all groups, each resource counted once.
    pub header_bytes: u64,
    /// Occurrences of the reserved field that once held spans; they are left out.
    pub legacy_fields: u32,
    /// Fields of the request itself that OTLP does not know.
    pub unknown_request_fields: u32,
    /// Spans that do not begin with their only trace ID.
    odd_ids: u32,
    /// Where everything lies, in a request as nearly all are.
    outline: Option<Arc<Outline>>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ScanError {
    /// It is not a protobuf message, or not this one.
    #[error("not an OTLP trace request: {0}")]
    Wire(#[from] WireError),
    /// A text is not UTF-8.
    #[error("not an OTLP trace request: field {0} is a string but not UTF-8")]
    Text(u32),
    /// It is nested too deeply.
    #[error("messages are nested more than {0} deep; flatten nested attribute values")]
    TooDeep(u32),
    /// It has too many spans.
    #[error("more than {0} spans in one request; send smaller batches")]
    TooManySpans(u32),
    /// The headers of a resource or scope are too long.
    #[error("a resource or scope has more than {0} bytes of attributes; drop or shorten some")]
    HeadersTooLong(u32),
}

/// The bytes of a header, and their hash.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    hash: u64,
}

/// The headers of the spans that follow.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Every field of the `ResourceSpans` but its children, in their order.
    pub resource: Headers<'a>,
    /// Every field of the `ScopeSpans` but its spans, in their order.
    pub scope: Headers<'a>,
}

/// What is done with the parts of a request.
pub trait Visit {
    /// A scope with spans begins.
    fn group(&mut self, group: &Group<'_>);
    /// A span of the group, without tag and length.
    fn span(&mut self, group: &Group<'_>, id: &TraceId, span: &[u8]);
    /// A span of the group whose trace ID is not 16 bytes, or all zero.
    fn invalid_span(&mut self, _span: &[u8]) {}
    /// A log record of the group that belongs to no trace: its trace ID is not 16 bytes, or all zero.
    fn stray(&mut self, _group: &Group<'_>, _record: &[u8]) {}
    /// A field of the request that OTLP does not know, as it stands.
    fn loose(&mut self, _raw: &[u8]) {}
}

// === impl ScanLimits ===

impl Default for ScanLimits {
    fn default() -> Self {
        Self { max_depth: 32, max_spans: 4 << 20, max_header_bytes: 256 << 10 }
    }
}

// === impl Shape ===

impl Shape {
    /// The shape of a request of which nothing is known; for a walk that must look at every field of every
    /// span.
    pub const UNKNOWN: Self = Self {
        spans: 0,
        invalid_ids: 0,
        groups: 0,
        span_bytes: 0,
        header_bytes: 0,
        legacy_fields: 0,
        unknown_request_fields: 0,
        odd_ids: 1,
        outline: None,
    };
}

// === impl Headers ===

impl<'a> Headers<'a> {
    /// Headers that stand in one piece.
    #[inline]
    pub fn whole(bytes: &'a [u8]) -> Self {
        let mut hasher = HEADER_HASH.build_hasher();
        hasher.write(bytes);
        Self { bytes, hash: hasher.finish() }
    }

    /// Headers in one piece whose hash was taken before, in this process.
    #[inline]
    pub(crate) const fn hashed(bytes: &'a [u8], hash: u64) -> Self {
        Self { bytes, hash }
    }

    /// The bytes.
    #[inline]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// A hash of the bytes, the same for equal bytes within this process.
    #[inline]
    pub const fn hash(&self) -> u64 {
        self.hash
    }
}

#[inline]
fn valid_id(bytes: &[u8]) -> Option<&TraceId> {
    <&TraceId>::try_from(bytes).ok().filter(|id| **id != [0; 16])
}

// === walk ===

/// What a walk needs beside the request, kept from one resource to the next.
struct Walker<'v, V> {
    visitor: &'v mut V,
    /// Whether every span begins with its only trace ID.
    plain_ids: bool,
    /// Headers in several pieces are put together here.
    resource: Vec<u8>,
    scope: Vec<u8>,
}

/// Visits every group and span of a request that has this `shape`.
///
/// # Errors
/// At the first field that is malformed; a request that passed [`check`] has none.
pub fn walk(request: &[u8], shape: &Shape, visitor: &mut impl Visit) -> Result<(), ScanError> {
    if let Some(outline) = &shape.outline {
        return outline.walk(request, visitor);
    }
    let plain_ids = shape.odd_ids == 0;
    let mut walker = Walker { visitor, plain_ids, resource: Vec::new(), scope: Vec::new() };
    let mut fields = Reader::new(request);
    while let Some(field) = fields.next_field()? {
        match field.value {
            Value::Bytes(resource) if field.number == RESOURCE_SPANS => {
                walker.resource(resource)?
            }
            _ => walker.visitor.loose(field.raw),
        }
    }
    Ok(())
}

impl<V: Visit> Walker<'_, V> {
    fn resource(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        let mut pieces = std::mem::take(&mut self.resource);
        let headers = headers_of(bytes, &[CHILDREN, LEGACY_SPANS], &mut pieces)?;
        let headers = headers.map_or_else(|| Headers::whole(&pieces), Headers::whole);
        let mut fields = Reader::new(bytes);
        while let Some(field) = fields.next_field()? {
            if let (CHILDREN, Value::Bytes(scope)) = (field.number, field.value) {
                self.scope(scope, headers)?;
            }
        }
        self.resource = pieces;
        Ok(())
    }

    fn scope(&mut self, bytes: &[u8], resource: Headers<'_>) -> Result<(), ScanError> {
        let mut pieces = std::mem::take(&mut self.scope);
        let scope = headers_of(bytes, &[CHILDREN], &mut pieces)?;
        let scope = scope.map_or_else(|| Headers::whole(&pieces), Headers::whole);
        let group = Group { resource, scope };
        let mut announced = false;
        let mut fields = Reader::new(bytes);
        while let Some(tag) = fields.first() {
            let span = if tag == CHILD_TAG {
                fields.skip_byte();
                fields.delimited()?
            } else {
                match fields.next_field()? {
                    Some(Field { number: CHILDREN, value: Value::Bytes(span), .. }) => span,
                    _ => continue,
                }
            };
            let Some(id) = self.id_of(span)? else {
                self.visitor.invalid_span(span);
                continue;
            };
            if !announced {
                self.visitor.group(&group);
                announced = true;
            }
            self.visitor.span(&group, id, span);
        }
        self.scope = pieces;
        Ok(())
    }

    #[inline]
    fn id_of<'s>(&self, span: &'s [u8]) -> Result<Option<&'s TraceId>, ScanError> {
        if self.plain_ids {
            return Ok(span
                .get(2..18)
                .filter(|_| span.starts_with(&TRACE_ID_HEAD))
                .and_then(valid_id));
        }
        let mut id: &[u8] = &[];
        let mut fields = Reader::new(span);
        while let Some(field) = fields.next_field()? {
            if let (TRACE_ID, Value::Bytes(bytes)) = (field.number, field.value) {
                id = bytes;
            }
        }
        Ok(valid_id(id))
    }
}

/// The fields of a message but those `left_out`: the one piece that they are, or `None` after putting several
/// together in `pieces`.
fn headers_of<'a>(
    bytes: &'a [u8],
    left_out: &[u32],
    pieces: &mut Vec<u8>,
) -> Result<Option<&'a [u8]>, ScanError> {
    pieces.clear();
    let mut piece = 0..0;
    let mut several = false;
    let mut fields = Reader::new(bytes);
    loop {
        // Children are nearly all fields, and what they hold is of no interest here.
        while fields.first() == Some(CHILD_TAG) {
            fields.skip_byte();
            fields.delimited()?;
        }
        let start = bytes.len() - fields.remaining();
        let Some(field) = fields.next_field()? else {
            break;
        };
        if left_out.contains(&field.number) {
            continue;
        }
        let end = start + field.raw.len();
        if piece.end == start {
            piece.end = end;
        } else if piece.is_empty() {
            piece = start..end;
        } else {
            pieces.extend_from_slice(&bytes[piece]);
            several = true;
            piece = start..end;
        }
    }
    if several {
        pieces.extend_from_slice(&bytes[piece]);
        return Ok(None);
    }
    Ok(Some(&bytes[piece]))
}

#[cfg(test)]
mod tests;
