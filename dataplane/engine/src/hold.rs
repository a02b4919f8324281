//! Log records that wait for the verdict on their trace: first in, first out, within a budget of bytes.
//!
//! Records are stored as they came, with the headers of their group shared by all of a request. A trace whose
//! verdict comes gives up all of its records at once; what waits too long, or is oldest when there is no
//! room, comes out piece by piece.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::Millis;
use crate::batch::Batch;
use crate::key::TraceKey;
use crate::scan::{Group, Headers};
use crate::wire::{Reader, Value};

/// What a trace takes beside its records: 41 bytes in a table of which 7/16 may be used, and a list that
/// begins with room for four pieces of 48.
const TRACE_BYTES: u64 = 320;
/// What a piece takes beside its records: itself in a list that doubles, and its place in a queue that does.
const PIECE_BYTES: u64 = 128;
/// What the headers of a group take beside their bytes.
const GROUP_BYTES: u64 = 96;
/// Field 2 of a scope: records, with a tag of one byte.
const RECORD_TAG: u8 = 2 << 3 | 2;

/// The queue keeps this many places of pieces that have left, and the table room for as many traces.
const SPARE: usize = 1024;

/// Headers that many records share.
#[derive(Debug)]
pub struct Heading {
    resource: Box<[u8]>,
    scope: Box<[u8]>,
    /// Pieces of the hold that have it; written under whatever guards the hold.
    pieces: AtomicU32,
}

/// Records of one trace and one group of a request.
#[derive(Debug)]
pub struct Piece {
    heading: Arc<Heading>,
    /// Record fields, tag and length included.
    bytes: Vec<u8>,
    records: u32,
    arrived: Millis,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Hold {
    traces: HashMap<TraceKey, VecDeque<Piece>, RandomState>,
    /// Every piece in the order of arrival; some have left with their trace.
    queue: VecDeque<(Millis, TraceKey)>,
    bytes: u64,
    records: u64,
    pieces: usize,
}

// === impl Heading ===

impl Heading {
    /// Of a group.
    pub fn of(group: &Group<'_>) -> Arc<Self> {
        Arc::new(Self {
            resource: group.resource.bytes().into(),
            scope: group.scope.bytes().into(),
            pieces: AtomicU32::new(0),
        })
    }

    fn len(&self) -> u64 {
        (self.resource.len() + self.scope.len()) as u64 + GROUP_BYTES
    }
}

// === impl Piece ===

impl Piece {
    /// How many records it has.
    pub fn records(&self) -> u64 {
        u64::from(self.records)
    }

    /// Appends its records to a batch.
    pub fn put(&self, batch: &mut Batch) {
        let resource = Headers::whole(&self.heading.resource);
        let group = batch.intern(&resource, &Headers::whole(&self.heading.scope));
        let mut fields = Reader::new(&self.bytes);
        while let Ok(Some(field)) = fields.next_field() {
            if let Value::Bytes(record) = field.value {
                batch.push(group, record);
            }
        }
    }

    fn charge(&self) -> u64 {
        PIECE_BYTES + self.bytes.capacity() as u64
    }
}

// === impl Hold ===

impl Hold {
    /// Holds a record of a trace. Records that come at the same time under the same heading, which is new
    /// with every group of a request, lie together.
    pub fn insert(&mut self, key: TraceKey, heading: &Arc<Heading>, record: &[u8], now: Millis) {
        let pieces = self.traces.entry(key).or_insert_with(|| {
            self.bytes += TRACE_BYTES;
            VecDeque::new()
        });
        let joins = |last: &&mut Piece| Arc::ptr_eq(&last.heading, heading);
        if pieces.back_mut().filter(joins).is_none() {
            if heading.pieces.fetch_add(1, Relaxed) == 0 {
                self.bytes += heading.len();
            }
            let heading = Arc::clone(heading);
            pieces.push_back(Piece { heading, bytes: Vec::new(), records: 0, arrived: now });
            self.queue.push_back((now, key));
            self.bytes += PIECE_BYTES;
            self.pieces += 1;
        }
        let Some(piece) = pieces.back_mut() else { return };
        let before = piece.bytes.capacity();
        piece.bytes.reserve(record.len() + 6);
        piece.bytes.push(RECORD_TAG);
        crate::wire::put_varint(&mut piece.bytes, record.len() as u64);
        piece.bytes.extend_from_slice(record);
        piece.records += 1;
        self.bytes += (piece.bytes.capacity() - before) as u64;
        self.records += 1;
    }

    /// Takes out all records of a trace: it has a verdict.
    pub fn release(&mut self, key: TraceKey) -> VecDeque<Piece> {
        let Some(pieces) = self.traces.remove(&key) else { return VecDeque::new() };
        self.bytes -= TRACE_BYTES;
        for piece in &pieces {
            self.uncharge(piece);
        }
        self.compact();
        pieces
    }

    /// Takes out the oldest piece if it came at or before `until`.
    pub fn expire(&mut self, until: Millis) -> Option<Piece> {
        while let Some((arrived, key)) = self.queue.front().copied() {
            if arrived > until {
                return None;
            }
            self.queue.pop_front();
            let pieces = self.traces.get_mut(&key);
            let Some(pieces) = pieces else { continue };
            // A trace that came back after its verdict has younger pieces than the place says.
            if pieces.front().is_none_or(|piece| piece.arrived != arrived) {
                continue;
            }
            let Some(piece) = pieces.pop_front() else { continue };
            if pieces.is_empty() {
                self.traces.remove(&key);
                self.bytes -= TRACE_BYTES;
            }
            self.uncharge(&piece);
            self.compact();
            return Some(piece);
        }
        None
    }

