//! A shard that is told what becomes of its traces.

use super::*;
use crate::ownership::action::By;
use crate::ownership::message::Verdict as Told;
use crate::shard::custody::{Admitted, Place, Plan};

const KEEP: Told = Told { keep: true, note: 0 };
const DROP: Told = Told { keep: false, note: 0 };

fn shard() -> (Shard, Batch) {
    (Shard::new(config(), program(1_000_000)), Batch::new())
}

fn key(trace: u128) -> TraceKey {
    SEED.key(&trace.to_be_bytes())
}

/// Admits a request with one place for all of its traces.
fn admit(
    shard: &mut Shard,
    request: &[u8],
    place: Place,
    now: Millis,
    out: &mut Batch,
    parcels: &mut [Batch],
) -> Admitted {
    let shape = scan::check(request, &ScanLimits::default()).unwrap();
    let mut survey = Survey::default();
    shard.survey(request, &shape, &mut survey).unwrap();
    let places = vec![place; survey.traces().len()];
    let plan = Plan { survey: &survey, places: &places };
    shard.admit(request, &shape, plan, now, out, parcels)
}

fn judge(shard: &mut Shard, now: Millis) -> Vec<TraceKey> {
    let mut judged = Vec::new();
    shard.judge_due(now, 100, |_| true, &mut judged);
    judged.into_iter().map(|(key, _)| key).collect()
}

fn interleaved() -> Vec<u8> {
    let spans = |number| (0..3).map(move |trace| span(id(trace), number, 0)).collect();
    request(vec![group("a", "x", spans(0)), group("b", "y", spans(1))])
}

#[test]
fn a_survey_finds_each_trace_once_and_its_runs_lead_to_it() {
    let (shard, _) = shard();
    let request = interleaved();
    let shape = scan::check(&request, &ScanLimits::default()).unwrap();
    let mut survey = Survey::default();
    shard.survey(&request, &shape, &mut survey).unwrap();
    let found: Vec<_> = survey.traces().iter().map(|trace| (trace.key, trace.spans)).collect();
    assert_eq!(found, [(key(id(0)), 2), (key(id(1)), 2), (key(id(2)), 2)]);
    assert_eq!(survey.runs, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn each_trace_of_a_request_goes_to_its_own_place() {
    let (mut shard, mut out) = shard();
    let request = interleaved();
    let shape = scan::check(&request, &ScanLimits::default()).unwrap();
    let mut survey = Survey::default();
    shard.survey(&request, &shape, &mut survey).unwrap();
    let places = [Place::Store(0), Place::Pass(0), Place::Follow(true)];
    let plan = Plan { survey: &survey, places: &places };
    let mut parcels = [Batch::new()];
    let admitted = shard.admit(&request, &shape, plan, 0, &mut out, &mut parcels);
    assert_eq!((admitted.stored, admitted.passed, admitted.late_kept), (2, 2, 2));
    let of = |trace: u128| {
        let mut spans = origins(&request);
        spans.retain(|(.., bytes)| {
            Span::decode(&bytes[..]).unwrap().trace_id == trace.to_be_bytes()
        });
        spans.sort();
        spans
    };
    assert_eq!(take(&mut parcels[0]), of(id(1)));
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
    admit(&mut shard, &first, Place::Store(0), 0, &mut out, &mut []);
    assert_eq!(judge(&mut shard, 9_999), []);
    assert_eq!(judge(&mut shard, 10_000), [key(trace)]);
    assert_eq!(judge(&mut shard, 20_000), [], "it is judged once");
    admit(&mut shard, &later, Place::Store(0), 20_000, &mut out, &mut []);
    shard.put_back(key(trace), 20_000, 20_500);
    assert_eq!(judge(&mut shard, 20_499), []);
    assert_eq!(judge(&mut shard, 20_500), [key(trace)]);
    shard.start_gathering();
    shard.conclude(key(trace), KEEP, By::Us, &mut out);
    assert_eq!(take(&mut out).len(), 2);
    shard.tidy_up();
    assert_eq!((shard.held().spans, shard.recall(key(trace))), (0, Some(true)));
    assert_eq!((shard.stats().traces_kept, shard.stats().kept_spans), (1, 2));
}

#[test]
fn what_is_taken_is_gone_undecided_and_may_come_back() {
    let (mut shard, mut out) = shard();
    let trace = id(4);
    let spans = one_group(vec![span(trace, 0, 0), span(trace, 1, 0)]);
    admit(&mut shard, &spans, Place::Store(0), 0, &mut out, &mut []);
    let mut parcel = Batch::new();
    shard.start_gathering();
    assert_eq!(shard.take(key(trace), &mut parcel), 2);
    shard.tidy_up();
    assert_eq!((shard.held().spans, shard.recall(key(trace))), (0, None));
    let mut message = Vec::new();
    parcel.encode(&mut message);
    // It comes back later, with the time that it had.
    let back = admit(&mut shard, &message, Place::Store(0), 8_000, &mut out, &mut []);
    assert_eq!((back.stored, back.duplicates), (2, 0));
    let again = admit(&mut shard, &message, Place::Store(0), 8_000, &mut out, &mut []);
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
    admit(&mut shard, &part(0), Place::Store(9_000), 9_000, &mut out, &mut []);
    admit(&mut shard, &part(1), Place::Store(2_000), 9_100, &mut out, &mut []);
    assert_eq!(judge(&mut shard, 11_999), []);
    assert_eq!(judge(&mut shard, 12_000), [key(trace)]);
}

#[test]
fn what_is_not_owned_is_not_judged_and_what_is_too_large_is_judged_soon() {
    let config = ShardConfig { max_trace_spans: 2, ..config() };
    let mut shard = Shard::new(config, program(1_000_000));
    let mut out = Batch::new();
    let (large, other) = (id(7), id(8));
    let mut spans: Vec<Span> = (0..3).map(|number| span(large, number, 0)).collect();
    spans.push(span(other, 0, 0));
    admit(&mut shard, &one_group(spans), Place::Store(1_000), 1_000, &mut out, &mut []);
    assert_eq!(judge(&mut shard, 1_250), [key(large)]);
    let mut judged = Vec::new();
    shard.judge_due(11_000, 100, |_| false, &mut judged);
    assert_eq!(judged, []);
    assert_eq!(judge(&mut shard, 11_499), []);
    assert_eq!(judge(&mut shard, 11_500), [key(other)]);
    shard.conclude(key(large), DROP, By::Us, &mut out);
    assert_eq!(shard.stats().early(Early::TraceTooLarge), 1);
}
