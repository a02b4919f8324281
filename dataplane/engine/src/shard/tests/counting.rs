//! Which spans are counted, of those that a shard takes, lets go and passes on.

use super::*;
use crate::scan::Group;
use crate::shard::custody::{Guide, Manner, Place, Steady};
use crate::span_metrics::{Buckets, Limits, Plan, PlanConfig, Shown, Tally, Totals, Unit};

const LIMITS: Limits = Limits { series: 100, bytes: 1 << 20 };

fn plan() -> Arc<Plan> {
    Arc::new(Plan::new(PlanConfig {
        dimensions: Vec::new(),
        event_dimensions: None,
        excluded: Vec::new(),
        buckets: Buckets::Explicit(vec![1.0]),
        unit: Unit::Milliseconds,
        exemplars: 0,
        expiry: None,
    }))
}

fn counting_shard() -> (Shard, Batch) {
    let mut shard = Shard::new(config(), program(1_000_000));
    shard.set_metrics(Tally::new(plan(), LIMITS));
    (shard, Batch::new())
}

fn shown(shard: &mut Shard) -> Shown {
    let mut totals = Totals::new(plan(), LIMITS);
    totals.add(shard.metrics().unwrap().drain(1));
    totals.show(1)
}

fn calls(shard: &mut Shard) -> u64 {
    shown(shard).spans.iter().map(|series| series.calls).sum()
}

struct One(Place);

impl Guide for One {
    fn place(&mut self, _key: TraceKey) -> Place {
        self.0
    }

    fn pass(&mut self, _part: usize, _group: &Group<'_>, _span: &[u8]) {}

    fn keep(&mut self, _number: usize, _group: &Group<'_>, _span: &[u8]) {}

    fn leave_group(&mut self) {}
}

fn admit(shard: &mut Shard, request: &[u8], place: Place, counts: bool, out: &mut Batch) {
    let shape = scan::check(request, &ScanLimits::default()).unwrap();
    let manner = Manner { steady: Steady::default(), first: 0, counts };
    shard.admit(request, &shape, (manner, &mut One(place)), 0, out);
}

fn three() -> Vec<u8> {
    one_group((0..3).map(|number| span(id(1), number, 0)).collect())
}

#[test]
fn what_is_stored_and_what_is_late_counts_once() {
    let store = Place::Store(0, Steady::default());
    let cases = [
        (store, true, 3),
        (Place::Follow(true), true, 3),
        (Place::Follow(false), true, 3),
        (Place::Recorded(0), true, 3),
        (Place::Repeated, true, 0),
        (Place::Nowhere, true, 0),
        (store, false, 0),
        (Place::Follow(true), false, 0),
    ];
    for (place, counts, expected) in cases {
        let (mut shard, mut out) = counting_shard();
        admit(&mut shard, &three(), place, counts, &mut out);
        assert_eq!(calls(&mut shard), expected, "{place:?} {counts}");
        assert!(shard.take_sightings().is_empty());
    }
}

#[test]
fn what_repeats_does_not_count_and_what_was_not_counted_does_not_later() {
    let store = Place::Store(0, Steady::default());
    let (mut shard, mut out) = counting_shard();
    for _ in 0..3 {
        admit(&mut shard, &three(), store, true, &mut out);
    }
    assert_eq!(calls(&mut shard), 3);
    let (mut shard, mut out) = counting_shard();
    admit(&mut shard, &three(), store, false, &mut out);
    admit(&mut shard, &three(), store, true, &mut out);
    assert_eq!(calls(&mut shard), 0, "it was handed over, so somebody has counted it");
}

#[test]
fn what_is_passed_on_counts_when_somebody_has_it() {
    let (mut shard, mut out) = counting_shard();
    admit(&mut shard, &three(), Place::Pass(7), true, &mut out);
    assert_eq!(calls(&mut shard), 0);
    let sightings = shard.take_sightings();
    assert_eq!(sightings.iter().map(|(part, _)| *part).collect::<Vec<_>>(), [7, 7, 7]);
    for (_, sighting) in &sightings {
        shard.metrics().unwrap().count(sighting, 1);
    }
    assert_eq!(calls(&mut shard), 3);
    admit(&mut shard, &three(), Place::Pass(7), false, &mut out);
    assert!(shard.take_sightings().is_empty());
}

#[test]
fn a_shard_that_does_not_count_notes_nothing() {
    let (mut shard, mut out) = (Shard::new(config(), program(1_000_000)), Batch::new());
    admit(&mut shard, &three(), Place::Pass(7), true, &mut out);
    admit(&mut shard, &three(), Place::Store(0, Steady::default()), true, &mut out);
    assert!(shard.take_sightings().is_empty() && shard.metrics().is_none());
}
