//! Append-only segments of span bytes, and the records that chain the spans of one trace through them.
//!
//! A span is copied once, into an open segment, so nothing of a request is kept alive and nothing is
//! allocated per span. What a decision has to walk lies apart, in an array of 20-byte records beside the
//! bytes: forgetting a dropped trace never touches the bytes of its spans.

use std::mem;

use super::cohort::Cohorts;

#[cfg(test)]
mod tests;

/// Bytes of spans that one segment takes. Small beside any budget, and so large that a shard with a
/// gigabyte has a thousand of them: lists of segments can be searched.
pub(crate) const SEGMENT_BYTES: usize = 1 << 20;

/// A span of this size gets a segment of its own, of exactly its size. So a segment that is closed because
/// the next span does not fit wastes less than 1/16, and a span may be larger than a segment.
pub(crate) const LONE_BYTES: usize = SEGMENT_BYTES / 16;

/// Empty segments kept for reuse by an idle shard that comes and goes.
const SPARE_SEGMENTS: usize = 4;

/// A busy shard keeps as many as it used lately, because memory that goes back to the system and comes again
/// has to be cleared, which costs more than everything else that happens to a span. Traces go in waves, when
/// other gateways have agreed to their decisions, which is twice a second. So lately means this many units of
/// deadlines of 250 ms, and as many before: what was not in use for one to two seconds is given back. Spare
/// segments are the first thing that [`Log::drop_spares`] frees when memory is short.
const LATELY: u64 = 4;

/// Records for which the next segment may keep room: 16 Ki x 20 B = 320 KiB, which spans of 64 bytes fill.
const DESK_RECORDS: usize = 16 * 1024;

/// A search that found no sparse segment is not repeated before this many more bytes died: 64 KiB make a
/// segment of 1 MiB six percent emptier.
const SEARCH_AFTER_BYTES: u64 = SEGMENT_BYTES as u64 / 16;

/// Where a record is. `NONE` ends a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    segment: u32,
    record: u32,
}

impl Location {
    pub(crate) const NONE: Self = Self { segment: u32::MAX, record: u32::MAX };

    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// The chain of one trace: newest span first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// The newest record.
    pub(crate) head: Location,
    /// The record from which on the chain holds the first few spans of the trace (see [`super::duplicates`]).
    pub(crate) elders: Location,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self { head: Location::NONE, elders: Location::NONE };
}

/// What is kept of a span beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// The span of the same trace that came before.
    pub(crate) prev: Location,
    /// Where the bytes end; they start where those of the record before end. A request is shorter than 4 GiB
    /// (its length is 32 bits on the wire), so a span is too.
    end: u32,
    /// Identifies resource and scope ([`super::headers`]).
    pub(crate) headers: u32,
    /// Identifies the trace ([`super::index`]) as long as the record is live; evacuation asks there.
    pub(crate) slot: u32,
}

/// What a caller says of a span that it appends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) prev: Location,
    pub(crate) headers: u32,
    pub(crate) slot: u32,
    /// When the trace is due, in the unit of [`Log::new`].
    pub(crate) due: u64,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: Vec<u8>,
    records: Vec<Record>,
    live_bytes: usize,
    live_records: u32,
}

impl Segment {
    /// A segment for one span.
    fn lone(len: usize) -> Self {
        let (bytes, records) = (Vec::with_capacity(len), Vec::with_capacity(1));
        Self { bytes, records, ..Self::default() }
    }

    fn footprint(&self) -> u64 {
        (self.bytes.capacity() + self.records.capacity() * size_of::<Record>()) as u64
    }

    fn fits(&self, len: usize) -> bool {
        self.bytes.capacity() - self.bytes.len() >= len
    }

    fn start(&self, record: u32) -> usize {
        match record {
            0 => 0,
            _ => self.records[record as usize - 1].end as usize,
        }
    }

    fn len_of(&self, record: u32) -> usize {
        self.records[record as usize].end as usize - self.start(record)
    }

    fn span(&self, record: u32) -> &[u8] {
        &self.bytes[self.start(record)..self.records[record as usize].end as usize]
    }

    fn push(&mut self, span: &[u8], owner: Owner) -> u32 {
        self.bytes.extend_from_slice(span);
        self.live_bytes += span.len();
        self.live_records += 1;
        let Owner { prev, headers, slot, .. } = owner;
        self.records.push(Record { prev, end: self.bytes.len() as u32, headers, slot });
        self.records.len() as u32 - 1
    }
}

