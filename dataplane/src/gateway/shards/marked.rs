//! Kept spans that tell of their decision, apart by what they tell, until they are rewritten and sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ringtail_engine::batch::Batch;
use ringtail_engine::policy::Program;
use ringtail_engine::rewrite::sampling::Mark;

/// Programs whose notes are understood: those of the last manifests. Traces wait for an hour at most, and
/// nobody changes policies more often than every few minutes for long.
const PROGRAMS_MAX: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// The newest first.
    programs: VecDeque<Arc<Program>>,
    batches: BTreeMap<Mark, Batch>,
    /// The one that was filled last.
    last: Option<Mark>,
    spare: Option<Batch>,
}

// === impl Marked ===

impl Marked {
    /// Understands the notes of a program from now on.
    pub(super) fn adopt(&mut self, program: &Arc<Program>) {
        self.programs.push_front(Arc::clone(program));
        self.programs.truncate(PROGRAMS_MAX);
    }

    /// Whether any program has kept spans tell anything.
    pub(super) fn is_on(&self) -> bool {
        self.programs.iter().any(|program| program.records().any())
    }

    /// What spans tell that were kept by a decision with this note.
    pub(super) fn mark(&self, note: u32, late: bool) -> Mark {
        let known = self.programs.iter().find_map(|program| program.mark(note, late));
        let unknown = || self.programs.front().map(|newest| newest.unknown_mark());
        known.or_else(unknown).unwrap_or_default()
    }

    /// Where spans gather that tell this.
    pub(super) fn batch(&mut self, mark: &Mark) -> &mut Batch {
        if !self.batches.contains_key(mark) {
            let empty = self.spare.take().unwrap_or_default();
            self.batches.insert(mark.clone(), empty);
        }
        self.batches.entry(mark.clone()).or_default()
    }

    /// Whether another batch than before is to be filled.
    pub(super) fn turn_to(&mut self, mark: &Mark) -> bool {
        let turns = self.last.as_ref() != Some(mark);
        if turns {
            self.last = Some(mark.clone());
        }
        turns
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Bytes of the spans, or somewhat more.
    pub(super) fn encoded_len_max(&self) -> usize {
        self.batches.values().map(Batch::encoded_len_max).sum()
    }

    /// Bytes that all of it occupies.
    pub(super) fn held_bytes(&self) -> usize {
        self.batches.values().chain(&self.spare).map(Batch::held_bytes).sum()
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> BTreeMap<Mark, Batch> {
        self.last = None;
        std::mem::take(&mut self.batches)
    }

    /// Takes an emptied batch back for reuse.
    pub(super) fn recycle(&mut self, mut batch: Batch) {
        batch.clear();
        self.spare = Some(batch);
    }
}
