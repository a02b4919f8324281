//! Where the parts of a checked request lie, noted while it is checked, so that no later pass has to find its
//! way from field to field again.
//!
//! That is what a second pass costs: the place of a span follows from the length of the one before, so a
//! processor cannot read ahead, and waits for memory at each. An outline is a list. Requests that are not as
//! nearly all are have none, and are walked field by field.

use std::sync::Arc;

use super::{Group, Headers, ScanError, Shape, Visit, valid_id};
use crate::wire::WireError;

/// Spans that are noted of one request: as many as a Collector's batch has unless told otherwise, in 64 KiB.
const SPANS_MAX: usize = 8192;
/// Groups that are noted of one request: four times the 256 resources that a batch is made for, in 44 KiB.
const GROUPS_MAX: usize = 1024;
/// For how many bytes of a request a span is expected; usual ones have 400 to 600.
const SPAN_BYTES: usize = 512;
/// Where a trace ID lies in a span that begins with it.
const ID: std::ops::Range<usize> = 2..18;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline {
    groups: Vec<GroupAt>,
    spans: Vec<At>,
}

/// Bytes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct At {
    start: u32,
    end: u32,
}

/// Header fields: those before the children and those after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeadersAt {
    before: At,
    after: At,
    /// They lie in more than two pieces.
    scattered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GroupAt {
    resource: HeadersAt,
    scope: HeadersAt,
    /// Its spans end here in the list of spans.
    end: u32,
}

/// Notes an outline; gives up on what is out of the ordinary.
#[derive(Debug)]
pub(super) struct Draft {
    base: usize,
    given_up: bool,
    outline: Outline,
    /// Groups of the resource under way, which lack its headers, begin here.
    resource_from: usize,
}

// === impl HeadersAt ===

impl HeadersAt {
    /// Takes in a header field.
    pub(super) fn add(&mut self, draft: &Draft, field: &[u8]) {
        let at = draft.at(field);
        if self.before.is_empty() {
            self.before = at;
        } else if self.after.is_empty() && self.before.end == at.start {
            self.before.end = at.end;
        } else if self.after.is_empty() {
            self.after = at;
        } else if self.after.end == at.start {
            self.after.end = at.end;
        } else {
            self.scattered = true;
        }
    }

    /// The headers in one piece, put together in `pieces` if they are two.
    fn read<'a>(
        &self,
        request: &'a [u8],
        pieces: &'a mut Vec<u8>,
    ) -> Result<Headers<'a>, ScanError> {
        let before = self.before.of(request)?;
        if self.after.is_empty() {
            return Ok(Headers::whole(before));
        }
        pieces.clear();
        pieces.extend_from_slice(before);
        pieces.extend_from_slice(self.after.of(request)?);
        Ok(Headers::whole(pieces))
    }
}

impl At {
    const fn is_empty(self) -> bool {
        self.start == self.end
    }

    #[inline]
    fn of(self, request: &[u8]) -> Result<&[u8], ScanError> {
        let bytes = request.get(self.start as usize..self.end as usize);
        bytes.ok_or(ScanError::Wire(WireError::Truncated))
    }
}

// === impl Draft ===

impl Draft {
    /// Of a request, about whose parts it will be told.
    pub(super) fn new(request: &[u8]) -> Self {
        Self {
            base: request.as_ptr().addr(),
            given_up: u32::try_from(request.len()).is_err(),
            outline: Outline {
                groups: Vec::new(),
                spans: Vec::with_capacity((request.len() / SPAN_BYTES).min(SPANS_MAX)),
            },
            resource_from: 0,
        }
    }

    /// A span that begins with its only trace ID, which is valid.
    #[inline]
    pub(super) fn span(&mut self, span: &[u8]) {
        if self.given_up || self.outline.spans.len() == SPANS_MAX {
            self.given_up = true;
            return;
        }
        let at = self.at(span);
        self.outline.spans.push(at);
    }

    /// A scope is over; it had spans.
    pub(super) fn group(&mut self, scope: HeadersAt) {
        if self.outline.groups.len() == GROUPS_MAX || scope.scattered {
            self.given_up = true;
            return;
        }
        let end = self.outline.spans.len() as u32;
        self.outline.groups.push(GroupAt { resource: HeadersAt::default(), scope, end });
    }

    /// A resource is over.
    pub(super) fn resource(&mut self, resource: HeadersAt) {
        self.given_up |= resource.scattered;
        for group in self.outline.groups.iter_mut().skip(self.resource_from) {
            group.resource = resource;
        }
        self.resource_from = self.outline.groups.len();
    }

    /// The outline of a request of this shape, if nothing in it is out of the ordinary.
    pub(super) fn finish(self, shape: &Shape) -> Option<Arc<Outline>> {
        let odd =
            [shape.odd_ids, shape.invalid_ids, shape.legacy_fields, shape.unknown_request_fields];
        let plain = odd == [0; 4] && !self.given_up && shape.spans > 0;
        plain.then(|| Arc::new(self.outline))
    }

    fn at(&self, part: &[u8]) -> At {
        let start = part.as_ptr().addr().wrapping_sub(self.base);
        At { start: start as u32, end: (start + part.len()) as u32 }
    }
}

// === impl Outline ===

impl Outline {
    /// Visits every group and span of the request of which this is the outline.
    pub(super) fn walk(&self, request: &[u8], visitor: &mut impl Visit) -> Result<(), ScanError> {
        let (mut resource_pieces, mut scope_pieces) = (Vec::new(), Vec::new());
        let (mut groups, mut from) = (self.groups.as_slice(), 0);
        while let Some(first) = groups.first() {
            let same = groups.iter().take_while(|group| group.resource == first.resource).count();
            let resource = first.resource.read(request, &mut resource_pieces)?;
            for group_at in &groups[..same] {
                let scope = group_at.scope.read(request, &mut scope_pieces)?;
                let group = Group { resource, scope };
                visitor.group(&group);
                let end = group_at.end as usize;
                for at in self.spans.get(from..end).unwrap_or_default() {
                    let span = at.of(request)?;
                    match span.get(ID).and_then(valid_id) {
                        Some(id) => visitor.span(&group, id, span),
                        None => visitor.invalid_span(span),
                    }
                }
                from = end;
            }
            groups = &groups[same..];
        }
        Ok(())
    }
}
