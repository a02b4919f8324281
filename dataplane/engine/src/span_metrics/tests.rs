//! Tallies and totals against a naive count over decoded spans.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::scan::Headers;

const ROOMY: Limits = Limits { series: 10_000, bytes: 64 << 20 };

fn attribute(key: &str, value: Option<Any>) -> KeyValue {
    let value = Some(AnyValue { value });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn text(value: &str) -> Option<Any> {
    Some(Any::StringValue(value.to_owned()))
}

fn resource(attributes: Vec<KeyValue>) -> Vec<u8> {
    let resource = Some(Resource { attributes, ..Resource::default() });
    ResourceSpans { resource, ..ResourceSpans::default() }.encode_to_vec()
}

fn dimension(name: &str, default: Option<&str>) -> Dimension {
    Dimension { name: name.to_owned(), default: default.map(str::to_owned) }
}

fn config(buckets: Buckets) -> PlanConfig {
    PlanConfig {
        dimensions: vec![dimension("route", None), dimension("method", Some("GET"))],
        event_dimensions: None,
        excluded: Vec::new(),
        buckets,
        unit: Unit::Milliseconds,
        exemplars: 0,
        expiry: None,
    }
}

fn explicit() -> Buckets {
    Buckets::Explicit(vec![1.0, 10.0, 100.0])
}

fn tally(config: PlanConfig) -> (Arc<Plan>, Tally) {
    let plan = Arc::new(Plan::new(config));
    (Arc::clone(&plan), Tally::new(plan, ROOMY))
}

fn see(tally: &mut Tally, resource: &[u8], span: &Span, now: Millis) {
    let (resource, scope) = (Headers::whole(resource), Headers::whole(&[]));
    tally.observe(&Group { resource, scope }, &span.encode_to_vec(), now);
}

fn show(plan: &Arc<Plan>, tally: &mut Tally) -> Shown {
    let mut totals = Totals::new(Arc::clone(plan), ROOMY);
    totals.add(tally.drain(1));
    totals.show(1)
}

/// Labels as text, with the resource before them.
fn labels(series: &Series, plan: &Plan, of_events: bool) -> String {
    let labels = Labels::of(&series.key, plan, of_events);
    let pairs: Vec<String> =
        labels.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let owner = labels
        .owner
        .map(|owner| format!("{:?}/{}/{:?} ", owner.namespace, owner.service, owner.instance));
    owner.unwrap_or_default() + &pairs.join(" ")
}

fn calls(shown: &Shown, plan: &Plan) -> BTreeMap<String, u64> {
    shown.spans.iter().map(|series| (labels(series, plan, false), series.calls)).collect()
}

// === the model ===

/// What proptest makes of a span.
#[derive(Clone, Debug)]
struct Drawn {
    resource: usize,
    span: Span,
}

fn value() -> impl Strategy<Value = Option<Any>> {
    prop_oneof![
        prop::sample::select(vec!["GET", "POST", "", "ä"]).prop_map(text),
        (0_i64..3).prop_map(|number| Some(Any::IntValue(number))),
        any::<bool>().prop_map(|yes| Some(Any::BoolValue(yes))),
        Just(Some(Any::DoubleValue(0.5))),
        Just(None),
    ]
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let key = prop::sample::select(vec!["route", "method", "other", "zone"]);
    let attributes = prop::collection::vec((key.clone(), value()), 0..4);
    let events = prop::collection::vec(prop::collection::vec((key, value()), 0..3), 0..3);
    let times = (0_u64..5_000_000_000, prop_oneof![0_u64..10, 0_u64..5_000_000_000]);
    (0..3_usize, attributes, events, 0..8_i32, 0..4_i32, times, any::<bool>()).prop_map(
        |(resource, attributes, events, kind, code, (start, took), back)| {
            let list = |pairs: Vec<(&str, Option<Any>)>| -> Vec<KeyValue> {
                pairs.into_iter().map(|(key, value)| attribute(key, value)).collect()
            };
            let end = if back { start.saturating_sub(took) } else { start + took };
            let event = |pairs| Event { attributes: list(pairs), ..Event::default() };
            let span = Span {
                trace_id: vec![1; 16],
                span_id: vec![2; 8],
                name: if kind > 2 { "a" } else { "b" }.to_owned(),
                kind,
                status: (code > 0).then(|| Status { code, ..Status::default() }),
                start_time_unix_nano: start,
                end_time_unix_nano: end,
                attributes: list(attributes),
                events: events.into_iter().map(event).collect(),
                ..Span::default()
            };
            Drawn { resource, span }
        },
    )
}

fn resources() -> [Vec<KeyValue>; 3] {
    [
        vec![attribute("service.name", text("shop")), attribute("route", text("of resource"))],
        vec![
            attribute("service.name", Some(Any::IntValue(7))),
            attribute("service.namespace", text("ns")),
            attribute("service.instance.id", text("i-1")),
            attribute("zone", text("z")),
        ],
        vec![attribute("host", text("nameless"))],
    ]
}

fn first(list: &[KeyValue], key: &str) -> Option<String> {
    let found = list.iter().find(|pair| pair.key == key)?;
    Some(plain(found.value.as_ref().and_then(|value| value.value.as_ref())))
}

fn plain(value: Option<&Any>) -> String {
    match value {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        Some(Any::BoolValue(yes)) => yes.to_string(),
        Some(Any::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[derive(Debug, Default, PartialEq)]
struct Naive {
    values: Vec<f64>,
}

/// Durations by labels; events by theirs.
type Model = BTreeMap<String, Naive>;

fn naive(drawn: &[Drawn]) -> (Model, BTreeMap<String, u64>) {
    let (mut spans, mut events) = (Model::new(), BTreeMap::new());
    let kinds = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
    for Drawn { resource, span } in drawn {
        let around = &resources()[*resource];
        let head = match resource {
            0 => "None/shop/None service.name=shop",
            1 => "Some(\"ns\")/7/Some(\"i-1\") service.name=",
            _ => continue,
        };
        let kind = kinds.get(span.kind as usize);
        let kind = kind.map_or(String::new(), |kind| format!("SPAN_KIND_{kind}"));
        let code = span.status.as_ref().map_or(0, |status| status.code) as usize;
        let code = ["UNSET", "OK", "ERROR"].get(code);
        let code = code.map_or(String::new(), |code| format!("STATUS_CODE_{code}"));
        let head = format!("{head} span.name={} span.kind={kind} status.code={code}", span.name);
        let with = |names: &[(&str, Option<&str>)], event: &[KeyValue]| {
            let mut told = head.clone();
            for (name, default) in names {
                let of_event = || event.iter().rev().find(|pair| pair.key == *name);
                let of_event = || of_event().map(|pair| first(std::slice::from_ref(pair), name));
                let found = first(&span.attributes, name)
                    .or_else(|| of_event().flatten())
                    .or_else(|| first(around, name))
                    .or_else(|| default.map(str::to_owned));
                if let Some(value) = found {
                    told += &format!(" {name}={value}");
                }
            }
            told
        };
        let base = [("route", None), ("method", Some("GET"))];
        let nanos = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        spans.entry(with(&base, &[])).or_default().values.push(nanos as f64 / 1e6);
        for event in &span.events {
            let of_event = [base[0], base[1], ("zone", Some("none"))];
            *events.entry(with(&of_event, &event.attributes)).or_default() += 1;
        }
    }
    (spans, events)
}

/// The scale is the finest at which the buckets of the least and the greatest value are less than `size`
/// apart.
fn naive_exponential(values: &[f64], size: i64) -> (i32, BTreeMap<i64, u64>) {
    let index = |value: f64, scale: i32| {
        let log = value.log2();
        (log * f64::from(scale).exp2()).ceil() as i64 - 1
    };
    let above: Vec<f64> = values.iter().copied().filter(|value| *value > 0.0).collect();
    let least = above.iter().copied().fold(f64::INFINITY, f64::min);
    let most = above.iter().copied().fold(0.0, f64::max);
    if above.is_empty() {
        return (0, BTreeMap::new());
    }
    let fits = |scale: &i32| index(most, *scale) - index(least, *scale) < size;
    let scale = (-10..=20).rev().find(fits).unwrap();
    let mut counts = BTreeMap::new();
    above.iter().for_each(|value| *counts.entry(index(*value, scale)).or_default() += 1);
    (scale, counts)
}

fn compare(series: &Series, naive: &Naive, of: &str) {
    assert_eq!(series.calls, naive.values.len() as u64, "{of}");
    let wanted: f64 = naive.values.iter().sum();
    let near = |sum: f64| (sum - wanted).abs() <= 1e-9 * wanted.abs();
    match &series.histogram {
        Histogram::Explicit { counts, sum } => {
            assert!(near(*sum), "{of}: {sum} {wanted}");
            let mut expected = [0; 4];
            for value in &naive.values {
                let bounds = [1.0, 10.0, 100.0];
                expected[bounds.iter().position(|bound| value <= bound).unwrap_or(3)] += 1;
            }
            assert_eq!(**counts, expected, "{of}");
        }
        Histogram::Exponential(histogram) => {
            assert!(near(histogram.sum), "{of}");
            let (scale, expected) = naive_exponential(&naive.values, 20);
            let (offset, counts) = histogram.buckets();
            let numbered = (i64::from(offset)..).zip(counts.iter().copied());
            let found: BTreeMap<i64, u64> = numbered.filter(|(_, count)| *count > 0).collect();
            assert_eq!((histogram.scale(), found), (scale, expected), "{of} {naive:?}");
            let zeros = naive.values.iter().filter(|value| **value == 0.0).count() as u64;
            assert_eq!((histogram.zeros, histogram.count), (zeros, series.calls), "{of}");
            let least = naive.values.iter().copied().fold(f64::INFINITY, f64::min);
            assert_eq!(histogram.min, least, "{of}");
        }
        Histogram::None => panic!("{of}"),
    }
}

proptest! {
    #[test]
    fn tallies_count_what_a_naive_count_does(
        drawn in prop::collection::vec(drawn(), 0..80),
        shards in 1..4_usize,
        drains in prop::collection::vec(any::<bool>(), 80),
        later in prop::collection::vec(any::<bool>(), 80),
        exponential in any::<bool>(),
    ) {
        let buckets = match exponential {
            true => Buckets::Exponential { max_size: 20 },
            false => explicit(),
        };
        let event_dimensions = Some(vec![dimension("zone", Some("none"))]);
        let plan = Arc::new(Plan::new(PlanConfig { event_dimensions, ..config(buckets) }));
        let new = |_| Tally::new(Arc::clone(&plan), ROOMY);
        let mut tallies: Vec<Tally> = (0..shards).map(new).collect();
        let mut totals = Totals::new(Arc::clone(&plan), ROOMY);
        let headers = resources().map(resource);
        for (number, one) in drawn.iter().enumerate() {
            let tally = &mut tallies[number % shards];
            let (resource, scope) = (Headers::whole(&headers[one.resource]), Headers::whole(&[]));
            let (group, span) = (Group { resource, scope }, one.span.encode_to_vec());
            match later[number] {
                true => { let sighting = tally.sight(&group, &span); tally.count(&sighting, 5) }
                false => tally.observe(&group, &span, 5),
            }
            if drains[number] {
                totals.add(tally.drain(6));
            }
        }
        tallies.iter_mut().for_each(|tally| totals.add(tally.drain(7)));
        let shown = totals.show(8);
        let (spans, events) = naive(&drawn);
        let found: BTreeMap<String, &Series> =
            shown.spans.iter().map(|series| (labels(series, &plan, false), series)).collect();
        prop_assert_eq!(found.len(), shown.spans.len());
        prop_assert_eq!(found.keys().collect::<Vec<_>>(), spans.keys().collect::<Vec<_>>());
        for (of, series) in found {
            compare(series, &spans[&of], &of);
        }
        let counted: BTreeMap<String, u64> =
            shown.events.iter().map(|series| (labels(series, &plan, true), series.calls)).collect();
        prop_assert_eq!(counted, events);
        let nameless = drawn.iter().filter(|one| one.resource == 2).count() as u64;
        let expected =
            Counts { spans: drawn.len() as u64 - nameless, overflowed: 0, nameless };
        prop_assert_eq!(shown.counts, expected);
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let event_dimensions = Some(vec![dimension("e", None)]);
        let (_, mut tally) = tally(PlanConfig { event_dimensions, ..config(explicit()) });
        let shop = resource(vec![attribute("service.name", text("s"))]);
        for headers in [&shop[..], &bytes] {
            let (resource, scope) = (Headers::whole(headers), Headers::whole(&[]));
            let group = Group { resource, scope };
            tally.observe(&group, &bytes, 1);
            let sighting = tally.sight(&group, &bytes);
            tally.count(&sighting, 1);
        }
    }
}

// === cases ===

#[test]
fn excluded_dimensions_are_in_no_label() {
    let all = ["service.name", "span.name", "span.kind", "status.code", "collector.instance.id"];
    let shop = resource(vec![attribute("service.name", text("shop"))]);
    let span = Span { name: "n".into(), kind: 2, ..Span::default() };
    let cases = [
        (
            &all[..0],
            "service.name=shop span.name=n span.kind=SPAN_KIND_SERVER \
                     status.code=STATUS_CODE_UNSET method=GET",
        ),
        (&all[..2], "span.kind=SPAN_KIND_SERVER status.code=STATUS_CODE_UNSET method=GET"),
        (&all[2..], "service.name=shop span.name=n method=GET"),
        (&all[..], "method=GET"),
    ];
    for (excluded, expected) in cases {
        let excluded = excluded.iter().map(|&name| name.to_owned()).collect();
        let (plan, mut tally) = tally(PlanConfig { excluded, ..config(explicit()) });
        see(&mut tally, &shop, &span, 1);
        let shown = show(&plan, &mut tally);
        assert_eq!(labels(&shown.spans[0], &plan, false), format!("None/shop/None {expected}"));
    }
}

#[test]
fn what_has_no_room_is_one_series_more() {
    let plan = Arc::new(Plan::new(config(explicit())));
    let limits = Limits { series: 3, bytes: 64 << 20 };
    let mut tally = Tally::new(Arc::clone(&plan), limits);
    let shop = resource(vec![attribute("service.name", text("shop"))]);
    for name in ["a", "b", "c", "d", "e", "a", "d"] {
        see(&mut tally, &shop, &Span { name: name.into(), ..Span::default() }, 1);
    }
    let mut totals = Totals::new(Arc::clone(&plan), limits);
    totals.add(tally.drain(2));
    let shown = totals.show(2);
    let found = calls(&shown, &plan);
    assert_eq!(found.len(), 4);
    assert_eq!(found["otel.metric.overflow=true"], 3);
    assert_eq!(shown.counts, Counts { spans: 7, overflowed: 3, nameless: 0 });
    // Totals of several tallies have no more series than one tally may have.
    let mut second = Tally::new(Arc::clone(&plan), limits);
    for name in ["x", "y", "a"] {
        see(&mut second, &shop, &Span { name: name.into(), ..Span::default() }, 1);
    }
    totals.add(second.drain(2));
    let found = calls(&totals.show(2), &plan);
    assert_eq!((found.len(), found["otel.metric.overflow=true"]), (4, 5));
    assert_eq!(found.values().sum::<u64>(), 10);
}

#[test]
fn series_take_no_more_bytes_than_they_may() {
    let plan = Arc::new(Plan::new(config(Buckets::Exponential { max_size: 160 })));
    let limits = Limits { series: usize::MAX, bytes: 1 << 20 };
    let mut tally = Tally::new(Arc::clone(&plan), limits);
    let shop = resource(vec![attribute("service.name", text("shop"))]);
    for number in 0..5_000 {
        let name = format!("{number}{}", "x".repeat(1_000));
        see(&mut tally, &shop, &Span { name, ..Span::default() }, 1);
        assert!(tally.footprint() <= (1 << 20) + 4096);
    }
    let shown = show(&plan, &mut tally);
    assert!(shown.spans.len() < 400);
    assert_eq!(shown.spans.iter().map(|series| series.calls).sum::<u64>(), 5_000);
}

#[test]
fn a_series_that_was_idle_for_too_long_is_forgotten_everywhere_at_once() {
    let plan = Arc::new(Plan::new(PlanConfig { expiry: Some(1_000_000), ..config(explicit()) }));
    let mut tallies = [0, 1].map(|_| Tally::new(Arc::clone(&plan), ROOMY));
    let mut totals = Totals::new(Arc::clone(&plan), ROOMY);
    let shop = resource(vec![attribute("service.name", text("shop"))]);
    let mut read = |tallies: &mut [Tally; 2], now| {
        tallies.iter_mut().for_each(|tally| totals.add(tally.drain(now)));
        totals.show(now).spans.iter().map(|series| series.calls).sum::<u64>()
    };
    let span = Span::default();
    see(&mut tallies[0], &shop, &span, 0);
    see(&mut tallies[1], &shop, &span, 900_000);
    // The first tally has long forgotten its part: it is in the totals.
    assert_eq!(read(&mut tallies, 1_500_000), 2);
    assert_eq!(tallies[0].footprint() - tallies[0].resources.bytes(), 0);
    see(&mut tallies[0], &shop, &span, 1_600_000);
    assert_eq!(read(&mut tallies, 2_500_000), 3);
    assert_eq!(read(&mut tallies, 2_600_000), 0);
    see(&mut tallies[1], &shop, &span, 2_700_000);
    assert_eq!(read(&mut tallies, 2_700_000), 1);
}

#[test]
fn exemplars_are_the_latest_and_few() {
    let (plan, mut tally) = tally(PlanConfig { exemplars: 2, ..config(explicit()) });
    let mut totals = Totals::new(Arc::clone(&plan), ROOMY);
    let shop = resource(vec![attribute("service.name", text("shop"))]);
    for number in 0..9_u8 {
        let (trace_id, span_id) = (vec![number; 16], vec![number; 8]);
        see(&mut tally, &shop, &Span { trace_id, span_id, ..Span::default() }, 1);
        if number % 3 == 2 {
            totals.add(tally.drain(1));
        }
    }
    let shown = totals.show(1);
    let ids: Vec<u8> = shown.spans[0].exemplars.iter().map(|one| one.trace_id[0]).collect();
    assert_eq!(ids, [6, 7]);
}

#[test]
fn a_sampled_span_stands_for_those_that_were_let_go() {
    let (plan, mut tally) = tally(config(explicit()));
    let shop = resource(vec![attribute("service.name", text("shop"))]);
    let end_time_unix_nano = 5_000_000;
    for state in ["ot=th:c", "x=y", ""] {
        let trace_state = state.to_owned();
        let span = Span { trace_state, end_time_unix_nano, ..Span::default() };
        see(&mut tally, &shop, &span, 1);
    }
    let shown = show(&plan, &mut tally);
    let Histogram::Explicit { counts, sum } = &shown.spans[0].histogram else { panic!() };
    assert_eq!((shown.spans[0].calls, counts[1], *sum), (6, 6, 30.0));
    assert_eq!(shown.counts.spans, 3);
}

/// What is taken is what came since, nothing is taken twice, and what came to nobody is there again.
#[test]
fn deltas_add_up_to_the_totals_and_come_back_when_nobody_took_them() {
    let (plan, mut tally) = tally(config(explicit()));
    let owner = resource(vec![attribute("service.name", text("shop"))]);
    let mut fresh = Totals::new(Arc::clone(&plan), ROOMY);
    let mut count = |fresh: &mut Totals, spans: u64, now: Millis| {
        for _ in 0..spans {
            see(&mut tally, &owner, &Span::default(), now);
        }
        fresh.add(tally.drain(now));
    };
    let calls = |shown: &Shown| shown.spans.iter().map(|series| series.calls).sum::<u64>();
    count(&mut fresh, 3, 10);
    let first = fresh.take(20);
    assert_eq!((calls(&first), first.spans[0].first, first.counts.spans), (3, 10, 3));
    assert!(fresh.take(30).spans.is_empty(), "nothing has come");
    count(&mut fresh, 2, 40);
    let second = fresh.take(50);
    assert_eq!((calls(&second), second.counts.spans), (2, 2));
    assert!(second.spans[0].first >= first.at, "the next one begins where this one ends");
    fresh.put_back(second.after(0, 0));
    count(&mut fresh, 4, 60);
    assert_eq!(calls(&fresh.take(70)), 6);
    assert!(second.after(1, 0).spans.is_empty(), "what was taken is not there again");
}
