//! Which of the kept spans an exporter gets: those for which its condition holds.

use std::sync::Arc;

use bytes::Bytes;
use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::policy::{Condition, Unanswered};
use ringtail_engine::scan::{self, Group, Shape, TraceId, Visit};

use crate::gateway::output::Kept;

/// What a condition made of a request.
#[derive(Debug)]
pub(super) struct Filtered {
    /// The spans for which it holds, if there are any.
    pub(super) kept: Option<Kept>,
    /// Spans for which it does not.
    pub(super) left_out: u64,
    /// Spans that it could not be asked about; they are not exported either.
    pub(super) unanswered: u64,
}

struct Sieve<'a> {
    condition: &'a Condition,
    batch: Batch,
    group: Option<GroupRef>,
    left_out: u64,
    unanswered: u64,
}

/// Asks `condition` of every span. A request of which nothing is left out stays as it is.
pub(super) fn apply(condition: &Condition, kept: Kept) -> Filtered {
    let batch = Batch::default();
    let mut sieve = Sieve { condition, batch, group: None, left_out: 0, unanswered: 0 };
    if let Err(error) = scan::walk(&kept.message, &Shape::UNKNOWN, &mut sieve) {
        tracing::error!(%error, "a request of our own does not parse; please report this");
    }
    let Sieve { batch, left_out, unanswered, .. } = sieve;
    if left_out + unanswered == 0 {
        return Filtered { kept: Some(kept), left_out, unanswered };
    }
    let spans = u64::from(batch.spans());
    let message = || {
        let mut message = Vec::with_capacity(batch.encoded_len());
        batch.encode(&mut message);
        Bytes::from(message)
    };
    let exported = Arc::clone(&kept.exported);
    let kept = (spans > 0).then(|| Kept { message: message(), spans, exported });
    Filtered { kept, left_out, unanswered }
}

impl Visit for Sieve<'_> {
    fn group(&mut self, _group: &Group<'_>) {
        self.group = None;
    }

    fn span(&mut self, group: &Group<'_>, _id: &TraceId, span: &[u8]) {
        match self.condition.holds(group, span) {
            Ok(true) => {
                let batch = &mut self.batch;
                let intern = || batch.intern(&group.resource, &group.scope);
                let group = *self.group.get_or_insert_with(intern);
                self.batch.push(group, span);
            }
            Ok(false) => self.left_out += 1,
            Err(Unanswered) => self.unanswered += 1,
        }
    }
}
