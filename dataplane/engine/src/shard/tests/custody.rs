//! A shard that is told what becomes of its traces.

use super::*;
use crate::batch::GroupRef;
use crate::ownership::action::By;
use crate::ownership::message::Origin as From;
use crate::ownership::message::Verdict as Told;
use crate::scan::Group;
use crate::shard::custody::{Admitted, Guide, Manner, Place, Steady};

const KEEP: Told = Told { keep: true, note: 0 };
/// Kept by the first policy.
const PAID: Told = Told { keep: true, note: 1 };
const DROP: Told = Told { keep: false, note: 0 };

fn shard() -> (Shard, Batch) {
    (Shard::new(config(), program(1_000_000)), Batch::new())
}

fn key(trace: u128) -> TraceKey {
    SEED.key(&trace.to_be_bytes())
}

/// Knows where each trace goes, and notes of which it was asked.
struct Places<F> {
    place: F,
    asked: Vec<TraceKey>,
    passed: Batch,
    group: Option<GroupRef>,
}

impl<F: Fn(TraceKey) -> Place> Guide for Places<F> {
    fn place(&mut self, key: TraceKey) -> Place {
        self.asked.push(key);
        (self.place)(key)
    }

    fn pass(&mut self, part: usize, group: &Group<'_>, span: &[u8]) {
        assert_eq!(part, 5);
        let batch = &mut self.passed;
        let group = *self.group.get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
        batch.push(group, span);
    }

    fn keep(&mut self, number: usize, group: &Group<'_>, span: &[u8]) {
        assert_eq!(number, 6);
        let place = self.passed.intern(&group.resource, &group.scope);
        self.passed.push(place, span);
    }

    fn leave_group(&mut self) {
        self.group = None;
    }
}

fn places<F: Fn(TraceKey) -> Place>(place: F) -> Places<F> {
    Places { place, asked: Vec::new(), passed: Batch::new(), group: None }
}

fn admit_by<F: Fn(TraceKey) -> Place>(
    shard: &mut Shard,
    request: &[u8],
    (manner, guide): (Manner, &mut Places<F>),
    now: Millis,
    out: &mut Batch,
) -> Admitted {
    let shape = scan::check(request, &ScanLimits::default()).unwrap();
    shard.admit(request, &shape, (manner, guide), now, out)
}

/// Admits a request with one place for all of its traces.
fn admit(
    shard: &mut Shard,
    request: &[u8],
    place: Place,
    now: Millis,
    out: &mut Batch,
) -> Admitted {
    let manner = Manner { steady: Steady::default(), first: now, counts: true };
    admit_by(shard, request, (manner, &mut places(|_| place)), now, out)
}

fn store(first: Millis) -> Place {
    Place::Store(first, Steady::default())
}

fn judge(shard: &mut Shard, now: Millis) -> Vec<TraceKey> {
    let mut judged = Vec::new();
    shard.judge_due(now, 100, |_| true, &mut judged);
    judged.into_iter().map(|due| due.key).collect()
}

fn interleaved() -> Vec<u8> {
    let spans = |number| (0..3).map(move |trace| span(id(trace), number, 0)).collect();
    request(vec![group("a", "x", spans(0)), group("b", "y", spans(1))])
}

#[test]
fn each_trace_of_a_request_goes_to_its_own_place() {
    let (mut shard, mut out) = shard();
    let request = interleaved();
    let mut guide = places(|of| match of {
        of if of == key(id(0)) => store(0),
        of if of == key(id(1)) => Place::Pass(5),
        _ => Place::Follow(true),
    });
    let manner = Manner { steady: Steady::default(), first: 0, counts: true };
    let admitted = admit_by(&mut shard, &request, (manner, &mut guide), 0, &mut out);
    assert_eq!((admitted.stored, admitted.passed, admitted.late_kept), (2, 2, 2));
    assert_eq!(guide.asked.len(), 6, "each run is asked for");
    let of = |trace: u128| {
        let mut spans = origins(&request);
        spans.retain(|(.., bytes)| {
            Span::decode(&bytes[..]).unwrap().trace_id == trace.to_be_bytes()
        });
        spans.sort();
        spans
    };
    assert_eq!(take(&mut guide.passed), of(id(1)));
    assert_eq!(take(&mut out), of(id(2)));
    shard.start_gathering();
    assert_eq!(shard.take(key(id(0)), &mut out), 2);
    assert_eq!(take(&mut out), of(id(0)));
}