    /// Bytes that all of it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that are held.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Traces that are waited for.
    pub fn traces(&self) -> usize {
        self.traces.len()
    }

    fn uncharge(&mut self, piece: &Piece) {
        self.bytes -= piece.charge();
        self.records -= piece.records();
        self.pieces -= 1;
        if piece.heading.pieces.fetch_sub(1, Relaxed) == 1 {
            self.bytes -= piece.heading.len();
        }
    }

    /// Gives back what places of pieces that have left take, once they are more than those that count.
    fn compact(&mut self) {
        if self.queue.len() > 2 * self.pieces + SPARE {
            let traces = &self.traces;
            self.queue.retain(|(arrived, key)| {
                let pieces = traces.get(key);
                pieces.is_some_and(|pieces| pieces.iter().any(|piece| piece.arrived == *arrived))
            });
            self.queue.shrink_to(2 * self.pieces + SPARE);
        }
        if self.traces.capacity() > 4 * (self.traces.len() + SPARE) {
            self.traces.shrink_to(2 * self.traces.len() + SPARE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(resource: &[u8]) -> Arc<Heading> {
        let (resource, scope) = (Headers::whole(resource), Headers::whole(b""));
        Heading::of(&Group { resource, scope })
    }

    fn of(pieces: impl IntoIterator<Item = Piece>) -> u64 {
        pieces.into_iter().map(|piece| piece.records()).sum()
    }

    #[test]
    fn a_verdict_releases_a_trace_and_age_the_rest_in_order() {
        let mut hold = Hold::default();
        let (first, second) = (heading(b"a"), heading(b"b"));
        hold.insert(TraceKey(1), &first, b"r", 10);
        hold.insert(TraceKey(2), &first, b"r", 10);
        hold.insert(TraceKey(1), &first, b"r", 10);
        hold.insert(TraceKey(1), &second, b"r", 20);
        assert_eq!((hold.records(), hold.traces()), (4, 2));
        assert_eq!(of(hold.release(TraceKey(1))), 3);
        assert_eq!(of(hold.release(TraceKey(1))), 0);
        // It comes back, and is waited for from then on.
        hold.insert(TraceKey(1), &second, b"r", 30);
        assert!(hold.expire(9).is_none());
        assert_eq!(of(hold.expire(10)), 1);
        assert!(hold.expire(29).is_none());
        assert_eq!(of(hold.expire(30)), 1);
        assert_eq!((hold.records(), hold.traces(), hold.bytes()), (0, 0, 0));
    }

    #[test]
    fn pieces_of_a_trace_expire_each_in_its_time() {
        let mut hold = Hold::default();
        for (at, name) in [(10, "a"), (20, "b"), (20, "c")] {
            hold.insert(TraceKey(1), &heading(name.as_bytes()), b"rr", at);
        }
        let mut batch = Batch::default();
        while let Some(piece) = hold.expire(10) {
            piece.put(&mut batch);
        }
        assert_eq!((batch.spans(), hold.records()), (1, 2));
        while let Some(piece) = hold.expire(Millis::MAX) {
            piece.put(&mut batch);
        }
        assert_eq!((batch.spans(), hold.bytes()), (3, 0));
        let mut message = Vec::new();
        batch.encode(&mut message);
        assert_eq!(
            message,
            b"\x0a\x07a\x12\x04\x12\x02rr\x0a\x07b\x12\x04\x12\x02rr\
            \x0a\x07c\x12\x04\x12\x02rr"
        );
    }

    #[test]
    fn whatever_comes_and_goes_the_books_balance() {
        bolero::check!().with_type::<Vec<(u8, u8, bool)>>().for_each(|steps| {
            let (mut hold, mut now) = (Hold::default(), 0);
            let (mut came, mut went) = (0, 0);
            let mut shared = heading(b"");
            for (key, ahead, verdict) in steps {
                now += Millis::from(ahead % 4);
                if ahead % 3 == 0 {
                    shared = heading(&[*ahead]);
                }
                if *verdict {
                    went += of(hold.release(TraceKey(u64::from(key % 8))));
                } else {
                    hold.insert(TraceKey(u64::from(key % 8)), &shared, &[*key; 3], now);
                    came += 1;
                }
                while let Some(piece) = now.checked_sub(5).and_then(|until| hold.expire(until)) {
                    assert!(piece.arrived + 5 <= now);
                    went += piece.records();
                }
                assert_eq!(came, went + hold.records());
            }
            while let Some(piece) = hold.expire(Millis::MAX) {
                went += piece.records();
            }
            assert_eq!((came, hold.records(), hold.bytes(), hold.pieces), (went, 0, 0, 0));
        });
    }

    #[test]
    fn places_of_what_has_left_do_not_pile_up() {
        let mut hold = Hold::default();
        for key in 0..100_000 {
            hold.insert(TraceKey(key), &heading(b""), b"r", key);
            hold.release(TraceKey(key));
        }
        assert!(hold.queue.len() <= SPARE + 1, "{}", hold.queue.len());
        assert!(hold.queue.capacity() <= 4 * SPARE && hold.traces.capacity() <= 8 * SPARE);
    }
}
