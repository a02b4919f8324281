//! A shard whose traces somebody else watches over: what is stored, judged, decided and handed on, and when,
//! is said by [`crate::ownership`]. The shard has the bytes.

use super::arrival::Elsewhere;
use super::stats::Early;
use super::{DYING_MAX, Inserted, Shard};
use crate::Millis;
use crate::batch::Batch;
use crate::buffer::deadline::BUCKET_MS;
use crate::buffer::index::{Entry, Stage};
use crate::key::TraceKey;
use crate::ownership::Due;
use crate::ownership::action::By;
use crate::ownership::message::{Origin, Verdict};
use crate::policy::Program;
use crate::scan::{Group, ScanError, Shape};

/// A trace that is due but not ours to decide is looked at again after this.
const LOOK_AGAIN: Millis = 500;

/// Where the spans of a trace in a request go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: they are not meant.
    Nowhere,
    /// Into the buffer. The first of the trace's spans was taken in then; how steady it is from now on.
    Store(Millis, Steady),
    /// The way of their trace.
    Follow(bool),
    /// The way of their trace, which was kept: to [`Guide::keep`], with this number.
    Recorded(usize),
    /// Nowhere: they were exported with their trace before.
    Repeated,
    /// To [`Guide::pass`], as the part with this number.
    Pass(usize),
}

/// Says where spans go that do not simply join a steady trace.
pub trait Guide {
    /// Of a trace of the shard, before a run of its spans.
    fn place(&mut self, key: TraceKey) -> Place;

    /// Takes a span that has the place [`Place::Pass`].
    fn pass(&mut self, part: usize, group: &Group<'_>, span: &[u8]);

    /// Takes a span that has the place [`Place::Recorded`].
    fn keep(&mut self, number: usize, group: &Group<'_>, span: &[u8]);

    /// What comes next is of another group.
    fn leave_group(&mut self);
}

/// A trace whose spans simply join it, so that nobody is asked about them, if their [`Origin`] counts as much
/// as that of those before. None: somebody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Steady(u8);

/// How all spans of a request come in, unless a [`Guide`] says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Traces that are at least as steady are not asked for.
    pub steady: Steady,
    /// When the first of the spans was taken in.
    pub first: Millis,
    /// Whether they come into the fleet here and for the first time, so that span metrics count them.
    pub counts: bool,
}

/// What became of the spans of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Taken into the buffer.
    pub stored: u64,
    /// In the buffer already.
    pub duplicates: u64,
    /// Of traces that were kept before: pushed to `out`, or went to [`Guide::keep`].
    pub late_kept: u64,
    /// Of traces that were dropped before.
    pub late_dropped: u64,
    /// Exported before.
    pub repeated: u64,
    /// Went to [`Guide::pass`].
    pub passed: u64,
    /// Not meant, or of other shards.
    pub left: u64,
    /// The request ended here; never of a request that passed [`crate::scan::check`].
    pub failed: Option<ScanError>,
}

// === impl Steady ===

impl Steady {
    /// Of spans of this origin.
    pub fn new(origin: Origin) -> Self {
        Self(origin as u8 + 1)
    }

    /// Whether spans that come in like `manner` join a trace like this without further ado.
    #[inline]
    pub(super) fn admits(self, manner: Self) -> bool {
        self.0 != 0 && self.0 <= manner.0
    }

    /// Of spans of both, if somebody is asked about neither.
    pub(super) fn joined(self, other: Self) -> Self {
        if self.0 == 0 { other } else { self.min(other) }
    }

    fn origin(self) -> Origin {
        match self.0 {
            1 => Origin::Client,
            2 => Origin::Agent,
            // Of what is not steady others know more: this counts least.
            _ => Origin::Replay,
        }
    }
}

impl Shard {
    /// Takes in the spans of a request: those of steady traces at once, the others where `guide` says.
    pub fn admit(
        &mut self,
        request: &[u8],
        shape: &Shape,
        (manner, guide): (Manner, &mut dyn Guide),
        now: Millis,
        out: &mut Batch,
    ) -> Admitted {
        self.bury();
        let inserted = self.arrive(request, shape, Some((manner, guide)), now, out);
        let Inserted { stored, duplicates, late_kept, late_dropped, foreign, failed, .. } =
            inserted.0;
        let Elsewhere { repeated, passed } = inserted.1;
        Admitted {
            stored,
            duplicates,
            late_kept,
            late_dropped,
            repeated,
            passed,
            left: foreign,
            failed,
        }
    }

