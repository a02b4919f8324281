//! Which open segment a span goes to: spans of traces that are due at about the same time share segments.
//!
//! So the spans of a segment die together, and it becomes free as a whole. In the order of their arrival
//! they would not: of a trace whose spans come over five seconds, each would lie beside spans of traces
//! five seconds younger.

/// A shard may have an open segment for every so many bytes: half of each is unused on average, and that
/// should be little beside what they hold. 16 MiB: 1/32.
const COHORT_BYTES: u64 = 16 << 20;

/// Cohorts in a decision wait at most: with 16 the spans of a segment die within 1/16 of the wait.
const COHORTS_MAX: u64 = 16;

/// Deadlines from `first` to `last` and the segment that is open for their traces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cohort {
    first: u64,
    last: u64,
    pub(super) segment: u32,
}

/// The cohorts of a shard that have an open segment.
#[derive(Debug)]
pub(super) struct Cohorts {
    /// The one last used comes first.
    open: Vec<Cohort>,
    /// The decision wait, in the unit of deadlines.
    wait: u64,
}

impl Cohorts {
    pub(super) fn new(wait: u64) -> Self {
        Self { open: Vec::with_capacity(COHORTS_MAX as usize + 1), wait }
    }

    /// Changes the wait; cohorts that are open stay as wide as they are.
    pub(super) fn set_wait(&mut self, wait: u64) {
        self.wait = wait;
    }

    /// The segment that is open for traces due then.
    #[inline]
    pub(super) fn find(&mut self, due: u64) -> Option<u32> {
        let at = self.open.iter().position(|cohort| (cohort.first..=cohort.last).contains(&due))?;
        self.open.swap(0, at);
        Some(self.open[0].segment)
    }

    /// The open segment that comes nearest, if there may be no more of them.
    pub(super) fn nearest(&self, due: u64, reserved: u64) -> Option<u32> {
        let full = self.open.len() as u64 >= Self::allowed(reserved);
        let nearest = self.open.iter().min_by_key(|cohort| cohort.first.abs_diff(due));
        nearest.filter(|_| full).map(|cohort| cohort.segment)
    }

    /// An open segment for traces that were all due before `now`.
    pub(super) fn passed(&self, now: u64) -> Option<u32> {
        self.open.iter().find(|cohort| cohort.last < now).map(|cohort| cohort.segment)
    }

    /// Opens a segment for traces due then and their neighbours: the more is reserved, the fewer.
    pub(super) fn open(&mut self, due: u64, segment: u32, reserved: u64) {
        let (first, last) = match Self::number(reserved) {
            1 => (0, u64::MAX),
            number => {
                let width = self.wait.div_ceil(number).max(1);
                let first = due - due % width;
                (first, first.saturating_add(width - 1))
            }
        };
        self.open.push(Cohort { first, last, segment });
    }

    /// The segment is closed for good.
    pub(super) fn close(&mut self, segment: u32) {
        self.open.retain(|cohort| cohort.segment != segment);
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    pub(super) fn contains(&self, segment: u32) -> bool {
        self.open.iter().any(|cohort| cohort.segment == segment)
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = u32> + '_ {
        self.open.iter().map(|cohort| cohort.segment)
    }

    /// How many more segments may be opened beside those that are, when so much is reserved.
    pub(super) fn unopened(&self, reserved: u64) -> u64 {
        Self::allowed(reserved).saturating_sub(self.open.len() as u64)
    }

    pub(super) fn footprint(&self) -> usize {
        self.open.capacity() * size_of::<Cohort>()
    }

    fn number(reserved: u64) -> u64 {
        (reserved / COHORT_BYTES).clamp(1, COHORTS_MAX)
    }

    /// The deadlines of a wait meet one cohort more than divide it.
    fn allowed(reserved: u64) -> u64 {
        match Self::number(reserved) {
            1 => 1,
            number => number + 1,
        }
    }
}
