//! A queue on disk: requests in segments, read in their order, deleted when all of a segment are done.
//!
//! It knows only files that may fail in every way: what is torn or corrupt is skipped and counted, and a
//! write that fails ends its segment. A request is marked in its place when it is done, so that after a kill
//! only what was under way is sent again. A new process writes no segment of an old one.

use std::collections::BTreeMap;
use std::io;

use self::files::Files;
use self::record::{DONE, HEAD_BYTES, Head, MAGIC, STATE_AT};

mod files;
mod record;

pub(super) use files::Directory;

/// Segments that a full queue has: what is done is given back in sixteenths.
const SEGMENTS: u64 = 16;
/// Segments are between so large, a few large requests, ...
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// ... and so large, which is written in a second.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Read at a time while the next head is looked for.
const SEARCH_BYTES: usize = 64 << 10;

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordId {
    segment: u64,
    offset: u64,
}

/// Why a request is not on disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// It has reached its size.
    #[error("the queue on disk has reached its sizeLimit")]
    Full,
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What comes next out of a queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A request.
    Request(Stored),
    /// Requests of this process with so many spans are gone, because the disk lost them.
    Lost(u64),
}

/// A request that was on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) id: RecordId,
    pub(super) spans: u64,
    pub(super) request: Vec<u8>,
    /// Whether an earlier process wrote it.
    pub(super) is_recovered: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct DiskQueue<F> {
    files: F,
    size_limit: u64,
    segment_bytes: u64,
    segments: BTreeMap<u64, Segment>,
    /// The segment that is written.
    writer: Option<u64>,
    /// Segments before this one are of earlier processes.
    first_own: u64,
    next_number: u64,
    /// Where the next request is read.
    reader: RecordId,
    /// Records and stretches of bytes that cannot be used.
    pub(super) corrupt: u64,
}

#[derive(Debug, Default)]
struct Segment {
    /// What can be read.
    bytes: u64,
    /// What a write that failed may have left behind it.
    garbage: u64,
    /// Requests that were handed out and are not done.
    outstanding: u64,
    /// Spans that this process wrote and nobody has read.
    unread_spans: u64,
}

// === impl DiskQueue ===

impl<F: Files> DiskQueue<F> {
    /// The queue that the files hold. Without being able to list them it is an empty one.
    pub(super) fn open(files: F, size_limit: u64) -> Self {
        let listed = files.list().unwrap_or_default();
        let segments: BTreeMap<u64, Segment> = listed
            .into_iter()
            .map(|(number, bytes)| (number, Segment { bytes, ..Segment::default() }))
            .collect();
        let next_number = segments.last_key_value().map_or(0, |(number, _)| number + 1);
        let first = segments.first_key_value().map_or(next_number, |(number, _)| *number);
        Self {
            files,
            size_limit,
            segment_bytes: (size_limit / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
            segments,
            writer: None,
            first_own: next_number,
            next_number,
            reader: RecordId { segment: first, offset: 0 },
            corrupt: 0,
        }
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes + segment.garbage).sum()
    }

    /// Whether everything was handed out, so that what is written now may be too.
    pub(super) fn is_read(&self) -> bool {
        let reader = self.reader;
        let is_over = |(number, segment): (&u64, &Segment)| {
            let read = if *number == reader.segment { reader.offset } else { 0 };
            segment.bytes <= read && segment.unread_spans == 0
        };
        let at_end =
            self.writer == Some(reader.segment) || !self.segments.contains_key(&reader.segment);
        at_end && self.segments.range(reader.segment..).all(is_over)
    }

    /// Writes a request. With `take` it counts as handed out, which is right only when all others were.
    pub(super) fn append(
        &mut self,
        spans: u64,
        request: &[u8],
        take: bool,
    ) -> Result<RecordId, DiskError> {
        let record = record::encode(u32::try_from(spans).unwrap_or(u32::MAX), request);
        let length = record.len() as u64;
        if self.bytes() + length > self.size_limit {
            return Err(DiskError::Full);
        }
        let number = self.writable();
        let segment = self.segments.entry(number).or_default();
        let id = RecordId { segment: number, offset: segment.bytes };
        if let Err(error) = self.files.append(number, &record) {
            segment.garbage += length;
            self.seal();
            self.forget_empty(number);
            return Err(DiskError::Io(error));
        }
        segment.bytes += length;
        if take {
            segment.outstanding += 1;
            self.reader = RecordId { segment: number, offset: id.offset + length };
        } else {
            segment.unread_spans += spans;
        }
        Ok(id)
    }

