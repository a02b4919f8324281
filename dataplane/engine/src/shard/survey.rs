//! A first look at a request: which traces of it are a shard's, so that somebody can say where the spans of
//! each of them belong before any is stored.

use hashbrown::HashTable;

use super::Shard;
use crate::key::{TraceKey, shard_of};
use crate::scan::{self, Group, ScanError, Shape, TraceId, Visit};

/// The run of a trace that is another shard's.
pub(super) const FOREIGN: u32 = u32::MAX;

/// Room that is kept between requests: those of 8,192 spans, each of a trace of its own, in 256 KiB.
const KEPT: usize = 8192;

/// One trace of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surveyed {
    /// The trace.
    pub key: TraceKey,
    /// Its spans in the request.
    pub spans: u32,
    /// Their bytes.
    pub bytes: u32,
}

/// What is found in a request. It is used again for the next one, so that nothing is allocated for either.
#[derive(Debug, Default)]
pub struct Survey {
    traces: Vec<Surveyed>,
    by_key: HashTable<u32>,
    /// Of each run of spans of one trace, the trace's place in the list.
    pub(super) runs: Vec<u32>,
}

struct Look<'a> {
    shard: &'a Shard,
    survey: &'a mut Survey,
    last: Option<TraceId>,
}

// === impl Survey ===

impl Survey {
    /// The traces of the shard, in order of their first span.
    pub fn traces(&self) -> &[Surveyed] {
        &self.traces
    }

    fn clear(&mut self) {
        self.traces.clear();
        self.traces.shrink_to(KEPT);
        self.runs.clear();
        self.runs.shrink_to(KEPT);
        self.by_key.clear();
        // An empty table has nothing to hash again.
        self.by_key.shrink_to(KEPT, |_| 0);
    }

    fn place(&mut self, key: TraceKey) -> u32 {
        let traces = &mut self.traces;
        let same = |place: &u32| traces.get(*place as usize).is_some_and(|trace| trace.key == key);
        if let Some(place) = self.by_key.find(key.0, same) {
            return *place;
        }
        let place = traces.len() as u32;
        traces.push(Surveyed { key, spans: 0, bytes: 0 });
        let hash = |place: &u32| traces.get(*place as usize).map_or(0, |trace| trace.key.0);
        self.by_key.insert_unique(key.0, place, hash);
        place
    }
}

impl Shard {
    /// Looks at a request that has passed [`scan::check`].
    ///
    /// # Errors
    /// When it has not.
    pub fn survey(
        &self,
        request: &[u8],
        shape: &Shape,
        survey: &mut Survey,
    ) -> Result<(), ScanError> {
        survey.clear();
        scan::walk(request, shape, &mut Look { shard: self, survey, last: None })
    }

    /// How a trace was decided, if this shard remembers.
    #[inline]
    pub fn recall(&self, key: TraceKey) -> Option<bool> {
        self.memory.recall(key)
    }
}

impl Visit for Look<'_> {
    fn group(&mut self, _group: &Group<'_>) {}

    fn span(&mut self, _group: &Group<'_>, id: &TraceId, span: &[u8]) {
        let Self { shard, survey, last } = self;
        if *last != Some(*id) {
            *last = Some(*id);
            let key = shard.config.seed.key(id);
            let ours = shard.config.shards <= 1
                || shard_of(key, shard.config.shards) == shard.config.shard;
            let place = if ours { survey.place(key) } else { FOREIGN };
            survey.runs.push(place);
        }
        let place = survey.runs.last().copied().unwrap_or(FOREIGN);
        if let Some(trace) = survey.traces.get_mut(place as usize) {
            trace.spans += 1;
            trace.bytes = trace.bytes.saturating_add(span.len() as u32);
        }
    }
}