#[test]
fn a_judged_trace_waits_for_its_verdict_and_takes_more_spans() {
    let (mut shard, mut out) = shard();
    let (trace, later) = (id(1), one_group(vec![span(id(1), 1, 0)]));
    let first = one_group(vec![span(trace, 0, 0)]);
    admit(&mut shard, &first, store(0), 0, &mut out);
    assert_eq!(judge(&mut shard, 9_999), []);
    assert_eq!(judge(&mut shard, 10_000), [key(trace)]);
    assert_eq!(judge(&mut shard, 20_000), [], "it is judged once");
    admit(&mut shard, &later, store(0), 20_000, &mut out);
    shard.put_back(key(trace), 20_000, 20_500);
    assert_eq!(judge(&mut shard, 20_499), []);
    assert_eq!(judge(&mut shard, 20_500), [key(trace)]);
    shard.start_gathering();
    shard.conclude(key(trace), KEEP, By::Us, &mut out);
    assert_eq!(take(&mut out).len(), 2);
    shard.tidy_up();
    assert_eq!((shard.held().spans, shard.memory.find(key(trace))), (0, None), "others remember");
    assert_eq!((shard.stats().traces_kept, shard.stats().kept_spans), (1, 2));
}

#[test]
fn budgets_pay_for_verdicts_that_come_about() {
    let rule = Rule::RateLimiting { spans_per_second: 1, burst_capacity: Some(2) };
    let mut shard = Shard::new(config(), program_of(&[("limit", rule)]));
    let mut out = Batch::new();
    let verdict = |shard: &mut Shard, now| {
        let mut judged = Vec::new();
        shard.judge_due(now, 100, |_| true, &mut judged);
        judged.into_iter().map(|due| (due.key, due.verdict.keep)).collect::<Vec<_>>()
    };
    let traces: Vec<u128> = (0..6).map(id).collect();
    for trace in &traces {
        let spans = one_group(vec![span(*trace, 0, 0), span(*trace, 1, 0)]);
        admit(&mut shard, &spans, store(0), 0, &mut out);
    }
    let judged = verdict(&mut shard, 10_000);
    let kept: Vec<TraceKey> =
        judged.iter().filter(|(_, keep)| *keep).map(|(key, _)| *key).collect();
    let [first] = kept.as_slice() else { panic!("two tokens are one trace: {judged:?}") };
    for (key, _) in judged.iter().filter(|(key, _)| key != first) {
        shard.put_back(*key, 10_000, 11_000);
    }
    // It did not come about: it is judged again, and pays again.
    shard.put_back(*first, 10_000, 10_500);
    assert_eq!(verdict(&mut shard, 10_500), [(*first, true)]);
    shard.start_gathering();
    shard.conclude(*first, PAID, By::Us, &mut out);
    assert_eq!(take(&mut out).len(), 2);
    let again = verdict(&mut shard, 11_000);
    assert_eq!(again.len(), 5);
    assert!(again.iter().all(|(_, keep)| !keep), "one token: {again:?}");
    for (key, _) in &again {
        shard.put_back(*key, 11_000, 13_000);
    }
    // Another gateway decided it, or it goes there undecided: what it took here is put back.
    let judged = verdict(&mut shard, 13_000);
    let paid = |judged: &[(TraceKey, bool)]| judged.iter().find(|(_, keep)| *keep).unwrap().0;
    let second = paid(&judged);
    for (key, _) in judged.iter().filter(|(key, _)| *key != second) {
        shard.put_back(*key, 13_000, 13_000);
    }
    shard.conclude(second, KEEP, By::Other, &mut out);
    let judged = verdict(&mut shard, 13_250);
    let third = paid(&judged);
    shard.take(third, &mut Batch::new());
    for (key, _) in judged.iter().filter(|(key, _)| *key != third) {
        shard.put_back(*key, 13_250, 13_250);
    }
    // Of a fleet of four a quarter of the burst is left here: a trace passes when that is full.
    shard.set_members(4);
    let judged = verdict(&mut shard, 13_500);
    shard.conclude(paid(&judged), PAID, By::Us, &mut out);
    assert_eq!(judged.iter().filter(|(_, keep)| *keep).count(), 1);
    assert_eq!(shard.receipts.len(), 0);
    let limit = &shard.stats().policies[0];
    assert_eq!((limit.kept, limit.matched), (2, 2));
}

#[test]
fn what_is_taken_is_gone_undecided_and_may_come_back() {
    let (mut shard, mut out) = shard();
    let trace = id(4);
    let spans = one_group(vec![span(trace, 0, 0), span(trace, 1, 0)]);
    admit(&mut shard, &spans, store(0), 0, &mut out);
    let mut parcel = Batch::new();
    shard.start_gathering();
    assert_eq!(shard.take(key(trace), &mut parcel), 2);
    shard.tidy_up();
    assert_eq!(shard.held().spans, 0);
    let mut message = Vec::new();
    parcel.encode(&mut message);
    // It comes back later, with the time that it had.
    let back = admit(&mut shard, &message, store(0), 8_000, &mut out);
    assert_eq!((back.stored, back.duplicates), (2, 0));
    let again = admit(&mut shard, &message, store(0), 8_000, &mut out);
    assert_eq!((again.stored, again.duplicates), (0, 2));
    assert_eq!(judge(&mut shard, 10_000), [key(trace)]);
    shard.conclude(key(trace), DROP, By::Other, &mut out);
    let stats = shard.stats();
    assert_eq!((stats.stored, stats.taken, stats.sampled_away_spans), (4, 2, 2));
    assert_eq!((stats.followed, stats.traces_dropped), (1, 0));
}