/// All segments of a shard.
#[derive(Debug)]
pub(crate) struct Log {
    /// By segment number; a vacant one has no capacity.
    segments: Vec<Segment>,
    vacant: Vec<u32>,
    spare: Vec<Vec<u8>>,
    /// The most segments in use of late: since the last time that it was forgotten, and before.
    used_lately: (usize, usize),
    /// How often it was forgotten.
    cooled: u64,
    /// An array for the records of the next segment to be opened: they grow in it, and a segment that is
    /// closed gets one of its exact length, because an allocator does not take back the rest of a larger
    /// one.
    desk: Vec<Record>,
    open: Cohorts,
    /// Capacity of all segments in use.
    reserved: u64,
    live_bytes: u64,
    live_records: u64,
    /// Bytes released so far.
    released: u64,
    /// When the last search for a sparse segment found none: `released` then, and the percentage asked for.
    searched: Option<(u64, u64)>,
}

impl Log {
    /// An empty log for traces that are due at most `wait` from now, in any unit of time.
    pub(crate) fn new(wait: u64) -> Self {
        Self {
            segments: Vec::new(),
            vacant: Vec::new(),
            spare: Vec::new(),
            used_lately: (0, 0),
            cooled: 0,
            desk: Vec::new(),
            open: Cohorts::new(wait),
            reserved: 0,
            live_bytes: 0,
            live_records: 0,
            released: 0,
            searched: None,
        }
    }

    /// Traces that come from now on are due at most `wait` later.
    pub(crate) fn set_wait(&mut self, wait: u64) {
        self.open.set_wait(wait);
    }

    /// Time passes: segments that are open for traces which were due before `now` are closed.
    pub(crate) fn advance(&mut self, now: u64) {
        while let Some(passed) = self.open.passed(now) {
            self.seal(passed);
        }
    }

    /// Copies a span in and returns where it is.
    pub(crate) fn append(&mut self, span: &[u8], owner: Owner) -> Location {
        let number = match span.len() {
            len if len >= LONE_BYTES => self.add(Segment::lone(len)),
            len => self.room_for(len, owner.due),
        };
        let segment = &mut self.segments[number as usize];
        let before = segment.footprint();
        let record = segment.push(span, owner);
        self.reserved += segment.footprint() - before;
        self.live_bytes += span.len() as u64;
        self.live_records += 1;
        Location { segment: number, record }
    }

    /// The record at a location.
    pub(crate) fn record(&self, at: Location) -> Record {
        self.segments[at.segment as usize].records[at.record as usize]
    }

    /// Length of the span at a location, without touching its bytes.
    pub(crate) fn len_of(&self, at: Location) -> usize {
        self.segments[at.segment as usize].len_of(at.record)
    }

    /// Bytes of the span at a location.
    pub(crate) fn span(&self, at: Location) -> &[u8] {
        self.segments[at.segment as usize].span(at.record)
    }

    /// Takes one span, which has `len` bytes, out of the account. A segment without live spans is reused.
    pub(crate) fn discount(&mut self, at: Location, len: usize) {
        let segment = &mut self.segments[at.segment as usize];
        segment.live_bytes -= len;
        segment.live_records -= 1;
        self.live_bytes -= len as u64;
        self.live_records -= 1;
        self.released += len as u64;
        if segment.live_records == 0 {
            self.recycle(at.segment);
        }
    }

    /// Capacity of everything: bytes, records, spare segments and the lists of them.
    pub(crate) fn footprint(&self) -> u64 {
        let lists = self.segments.capacity() * size_of::<Segment>()
            + self.spare.capacity() * size_of::<Vec<u8>>()
            + self.vacant.capacity() * size_of::<u32>()
            + self.open.footprint();
        let unused = self.spare.len() * SEGMENT_BYTES + self.desk.capacity() * size_of::<Record>();
        self.reserved + (unused + lists) as u64
    }

    /// Spans held.
    pub(crate) fn live_records(&self) -> u64 {
        self.live_records
    }