    /// Tells of the traces that are `wanted`: what was taken in when first, from where, how many bytes. From
    /// now on somebody is asked about their spans.
    pub fn unsettle(
        &mut self,
        wanted: impl Fn(TraceKey) -> bool,
        mut tell: impl FnMut(TraceKey, Millis, Origin, u64),
    ) {
        for entry in self.index.iter_mut().filter(|entry| wanted(entry.key)) {
            let origin = entry.steady.origin();
            entry.steady = Steady::default();
            tell(entry.key, entry.first_seen, origin, entry.facts.bytes);
        }
    }

    /// Bytes of spans that are held of a trace.
    pub fn weight(&self, key: TraceKey) -> u64 {
        let slot = self.index.find_key(key, |_| true);
        slot.and_then(|slot| self.index.get(slot)).map_or(0, |entry| entry.facts.bytes)
    }

    // === Judging ===

    /// Judges at most `most` traces that are due and `owned`. Each then waits for [`Self::conclude`],
    /// [`Self::put_back`] or [`Self::take`]. True when more are due.
    pub fn judge_due(
        &mut self,
        now: Millis,
        most: usize,
        owned: impl Fn(TraceKey) -> bool,
        judged: &mut Vec<Due>,
    ) -> bool {
        self.advance(now);
        for _ in 0..most {
            let Some(slot) = self.deadlines.pop_due(&mut self.index, self.now) else {
                return false;
            };
            let key = self.index.get(slot).map(|entry| entry.key);
            if key.is_some_and(&owned) {
                self.judge_slot(slot, None, judged);
            } else {
                self.deadlines.insert(&mut self.index, slot, self.now, self.now + LOOK_AGAIN);
            }
        }
        self.deadlines.next().is_some_and(|due| due <= self.now)
    }

    /// Judges traces before their time: those of the oldest bucket first and the heaviest of them first, but
    /// none before a quarter of its wait has passed, until they have so many bytes.
    pub fn judge_oldest(
        &mut self,
        now: Millis,
        (bytes, most): (u64, usize),
        owned: impl Fn(TraceKey) -> bool,
        judged: &mut Vec<Due>,
    ) {
        self.advance(now);
        let (mut slots, mut from) = (Vec::new(), 0);
        let mut wanted = bytes.saturating_sub(self.judged_bytes);
        let most = judged.len() + most;
        while wanted > 0 && judged.len() < most && self.has_old_traces() {
            let Some(bucket) = self.old_traces(from, &mut slots) else {
                return;
            };
            from = bucket + 1;
            for slot in &slots {
                let Some(entry) = self.index.get(*slot).filter(|entry| owned(entry.key)) else {
                    continue;
                };
                if wanted == 0 || judged.len() >= most {
                    return;
                }
                wanted = wanted.saturating_sub(entry.facts.bytes.max(1));
                self.cancel(*slot);
                self.judge_slot(*slot, Some(Early::MemoryPressure), judged);
            }
        }
    }

    /// Judges traces, due or not, oldest first: the process stops, and nobody takes them. At most `most` of
    /// them, and no more once they have `bytes`. Whether there may be others.
    pub fn judge_any(
        &mut self,
        now: Millis,
        (bytes, most): (u64, usize),
        judged: &mut Vec<Due>,
    ) -> bool {
        self.advance(now);
        let until = self.judged_bytes.saturating_add(bytes);
        for _ in 0..most {
            if self.judged_bytes >= until {
                break;
            }
            let early = self.deadlines.next().is_none_or(|due| due > self.now);
            let Some(slot) = self.deadlines.pop(&mut self.index) else {
                return false;
            };
            self.judge_slot(slot, early.then_some(Early::Drain), judged);
        }
        true
    }