    /// Deletes a segment whose first record failed: a disk that fails for long must not fill the queue with
    /// what it does not hold.
    fn forget_empty(&mut self, number: u64) {
        let is_empty = self.segments.get(&number).is_some_and(|segment| segment.bytes == 0);
        if is_empty {
            let gone = self.files.remove(number);
            if gone.is_ok() || gone.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                self.segments.remove(&number);
            }
        }
    }

    /// The segment to write: a new one when the last is full.
    fn writable(&mut self) -> u64 {
        let full = self.segment_bytes;
        let current = self
            .writer
            .filter(|number| self.segments.get(number).is_some_and(|segment| segment.bytes < full));
        if let Some(number) = current {
            return number;
        }
        self.seal();
        let number = self.next_number;
        self.next_number += 1;
        self.writer = Some(number);
        number
    }

    fn seal(&mut self) {
        if let Some(number) = self.writer.take() {
            // A disk that cannot promise more has nothing better to offer.
            let _ = self.files.sync(number);
            self.tidy(number);
        }
    }

    /// Sees that what was written survives the machine.
    pub(super) fn sync(&mut self) {
        if let Some(number) = self.writer {
            let _ = self.files.sync(number);
        }
    }

    /// The next request, if there is one.
    pub(super) fn next(&mut self) -> Option<Next> {
        loop {
            let RecordId { segment: number, offset } = self.reader;
            let Some(segment) = self.segments.get(&number) else {
                let (next, _) = self.segments.range(number..).next()?;
                self.reader = RecordId { segment: *next, offset: 0 };
                continue;
            };
            if offset >= segment.bytes {
                if let Some(lost) = self.leave(number)? {
                    return Some(lost);
                }
                continue;
            }
            if let Some(stored) = self.read(number, offset) {
                return Some(Next::Request(stored));
            }
        }
    }

    /// Goes on to the segment behind this one; `None` when there is none to go to.
    fn leave(&mut self, number: u64) -> Option<Option<Next>> {
        if self.writer == Some(number) {
            return None;
        }
        let lost = self.segments.get_mut(&number).map(|one| std::mem::take(&mut one.unread_spans));
        let next = self.segments.range(number + 1..).next().map(|(next, _)| *next);
        self.reader = RecordId { segment: next.unwrap_or(self.next_number), offset: 0 };
        self.tidy(number);
        let lost = lost.filter(|spans| *spans > 0);
        match (lost, next) {
            (Some(spans), _) => Some(Some(Next::Lost(spans))),
            (None, Some(_)) => Some(None),
            (None, None) => None,
        }
    }

    /// The record at the reader's place, which moves behind it. `None` when there is nothing to hand out.
    fn read(&mut self, number: u64, offset: u64) -> Option<Stored> {
        let end = self.segments.get(&number)?.bytes;
        let head = self.files.read(number, offset, HEAD_BYTES);
        let Ok(bytes) = head else { return self.give_up(end) };
        let head = Head::read(&bytes)
            .filter(|head| offset + HEAD_BYTES as u64 + u64::from(head.length) <= end);
        let Some(head) = head else { return self.search(number, offset + 1, end) };
        let body_at = offset + HEAD_BYTES as u64;
        self.reader.offset = body_at + u64::from(head.length);
        if head.is_done {
            return None;
        }
        let Ok(request) = self.files.read(number, body_at, head.length as usize) else {
            return self.give_up(end);
        };
        if !head.proves(&request) {
            // The head proves itself, so the next one is where it says.
            self.corrupt += 1;
            return None;
        }
        let segment = self.segments.get_mut(&number)?;
        segment.outstanding += 1;
        let spans = u64::from(head.spans);
        segment.unread_spans = segment.unread_spans.saturating_sub(spans);
        let id = RecordId { segment: number, offset };
        let is_recovered = number < self.first_own;
        Some(Stored { id, spans, request, is_recovered })
    }

    /// Moves the reader to the next head behind what is none.
    fn search(&mut self, number: u64, from: u64, end: u64) -> Option<Stored> {
        self.corrupt += 1;
        let mut at = from;
        while at < end {
            let Ok(bytes) = self.files.read(number, at, SEARCH_BYTES) else { break };
            if bytes.is_empty() {
                break;
            }
            let found = bytes.windows(MAGIC.len()).position(|window| window == MAGIC);
            if let Some(place) = found {
                at += place as u64;
                let head = self.files.read(number, at, HEAD_BYTES).unwrap_or_default();
                if Head::read(&head).is_some() {
                    self.reader.offset = at;
                    return None;
                }
                at += 1;
            } else {
                // A magic may lie across the edge.
                at += (bytes.len() - bytes.len().min(MAGIC.len() - 1)).max(1) as u64;
            }
        }
        self.reader.offset = end;
        None
    }

    /// Leaves the rest of a segment that cannot be read.
    fn give_up(&mut self, end: u64) -> Option<Stored> {
        self.corrupt += 1;
        self.reader.offset = end;
        None
    }

    /// A request that was handed out is delivered or given up.
    pub(super) fn done(&mut self, id: RecordId) {
        let Some(segment) = self.segments.get_mut(&id.segment) else { return };
        segment.outstanding = segment.outstanding.saturating_sub(1);
        // Without the mark it is sent once more after a kill.
        let _ = self.files.mark(id.segment, id.offset + STATE_AT, DONE);
        self.tidy(id.segment);
    }

    /// Deletes a segment of which nothing is left.
    fn tidy(&mut self, number: u64) {
        let is_passed = number < self.reader.segment
            || number == self.reader.segment
                && self.segments.get(&number).is_some_and(|one| self.reader.offset >= one.bytes);
        let is_over = self
            .segments
            .get(&number)
            .is_some_and(|one| one.outstanding == 0 && one.unread_spans == 0);
        if is_passed && is_over && self.writer != Some(number) {
            // What cannot be deleted is found again by the next process, with its marks.
            let _ = self.files.remove(number);
            self.segments.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests;