    /// At most how much [`Log::footprint`] grows by `spans` more spans of `bytes` in all.
    ///
    /// A closed segment is at least 15/16 full, a lone one is full; each cohort may end with a segment just
    /// begun; spare segments are paid for already. Closed segments have a record a span; the array of an
    /// open one doubles as it grows.
    pub(crate) fn worst_case(&self, spans: u64, bytes: u64) -> u64 {
        let open = || self.open.segments().map(|open| &self.segments[open as usize]);
        let begun =
            self.overflowing(bytes) + self.open.unopened(self.reserved + 2 * bytes).min(spans);
        let spare = (self.spare.len() * SEGMENT_BYTES) as u64;
        let small =
            (bytes + bytes.div_ceil(15) + begun * SEGMENT_BYTES as u64).saturating_sub(spare);
        let fresh = match begun {
            0 if bytes < LONE_BYTES as u64 => 0,
            // All of it lone spans, or all of it small ones, whichever is more.
            _ => bytes.max(small),
        };
        let segments = bytes / LONE_BYTES as u64 + begun + 1;
        let lists = self.segments.capacity() as u64 + 2 * segments + SPARE_SEGMENTS as u64;
        let records =
            3 * (spans + open().map(|open| open.records.len() as u64).sum::<u64>()) + 5 * segments;
        fresh + records * size_of::<Record>() as u64 + lists * (size_of::<Segment>() as u64 + 4)
    }

    /// How many open segments so many bytes can fill at most.
    fn overflowing(&self, bytes: u64) -> u64 {
        let room = |open: u32| {
            let open = &self.segments[open as usize];
            (open.bytes.capacity() - open.bytes.len()) as u64
        };
        let mut rooms: Vec<u64> = self.open.segments().map(room).collect();
        rooms.sort_unstable();
        let filled = rooms.iter().scan(0, |sum, room| {
            *sum += room + 1;
            Some(*sum)
        });
        filled.take_while(|sum| *sum <= bytes).count() as u64
    }