    fn judge_slot(&mut self, slot: u32, early: Option<Early>, judged: &mut Vec<Due>) {
        let occasion = self.occasion();
        let Self { config, programs, index, judged_bytes, receipts, .. } = self;
        let Some(entry) = index.get_mut(slot) else {
            return;
        };
        let facts = &entry.facts;
        let large = facts.spans > config.max_trace_spans || facts.bytes > config.max_trace_bytes;
        entry.stage = Stage::Judged(if large { Some(Early::TraceTooLarge) } else { early });
        *judged_bytes += facts.bytes;
        let program = programs.program(entry.program);
        let judgement = program.map(|program| program.decide_within(facts, occasion));
        let (verdict, receipt) = judgement.unwrap_or_default();
        let keep = verdict.keep;
        // The note tells others which policy it was, and ours when the trace is settled.
        let note = program.map_or(0, |program| program.note(&verdict, &receipt, facts));
        if !receipt.is_empty() {
            receipts.insert(slot, receipt);
        }
        let (key, first, origin) = (entry.key, entry.first_seen, entry.steady.origin());
        judged.push(Due { key, verdict: Verdict { keep, note }, first, origin });
        self.judged.insert_unique(key.0, (key, slot), |(key, _)| key.0);
    }

    /// The decision on a trace did not come about: it is due again at `at`.
    pub fn put_back(&mut self, key: TraceKey, now: Millis, at: Millis) {
        self.advance(now);
        self.bury();
        self.judged_slot(key);
        let judged = |entry: &Entry| matches!(entry.stage, Stage::Judged(_));
        while let Some(slot) = self.index.find_key(key, judged) {
            self.reopen(slot);
            self.deadlines.insert(&mut self.index, slot, self.now, at);
        }
    }

    fn judged_slot(&mut self, key: TraceKey) -> Option<u32> {
        let found = self.judged.find_entry(key.0, |(judged, _)| *judged == key).ok()?;
        let ((_, slot), _) = found.remove();
        Some(slot)
    }

    fn reopen(&mut self, slot: u32) {
        let Some(entry) = self.index.get_mut(slot) else {
            return;
        };
        entry.stage = Stage::Open;
        self.judged_bytes = self.judged_bytes.saturating_sub(entry.facts.bytes);
        let program = entry.program;
        self.refund(slot, program);
    }

    /// The verdict on the trace that was in `slot` did not come about: budgets get back what it took.
    fn refund(&mut self, slot: u32, program: u32) {
        if let Some(receipt) = self.receipts.remove(&slot)
            && let Some(program) = self.programs.program(program)
        {
            program.refund(&receipt);
        }
    }

    // === Going ===

    /// Before traces are concluded or taken into another batch, or into one that was cleared.
    pub fn start_gathering(&mut self) {
        self.headers.start_gathering();
    }

    /// Looks at traces that were judged and are about to be concluded. They lie far apart, and the processor
    /// fetches those of one call from memory at the same time: some tens of them are worth it, more leave its
    /// nearest cache before they are concluded.
    pub fn approach(&self, keys: impl Iterator<Item = TraceKey>) {
        let entry = |key: TraceKey| {
            let (_, slot) = self.judged.find(key.0, |(judged, _)| *judged == key)?;
            self.index.get(*slot)
        };
        // An entry is longer than what a processor fetches at once: a few of its fields bring most of it.
        let looks = keys.filter_map(entry).map(|entry| entry.facts.bytes ^ entry.due ^ entry.key.0);
        std::hint::black_box(looks.fold(0, |all, one| all ^ one));
    }

    /// A trace is decided: its spans go to `out` or nowhere. It may not be here.
    pub fn conclude(&mut self, key: TraceKey, verdict: Verdict, by: By, out: &mut Batch) {
        let mut next = self.withdraw(key);
        while let Some((slot, entry)) = next {
            let counted = self.receipts.get(&slot).map_or(0, |receipt| receipt.counted);
            self.count_decision(&entry, (verdict, by), counted);
            match by == By::Us && (verdict.keep || counted != 0) {
                true => drop(self.receipts.remove(&slot)),
                false => self.refund(slot, entry.program),
            }
            self.programs.leave(entry.program);
            if verdict.keep {
                self.gather(&entry, out);
            }
            self.forget(slot, &entry, None);
            next = self.twin(key);
        }
    }

    /// A trace goes elsewhere, undecided: its spans go to `out`. Returns how many.
    pub fn take(&mut self, key: TraceKey, out: &mut Batch) -> u64 {
        let mut spans = 0;
        let mut next = self.withdraw(key);
        while let Some((slot, entry)) = next {
            spans += u64::from(entry.facts.spans);
            self.refund(slot, entry.program);
            self.programs.leave(entry.program);
            self.gather(&entry, out);
            self.forget(slot, &entry, None);
            next = self.twin(key);
        }
        self.stats.taken += spans;
        spans
    }

