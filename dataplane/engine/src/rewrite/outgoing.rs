//! Kept spans on their way out: what a gateway does to a batch of them before it encodes it for its
//! exporters.

use super::redaction::Redaction;
use super::sampling::Mark;
use crate::batch::{Batch, GroupRef};
use crate::scan::{self, Group, Headers, ScanError, Shape, TraceId, Visit};

/// Rewrites kept spans. Its buffers are used again.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// What was rewritten.
    ready: Batch,
    resource: Vec<u8>,
    scope: Vec<u8>,
    span: Vec<u8>,
    spare: Vec<u8>,
    encoded: Vec<u8>,
}

/// The walk over one batch.
struct Rewriter<'a> {
    outgoing: &'a mut Outgoing,
    redaction: Option<&'a Redaction>,
    mark: &'a Mark,
    group: Option<GroupRef>,
}

/// The same over log records, those of no trace too.
struct RecordRewriter<'a>(Rewriter<'a>);

/// The buffers keep this much: the usual batch of kept spans, 1 MiB.
const KEEP_BYTES: usize = 1 << 20;

// === impl Outgoing ===

impl Outgoing {
    /// Rewrites the spans of a batch and adds them to those that are ready.
    ///
    /// # Errors
    /// When a span is none; nothing after it is added then.
    pub fn add(
        &mut self,
        batch: &Batch,
        redaction: Option<&Redaction>,
        mark: &Mark,
    ) -> Result<(), ScanError> {
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        batch.encode(&mut encoded);
        let mut rewriter = Rewriter { outgoing: self, redaction, mark, group: None };
        let walked = scan::walk(&encoded, &Shape::UNKNOWN, &mut rewriter);
        encoded.clear();
        encoded.shrink_to(KEEP_BYTES);
        self.encoded = encoded;
        walked
    }

    /// Redacts the log records of a request and adds them to those that are ready.
    ///
    /// # Errors
    /// When it is no such request; nothing after the error is added then.
    pub fn add_logs(&mut self, request: &[u8], redaction: &Redaction) -> Result<(), ScanError> {
        let mark = &Mark::default();
        let outgoing = Rewriter { outgoing: self, redaction: Some(redaction), mark, group: None };
        scan::walk_logs(request, &mut RecordRewriter(outgoing))
    }

    /// The spans that are ready.
    pub fn ready(&self) -> &Batch {
        &self.ready
    }

    /// They have been sent.
    pub fn clear(&mut self) {
        self.ready.clear();
        for buffer in [&mut self.resource, &mut self.scope, &mut self.span, &mut self.spare] {
            buffer.clear();
            buffer.shrink_to(KEEP_BYTES);
        }
    }

    /// Bytes that all of it occupies.
    pub fn held_bytes(&self) -> usize {
        let buffers = [&self.resource, &self.scope, &self.span, &self.spare, &self.encoded];
        self.ready.held_bytes() + buffers.map(Vec::capacity).iter().sum::<usize>()
    }
}

impl Visit for Rewriter<'_> {
    fn group(&mut self, group: &Group<'_>) {
        let Outgoing { ready, resource, scope, spare, .. } = &mut *self.outgoing;
        let (raw_resource, raw_scope) = (group.resource.bytes(), group.scope.bytes());
        for buffer in [&mut *resource, &mut *scope, &mut *spare] {
            buffer.clear();
        }
        match self.redaction {
            Some(redaction) => {
                redaction.resource(raw_resource, resource);
                redaction.scope(raw_scope, spare);
            }
            None => {
                resource.extend_from_slice(raw_resource);
                spare.extend_from_slice(raw_scope);
            }
        }
        // After redaction, which might not let the names of policies pass.
        self.mark.scope(spare, scope);
        self.group = Some(ready.intern(&Headers::whole(resource), &Headers::whole(scope)));
    }

    fn span(&mut self, _group: &Group<'_>, id: &TraceId, span: &[u8]) {
        let Some(group) = self.group else { return };
        let Outgoing { ready, span: redacted, spare, .. } = &mut *self.outgoing;
        redacted.clear();
        spare.clear();
        match self.redaction {
            Some(redaction) => {
                redaction.span(span, redacted);
                self.mark.span(redacted, id, spare);
            }
            None => self.mark.span(span, id, spare),
        }
        ready.push(group, spare);
    }
}

impl Visit for RecordRewriter<'_> {
    fn group(&mut self, group: &Group<'_>) {
        self.0.group(group);
    }

    fn span(&mut self, group: &Group<'_>, _id: &TraceId, record: &[u8]) {
        self.stray(group, record);
    }

    fn stray(&mut self, _group: &Group<'_>, record: &[u8]) {
        let Rewriter { outgoing, redaction: Some(redaction), group: Some(group), .. } = &mut self.0
        else {
            return;
        };
        outgoing.span.clear();
        redaction.record(record, &mut outgoing.span);
        outgoing.ready.push(*group, &outgoing.span);
    }
}