    fn room_for(&mut self, len: usize, due: u64) -> u32 {
        let open = self.open.find(due).or_else(|| self.open.nearest(due, self.reserved));
        if let Some(open) = open {
            if self.segments[open as usize].fits(len) {
                return open;
            }
            self.seal(open);
        }
        let bytes = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(SEGMENT_BYTES));
        let records = mem::take(&mut self.desk);
        let number = self.add(Segment { bytes, records, ..Segment::default() });
        self.open.open(due, number, self.reserved);
        number
    }

    fn add(&mut self, segment: Segment) -> u32 {
        self.reserved += segment.footprint();
        match self.vacant.pop() {
            Some(number) => {
                self.segments[number as usize] = segment;
                number
            }
            None => {
                self.segments.push(segment);
                self.segments.len() as u32 - 1
            }
        }
    }

    /// Closes an open segment and leaves it no room for more records.
    fn seal(&mut self, open: u32) {
        self.open.close(open);
        let segment = &mut self.segments[open as usize];
        self.reserved -= segment.footprint();
        let records = segment.records.as_slice().to_vec();
        self.desk = mem::replace(&mut segment.records, records);
        self.desk.clear();
        self.desk.shrink_to(DESK_RECORDS);
        self.reserved += segment.footprint();
    }

    /// The last live span of a segment is gone.
    fn recycle(&mut self, number: u32) {
        if self.live_records == 0 {
            self.start_over();
            return;
        }
        self.open.close(number);
        let segment = mem::take(&mut self.segments[number as usize]);
        self.reserved -= segment.footprint();
        self.vacant.push(number);
        self.keep_spare(segment);
    }

    /// How many spare segments may be kept beside those in use.
    fn spares_max(&mut self) -> usize {
        let in_use = self.segments.len() - self.vacant.len();
        let (now, before) = &mut self.used_lately;
        *now = in_use.max(*now);
        ((*now).max(*before) - in_use).max(SPARE_SEGMENTS)
    }

    /// It is `now`, in the unit of deadlines: what was not in use of late is given back.
    pub(crate) fn cool_down(&mut self, now: u64) {
        let cooled = now / LATELY;
        let passed = cooled.saturating_sub(mem::replace(&mut self.cooled, cooled));
        let (lately, _) = self.used_lately;
        match passed {
            0 => {}
            1 => self.used_lately = (0, lately),
            _ => self.used_lately = (0, 0),
        }
        let spares = self.spares_max();
        self.spare.truncate(spares);
    }

    /// Nothing is in use: the lists start over too, so that one busy hour is not remembered for ever.
    fn start_over(&mut self) {
        self.open.clear();
        self.reserved = 0;
        self.vacant = Vec::new();
        for segment in mem::take(&mut self.segments) {
            self.keep_spare(segment);
        }
    }

    fn keep_spare(&mut self, segment: Segment) {
        let Segment { mut bytes, mut records, .. } = segment;
        let spares = self.spares_max();
        if bytes.capacity() == SEGMENT_BYTES && self.spare.len() < spares {
            bytes.clear();
            self.spare.push(bytes);
        }
        self.spare.truncate(spares);
        if self.desk.capacity() == 0 && records.capacity() <= DESK_RECORDS {
            records.clear();
            self.desk = records;
        }
    }

    // === Evacuation ===

    /// Capacity of the segments in use.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The emptiest closed segment with less than `percent` of its bytes live, unless `slack` bytes or less
    /// are reserved without being live.
    pub(crate) fn sparse(&mut self, percent: u64, slack: u64) -> Option<u32> {
        let searched = self.searched.is_some_and(|(released, asked)| {
            percent <= asked && self.released - released < SEARCH_AFTER_BYTES
        });
        if searched || self.reserved.saturating_sub(self.live_bytes) <= slack {
            return None;
        }
        let closed = self.segments.iter().zip(0u32..).filter(|(segment, number)| {
            segment.bytes.capacity() == SEGMENT_BYTES && !self.open.contains(*number)
        });
        let emptiest = closed.min_by_key(|(segment, _)| segment.live_bytes);
        let is_sparse =
            |segment: &Segment| segment.live_bytes as u64 * 100 < SEGMENT_BYTES as u64 * percent;
        let found = emptiest.filter(|(segment, _)| is_sparse(segment)).map(|(_, number)| number);
        if found.is_none() {
            self.searched = Some((self.released, percent));
        }
        found
    }

    /// Moves the live spans of a closed segment into open ones and frees it; returns how many bytes
    /// moved.
    ///
    /// `each` is called once for every slot that a record names and calls [`Mover::walk`] with the chain of
    /// the trace there, if there is one. A dead record may name a slot that is someone else's by now; that
    /// chain has nothing here. A chain is walked as a whole, because the pointer to a record is in another
    /// record.
    pub(crate) fn evacuate(&mut self, from: u32, mut each: impl FnMut(u32, &mut Mover<'_>)) -> u64 {
        let source = mem::take(&mut self.segments[from as usize]);
        let mut slots: Vec<u32> = source.records.iter().map(|record| record.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        // The spans are counted again as they arrive in their new place.
        self.reserved -= source.footprint();
        self.live_bytes -= source.live_bytes as u64;
        self.live_records -= u64::from(source.live_records);
        let moved = source.live_bytes as u64;
        let mut mover = Mover { log: self, source: &source, from };
        for slot in slots {
            each(slot, &mut mover);
        }
        self.vacant.push(from);
        self.keep_spare(source);
        moved
    }

    /// Frees what is kept for reuse.
    pub(crate) fn drop_spares(&mut self) {
        self.spare = Vec::new();
        self.used_lately = (0, 0);
        self.desk = Vec::new();
    }
}

/// Moves the records of one segment elsewhere, chain by chain.
pub(crate) struct Mover<'a> {
    log: &'a mut Log,
    source: &'a Segment,
    from: u32,
}

impl Mover<'_> {
    /// Moves those records of a chain that lie in the segment, to where traces go that are due then.
    pub(crate) fn walk(&mut self, chain: &mut Chain, due: u64) {
        let mut newer = Location::NONE;
        let mut at = chain.head;
        while !at.is_none() {
            if at.segment == self.from {
                let moved = self.move_record(at, due);
                if chain.elders == at {
                    chain.elders = moved;
                }
                match newer.is_none() {
                    true => chain.head = moved,
                    false => {
                        self.log.segments[newer.segment as usize].records[newer.record as usize]
                            .prev = moved
                    }
                }
                at = moved;
            }
            newer = at;
            at = self.log.record(at).prev;
        }
    }

    fn move_record(&mut self, at: Location, due: u64) -> Location {
        let Record { prev, headers, slot, .. } = self.source.records[at.record as usize];
        self.log.append(self.source.span(at.record), Owner { prev, headers, slot, due })
    }
}
