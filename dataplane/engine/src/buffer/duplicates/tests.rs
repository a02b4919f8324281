//! A span is new once, whatever the size of its trace.

use super::*;
use crate::buffer::segment::Owner;

struct Trace {
    slot: u32,
    spans: u32,
    seen: Seen,
    chain: Chain,
}

impl Trace {
    fn new(slot: u32) -> Self {
        Self { slot, spans: 0, seen: Seen::default(), chain: Chain::EMPTY }
    }

    fn offer(&mut self, duplicates: &mut Duplicates, log: &mut Log, span: &[u8]) -> bool {
        let Self { slot, spans, seen, chain } = *self;
        let hashes = duplicates.hashes(span, spans);
        if duplicates.has(Known { log, chain, seen, slot, spans }, hashes, span) {
            return false;
        }
        self.chain.head = log.append(span, Owner { prev: chain.head, headers: 0, slot, due: 0 });
        self.spans += 1;
        duplicates.note(self.spans, slot, hashes, &mut self.seen, &mut self.chain);
        true
    }

    fn forget(self, duplicates: &mut Duplicates, log: &Log) {
        let mut at = self.chain.head;
        while at != self.chain.elders {
            duplicates.forget(self.slot, log.span(at));
            at = log.record(at).prev;
        }
    }
}

/// One in seven is told from others by its end alone, which the filter does not see.
fn span(number: u32) -> Vec<u8> {
    let mut bytes = vec![0xa5; 100 + number as usize % 3];
    let place = if number.is_multiple_of(7) { 96 } else { 40 };
    bytes[place..place + 4].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[test]
fn every_span_is_new_once() {
    for count in [1, 2, 15, 16, 17, 18, 40, 3_000] {
        let mut duplicates = Duplicates::new(&KeySeed::new([3; 16]));
        let mut log = Log::new(1);
        let (mut one, mut other) = (Trace::new(1), Trace::new(2));
        for number in 0..count {
            assert!(
                one.offer(&mut duplicates, &mut log, &span(number)),
                "{number} of {count} is new"
            );
            assert!(other.offer(&mut duplicates, &mut log, &span(number)), "it is another trace");
            for again in [0, number / 2, number] {
                assert!(
                    !one.offer(&mut duplicates, &mut log, &span(again)),
                    "{again} is known at {number}"
                );
            }
        }
        assert_eq!((one.spans, other.spans), (count, count));
        let later = 2 * count.saturating_sub(CHAINED_SPANS) as usize;
        assert_eq!(duplicates.later.len(), later);
        one.forget(&mut duplicates, &log);
        assert_eq!(duplicates.later.len(), later / 2);
        assert!(
            !other.offer(&mut duplicates, &mut log, &span(count - 1)),
            "the other trace lost nothing"
        );
        other.forget(&mut duplicates, &log);
        duplicates.shrink();
        assert_eq!(duplicates.footprint(), 0);
    }
}

#[test]
fn growth_stays_below_the_worst_case() {
    let mut duplicates = Duplicates::new(&KeySeed::new([3; 16]));
    let mut log = Log::new(1);
    let mut trace = Trace::new(9);
    for round in 0..200u32 {
        let bound = duplicates.footprint() + duplicates.worst_case(100);
        for number in 0..100 {
            trace.offer(&mut duplicates, &mut log, &span(round * 100 + number));
        }
        assert!(duplicates.footprint() <= bound);
    }
}

#[test]
fn the_seed_decides_the_hash() {
    let hash =
        |seed| Duplicates::new(&KeySeed::new([seed; 16])).hash(b"the same bytes of the same span");
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