#[test]
fn an_older_part_brings_the_deadline_forward() {
    let (mut shard, mut out) = shard();
    let trace = id(2);
    let part = |number| one_group(vec![span(trace, number, 0)]);
    admit(&mut shard, &part(0), store(9_000), 9_000, &mut out);
    admit(&mut shard, &part(1), store(2_000), 9_100, &mut out);
    assert_eq!(judge(&mut shard, 11_999), []);
    assert_eq!(judge(&mut shard, 12_000), [key(trace)]);
}

#[test]
fn at_the_end_as_much_is_judged_as_there_is_room_for() {
    let (mut shard, mut out) = shard();
    for trace in 0..4 {
        let spans = one_group(vec![span(id(trace), 0, 0)]);
        let first = if trace == 0 { 0 } else { 5_000 };
        admit(&mut shard, &spans, store(first), 5_000, &mut out);
    }
    let one = span(id(0), 0, 0).encoded_len() as u64;
    let mut any = |room| {
        let mut judged = Vec::new();
        let more = shard.judge_any(10_000, room, &mut judged);
        judged.iter().for_each(|due| shard.conclude(due.key, DROP, By::Us, &mut out));
        (judged.len(), more)
    };
    assert_eq!(any((one, 100)), (1, true));
    assert_eq!(any((u64::MAX, 1)), (1, true));
    assert_eq!(any((one + 1, 100)), (2, true), "the last may be more than there is room for");
    assert_eq!(any((one, 100)), (0, false));
    assert_eq!(shard.stats().early(Early::Drain), 3, "one of the four was due");
}

#[test]
fn what_is_not_owned_is_not_judged_and_what_is_too_large_is_judged_soon() {
    let config = ShardConfig { max_trace_spans: 2, ..config() };
    let mut shard = Shard::new(config, program(1_000_000));
    let mut out = Batch::new();
    let (large, other) = (id(7), id(8));
    let mut spans: Vec<Span> = (0..3).map(|number| span(large, number, 0)).collect();
    spans.push(span(other, 0, 0));
    admit(&mut shard, &one_group(spans), store(1_000), 1_000, &mut out);
    assert_eq!(judge(&mut shard, 1_250), [key(large)]);
    let mut judged = Vec::new();
    shard.judge_due(11_000, 100, |_| false, &mut judged);
    assert_eq!(judged, []);
    assert_eq!(judge(&mut shard, 11_499), []);
    assert_eq!(judge(&mut shard, 11_500), [key(other)]);
    shard.conclude(key(large), DROP, By::Us, &mut out);
    assert_eq!(shard.stats().early(Early::TraceTooLarge), 1);
}

#[test]
fn nobody_is_asked_about_a_steady_trace() {
    let (mut shard, mut out) = shard();
    let mut guide = places(|_| Place::Store(1_000, Steady::new(From::Agent)));
    let mut asked = |shard: &mut Shard, origin, first| {
        let request = one_group(vec![span(id(3), first, 0)]);
        let manner = Manner { steady: Steady::new(origin), first, counts: true };
        guide.asked.clear();
        admit_by(shard, &request, (manner, &mut guide), first, &mut out);
        guide.asked.len()
    };
    assert_eq!(asked(&mut shard, From::Agent, 1_000), 1, "it is new");
    assert_eq!(asked(&mut shard, From::Agent, 1_001), 0);
    assert_eq!(asked(&mut shard, From::Replay, 1_002), 0);
    assert_eq!(asked(&mut shard, From::Client, 1_003), 1, "this counts less");
    assert_eq!(asked(&mut shard, From::Agent, 999), 1, "it is older");
    let mut told = Vec::new();
    shard.unsettle(|_| true, |key, first, origin, _| told.push((key, first, origin)));
    assert_eq!(told, [(key(id(3)), 1_000, From::Agent)]);
    assert_eq!(asked(&mut shard, From::Agent, 1_004), 1, "the ring changed");
    assert_eq!(asked(&mut shard, From::Agent, 1_005), 0);
    assert_eq!(judge(&mut shard, 11_000).len(), 1);
    assert_eq!(asked(&mut shard, From::Agent, 11_000), 1, "it was judged");
}