    /// The next trace with the key of one that was withdrawn.
    fn twin(&mut self, key: TraceKey) -> Option<(u32, Entry)> {
        if self.index.may_have_twins() { self.withdraw(key) } else { None }
    }

    /// Takes out of the index what is there of a trace, one trace ID at a time.
    fn withdraw(&mut self, key: TraceKey) -> Option<(u32, Entry)> {
        if self.dying.len() + 1 >= DYING_MAX {
            self.bury();
        }
        let slot = self.judged_slot(key).or_else(|| self.index.find_key(key, |_| true))?;
        let open = self.index.get(slot).is_some_and(|entry| entry.stage == Stage::Open);
        if open {
            self.cancel(slot);
        }
        let entry = self.index.remove(slot)?;
        if !open {
            self.judged_bytes = self.judged_bytes.saturating_sub(entry.facts.bytes);
        }
        Some((slot, entry))
    }

    /// `counted`: the policies that are only counted and said yes by a budget, which cannot be asked again.
    fn count_decision(&mut self, entry: &Entry, (verdict, by): (Verdict, By), counted: u64) {
        let spans = u64::from(entry.facts.spans);
        match verdict.keep {
            true => self.stats.kept_spans += spans,
            false => self.stats.sampled_away_spans += spans,
        }
        if by == By::Other {
            self.stats.followed += 1;
            return;
        }
        match verdict.keep {
            true => self.stats.traces_kept += 1,
            false => self.stats.traces_dropped += 1,
        }
        if let Stage::Judged(Some(early)) = entry.stage {
            self.stats.early[early as usize] += 1;
        }
        if let Some((program, rows)) = self.programs.find(entry.program) {
            let now = program.decide(&entry.facts);
            let policy = Program::policy_of(verdict.note);
            // The policy that decided may have done so by a budget too.
            let granted = policy.filter(|_| verdict.keep);
            let granted = granted.and_then(|policy| 1_u64.checked_shl(u32::from(policy)));
            let matched = now.matched | granted.unwrap_or_default() | counted;
            let told = program.verdict(verdict.keep, policy, matched);
            self.stats.count_policies(&told, rows);
        }
    }

    // === Room ===

    /// Makes room without deciding anything: spare segments go, sparse ones are moved together. Returns how
    /// many of the `bytes` are still wanted.
    pub fn make_room(&mut self, now: Millis, bytes: u64) -> u64 {
        self.advance(now);
        self.bury();
        let goal = self.resident().saturating_sub(bytes);
        self.log.drop_spares();
        self.shrink();
        self.compact(goal);
        self.resident().saturating_sub(goal)
    }

    /// To be called after each turn of decisions.
    pub fn tidy_up(&mut self) {
        self.bury();
        self.tidy();
    }

    /// Puts the trace in `slot` where it is due when its first span was taken in at `first`, if that is
    /// before the time that is known.
    pub(super) fn backdate(&mut self, slot: u32, first: Millis) {
        let Self { config, index, deadlines, now, .. } = self;
        let Some(entry) = index.get_mut(slot).filter(|entry| first < entry.first_seen) else {
            return;
        };
        entry.first_seen = first;
        if entry.stage == Stage::Open {
            let due = (entry.due * BUCKET_MS).min(first.saturating_add(config.decision_wait_ms));
            deadlines.remove(index, slot);
            deadlines.insert(index, slot, *now, due);
        }
    }

    /// The trace in `slot` is too large to wait for more of it: it is due at once.
    pub(super) fn hasten(&mut self, slot: u32) {
        self.expedite(slot, 0);
    }

    /// The trace in `slot` is due after `wait` if that is earlier.
    pub(super) fn expedite(&mut self, slot: u32, wait: Millis) {
        let Self { index, deadlines, now, .. } = self;
        let at = now.saturating_add(wait);
        let bucket = at.div_ceil(BUCKET_MS);
        let waits = |entry: &&mut Entry| entry.stage == Stage::Open && entry.due > bucket;
        if index.get_mut(slot).filter(waits).is_some() {
            deadlines.remove(index, slot);
            deadlines.insert(index, slot, *now, at);
        }
    }
}
