//! Segments keep what they are given, give back what is dead, and never misstate what they hold.

use super::*;

impl Log {
    /// Takes one span out of the account and returns what its record said.
    fn release(&mut self, at: Location) -> Record {
        let record = self.record(at);
        self.discount(at, self.len_of(at));
        record
    }
}

const WAIT: u64 = 40;

impl Log {
    /// Compares every running count with what is really there.
    pub(crate) fn audit(&self) {
        let sum = |of: fn(&Segment) -> u64| self.segments.iter().map(of).sum::<u64>();
        assert_eq!(self.reserved, sum(Segment::footprint));
        assert!(self.spare.iter().all(|bytes| bytes.capacity() == SEGMENT_BYTES));
        assert!(self.open.segments().all(|open| self.segments[open as usize].live_records > 0));
        assert_eq!(self.live_bytes, sum(|segment| segment.live_bytes as u64));
        assert_eq!(self.live_records, sum(|segment| u64::from(segment.live_records)));
        let idle = self.segments.iter().filter(|segment| segment.bytes.capacity() == 0).count();
        assert_eq!(idle, self.vacant.len());
        assert!(self.footprint() >= self.live_bytes);
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(crate) fn seal_open(&mut self) {
        for open in self.open.segments().collect::<Vec<_>>() {
            self.seal(open);
        }
    }

    fn in_use(&self) -> usize {
        self.segments.len() - self.vacant.len()
    }
}

fn owner(prev: Location, slot: u32) -> Owner {
    Owner { prev, headers: 7, slot, due: u64::from(slot) % WAIT }
}

fn span(byte: u8, len: usize) -> Vec<u8> {
    vec![byte; len]
}

fn lens(log: &Log, chain: &Chain) -> Vec<usize> {
    let mut at = chain.head;
    let mut lens = Vec::new();
    while !at.is_none() {
        lens.push(log.span(at).len());
        assert_eq!(log.len_of(at), lens[lens.len() - 1]);
        at = log.record(at).prev;
    }
    lens
}

#[test]
fn a_chain_reads_backwards_across_segments() {
    let mut log = Log::new(WAIT);
    let mut chain = Chain::EMPTY;
    let sizes = [30, LONE_BYTES - 1, LONE_BYTES, 4 * SEGMENT_BYTES, 0, 12];
    for (byte, len) in (0u8..).zip(sizes) {
        chain.head = log.append(&span(byte, len), owner(chain.head, 3));
        assert!(log.span(chain.head).iter().all(|b| *b == byte));
        log.audit();
    }
    let mut expected = sizes.to_vec();
    expected.reverse();
    assert_eq!(lens(&log, &chain), expected);
    assert_eq!((log.record(chain.head).slot, log.record(chain.head).headers), (3, 7));
}

#[test]
fn a_dead_segment_is_used_again_and_spares_are_few() {
    let mut log = Log::new(WAIT);
    let mut live = Vec::new();
    for _ in 0..20 * SEGMENT_BYTES / 50_000 {
        live.push(log.append(&span(1, 50_000), owner(Location::NONE, 0)));
    }
    let (used, footprint) = (log.in_use(), log.footprint());
    for at in live.drain(..) {
        log.release(at);
        log.audit();
    }
    assert_eq!((log.in_use(), log.live_records(), log.live_bytes()), (0, 0, 0));
    assert!(log.spare.len() + 1 >= used, "what was in use lately is kept");
    let spare = log.spare.len();
    (0..1_000).for_each(|_| log.cool_down(1));
    log.cool_down(2 * LATELY - 1);
    assert_eq!(log.spare.len(), spare, "time passes, not turns of a busy shard");
    log.cool_down(2 * LATELY);
    assert_eq!(log.spare.len(), SPARE_SEGMENTS);
    assert!(log.footprint() < footprint / used as u64 * (SPARE_SEGMENTS as u64 + 1));
    let before = log.footprint();
    log.append(&span(1, 100), owner(Location::NONE, 0));
    assert_eq!(log.spare.len(), SPARE_SEGMENTS - 1);
    assert!(log.footprint() <= before + 4096, "a spare segment was not used");
    log.drop_spares();
    log.audit();
}

#[test]
fn lone_spans_are_not_spared() {
    let mut log = Log::new(WAIT);
    let small = log.append(&span(1, 10), owner(Location::NONE, 0));
    let large = log.append(&span(2, 4 << 20), owner(small, 0));
    assert!(log.footprint() >= (5 << 20));
    assert_eq!(log.release(large).prev, small);
    assert!(log.footprint() < (2 << 20));
    log.release(small);
    log.audit();
    log.drop_spares();
    assert!(log.footprint() < 2048);
}

#[test]
fn an_open_segment_that_dies_is_used_again() {
    let mut log = Log::new(WAIT);
    let keep = log.append(&span(1, LONE_BYTES), owner(Location::NONE, 0));
    for round in 0..100_000u32 {
        let at = log.append(&span(round as u8, 400), owner(Location::NONE, 1));
        log.release(at);
    }
    assert_eq!((log.in_use(), log.live_records()), (1, 1));
    assert_eq!(log.spare.len(), 1);
    log.release(keep);
    log.audit();
}

/// Traces of 20 spans of 1,000 bytes, interleaved, of which every one in `keep_one_in` lives on.
fn sparse_log(keep_one_in: u32) -> (Log, Vec<Chain>) {
    let mut log = Log::new(WAIT);
    let mut chains = vec![Chain::EMPTY; 300];
    for round in 0..20 {
        for (slot, chain) in (0..).zip(&mut chains) {
            chain.head = log.append(&span(slot as u8, 1_000), owner(chain.head, slot));
            if round == 3 {
                chain.elders = chain.head;
            }
        }
    }
    for (slot, chain) in (0..).zip(&mut chains) {
        if slot % keep_one_in == 0 {
            continue;
        }
        let mut at = chain.head;
        while !at.is_none() {
            at = log.release(at).prev;
        }
        *chain = Chain::EMPTY;
    }
    log.audit();
    (log, chains)
}

fn evacuate_all(log: &mut Log, chains: &mut [Chain], percent: u64, slack: u64) -> usize {
    let mut count = 0;
    while let Some(from) = log.sparse(percent, slack) {
        let before = log.live_bytes();
        let moved = log.evacuate(from, |slot, mover| {
            mover.walk(&mut chains[slot as usize], u64::from(slot) % WAIT)
        });
        assert!(moved <= SEGMENT_BYTES as u64 * percent / 100);
        assert_eq!(log.live_bytes(), before);
        log.audit();
        count += 1;
    }
    count
}

#[test]
fn evacuation_moves_the_live_together_and_keeps_chains_in_order() {
    let (mut log, mut chains) = sparse_log(10);
    let before = log.footprint();
    assert_eq!(evacuate_all(&mut log, &mut chains, 30, SEGMENT_BYTES as u64), 5);
    log.drop_spares();
    assert!(log.footprint() < before / 2, "{} of {before} left", log.footprint());
    for (slot, chain) in chains.iter().enumerate().filter(|(slot, _)| slot % 10 == 0) {
        assert_eq!(lens(&log, chain), vec![1_000; 20]);
        let mut at = chain.head;
        let mut rest = 20;
        while !at.is_none() {
            assert!(log.span(at).iter().all(|byte| *byte == slot as u8));
            assert_eq!(at == chain.elders, rest == 4, "the elders are no longer where they were");
            rest -= 1;
            at = log.record(at).prev;
        }
    }
}

#[test]
fn full_segments_and_small_waste_are_left_alone() {
    let (mut log, mut chains) = sparse_log(2);
    assert_eq!(evacuate_all(&mut log, &mut chains, 30, 0), 0, "half full is not sparse");
    let (mut log, mut chains) = sparse_log(10);
    assert_eq!(
        evacuate_all(&mut log, &mut chains, 30, 64 << 20),
        0,
        "the waste is below the slack"
    );
}

#[test]
fn growth_stays_below_the_worst_case() {
    let mixes: [&[usize]; 6] = [
        &[474],
        &[20],
        &[LONE_BYTES - 1],
        &[LONE_BYTES],
        &[LONE_BYTES - 1, 100, SEGMENT_BYTES, 3 * SEGMENT_BYTES],
        &[SEGMENT_BYTES / 2, 1],
    ];
    for mix in mixes {
        let mut log = Log::new(WAIT);
        let mut live = Vec::new();
        for round in 0..30 {
            let count = (100 * (round % 7)).min((4 << 20) / mix.iter().max().unwrap());
            let spans: Vec<_> = (0..count).map(|i| span(round as u8, mix[i % mix.len()])).collect();
            let bytes = spans.iter().map(|span| span.len() as u64).sum();
            let bound = log.footprint() + log.worst_case(spans.len() as u64, bytes);
            live.extend(spans.iter().map(|span| log.append(span, owner(Location::NONE, 0))));
            assert!(
                log.footprint() <= bound,
                "{mix:?} round {round}: {} > {bound}",
                log.footprint()
            );
            if round % 3 == 2 {
                live.drain(..live.len() / 2).for_each(|at| _ = log.release(at));
            }
        }
        log.audit();
    }
}

/// Traces are first seen all the time and their spans come over half of the wait; each is gone when it is
/// due.
#[test]
fn spans_that_are_due_together_lie_together() {
    let mut log = Log::new(WAIT);
    let mut chains = std::collections::BTreeMap::new();
    let (mut reserved, mut live) = (0, 0);
    for now in 0..4 * WAIT {
        log.advance(now);
        for part in 0..150u64 {
            // Due between half a wait and a whole wait from now.
            let due = now + WAIT / 2 + part % (WAIT / 2) + 1;
            let chain = chains.entry(due).or_insert(Chain::EMPTY);
            let owner = Owner { prev: chain.head, headers: 0, slot: due as u32, due };
            chain.head = log.append(&span(1, 60_000), owner);
        }
        let mut at = chains.remove(&now).map_or(Location::NONE, |chain| chain.head);
        while !at.is_none() {
            at = log.release(at).prev;
        }
        if now > WAIT {
            (reserved, live) = (reserved + log.reserved, live + log.live_bytes);
        }
    }
    log.audit();
    assert!(log.footprint() > 128 << 20);
    assert!(reserved * 100 < live * 115, "{} % reserved of what is live", reserved * 100 / live);
}
