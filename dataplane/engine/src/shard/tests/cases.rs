//! What a shard does, case by case.

use super::*;

fn shard() -> (Shard, Batch) {
    (Shard::new(config(), program(20)), Batch::new())
}

/// Traces whose verdict is known: kept and dropped.
fn pick(kept: bool) -> u128 {
    let program = program(20);
    let keeps = |trace: &u128| {
        let mut facts = crate::facts::TraceFacts::new(trace.to_be_bytes());
        let bytes = span(*trace, 0, 0).encode_to_vec();
        facts.add(&program.span_facts(&bytes), 0, bytes.len() as u64);
        program.decide(&facts).keep == kept
    };
    (0..1_000).map(id).find(keeps).expect("some trace has this verdict")
}

#[test]
fn late_spans_follow_the_verdict() {
    for kept in [true, false] {
        let (mut shard, mut out) = shard();
        let trace = pick(kept);
        insert(&mut shard, &one_group(vec![span(trace, 0, 0)]), 0, &mut out);
        assert_eq!(shard.decide_due(9_999, &EVERYTHING, &mut out).decided, 0);
        assert_eq!(shard.decide_due(10_000, &EVERYTHING, &mut out).decided, 1);
        assert_eq!(take(&mut out).len(), usize::from(kept));
        let late = one_group(vec![span(trace, 1, 0), span(trace, 2, 0)]);
        let inserted = insert(&mut shard, &late, 10_001, &mut out);
        assert_eq!((inserted.late_kept, inserted.late_dropped), if kept { (2, 0) } else { (0, 2) });
        let expected = if kept { origins(&late) } else { Vec::new() };
        assert_eq!(take(&mut out), expected);
        assert_eq!(shard.held().spans, 0);
    }
}

#[test]
fn a_trace_past_its_cap_is_decided_within_the_request() {
    for kept in [true, false] {
        let config = ShardConfig { max_trace_spans: 5, ..config() };
        let mut shard = Shard::new(config, program(1_000_000));
        let mut out = Batch::new();
        let trace = pick(kept);
        let spans = (0..9).filter(|n| n % 5 != 4).map(|n| span(trace, n, 0)).collect();
        let inserted = insert(&mut shard, &one_group(spans), 0, &mut out);
        assert_eq!((inserted.stored, inserted.traces_capped), (6, 1));
        assert_eq!(inserted.late_kept + inserted.late_dropped, 2);
        assert_eq!(shard.stats().early(Early::TraceTooLarge), 1);
        assert_eq!(shard.held().traces, 0);
        assert!(shard.next_deadline().is_none());
        assert_eq!(take(&mut out).len(), if kept { 8 } else { 0 });
    }
}

#[test]
fn new_limits_are_for_traces_first_seen_after_them_and_a_smaller_cap_for_all() {
    let (mut shard, mut out) = shard();
    let [early, late, large] = [1, 2, 3].map(id);
    insert(&mut shard, &one_group(vec![span(early, 0, 0), span(large, 0, 0)]), 0, &mut out);
    shard.set_limits(&TraceLimits {
        decision_wait_ms: 4_000,
        after_root_ms: None,
        max_trace_spans: 2,
        max_trace_bytes: 1 << 20,
    });
    insert(&mut shard, &one_group(vec![span(late, 0, 0), span(early, 1, 0)]), 0, &mut out);
    assert_eq!(shard.decide_due(4_250, &EVERYTHING, &mut out).decided, 1);
    assert_eq!(shard.held().traces, 2, "the first two still wait for ten seconds");
    let more = one_group((1..3).map(|number| span(large, number, 0)).collect());
    assert_eq!(insert(&mut shard, &more, 5_000, &mut out).traces_capped, 1);
    assert_eq!(shard.decide_due(9_999, &EVERYTHING, &mut out).decided, 0);
    assert_eq!(shard.decide_due(10_250, &EVERYTHING, &mut out).decided, 1);
    assert_eq!(shard.held().traces, 0);
}

#[test]
fn a_trace_is_decided_a_while_after_its_root() {
    let waits = |after_root_ms| ShardConfig { after_root_ms, ..config() };
    let child = |trace, number| Span { parent_span_id: vec![7; 8], ..span(trace, number, 0) };
    let (early, late, never) = (id(1), id(2), id(3));
    let decided =
        |shard: &mut Shard, now| shard.decide_due(now, &EVERYTHING, &mut Batch::new()).decided;
    for after_root_ms in [Some(2_000), None] {
        let mut shard = Shard::new(waits(after_root_ms), program(1_000_000));
        let mut out = Batch::new();
        let children = vec![child(early, 1), child(late, 1), child(never, 1)];
        insert(&mut shard, &one_group(children), 0, &mut out);
        // The root moves the decision from 10 s to 3 s; a second root changes nothing, and neither does one
        // that comes when the rest of the wait is shorter.
        insert(&mut shard, &one_group(vec![span(early, 2, 0)]), 1_000, &mut out);
        insert(&mut shard, &one_group(vec![span(early, 3, 0)]), 2_500, &mut out);
        assert_eq!(decided(&mut shard, 2_999), 0);
        let soon = u64::from(after_root_ms.is_some());
        assert_eq!(decided(&mut shard, 3_000), soon);
        insert(&mut shard, &one_group(vec![span(late, 2, 0)]), 9_500, &mut out);
        assert_eq!(decided(&mut shard, 9_999), 0);
        assert_eq!(decided(&mut shard, 10_000), 3 - soon);
    }
}

#[test]
fn rows_of_policies_have_an_end() {
    let (mut shard, _) = shard();
    for reload in 0..2_000 {
        let rule = Rule::Latency { threshold_ms: 1, upper_threshold_ms: None };
        shard.set_program(program_of(&[(&format!("slow-{reload}"), rule)]));
    }
    assert!(shard.stats().policies.len() <= 1_024);
}

#[test]
fn shards_share_a_request_without_a_rest() {
    let spans: Vec<_> = (1..=300u128).map(|trace| span(trace, 1, 10)).collect();
    let request = one_group(spans);
    let mut out = Batch::new();
    let mut stored = 0;
    for shard in 0..3 {
        let mut shard = Shard::new(ShardConfig { shard, shards: 3, ..config() }, program(20));
        let inserted = insert(&mut shard, &request, 0, &mut out);
        assert_eq!(inserted.stored + inserted.foreign, 300);
        assert!(inserted.stored > 50);
        stored += inserted.stored;
    }
    assert_eq!(stored, 300);
}

#[test]
fn spans_come_out_in_the_order_in_which_they_came() {
    let (mut shard, mut out) = shard();
    let trace = pick(true);
    let request = one_group((0..40).map(|n| span(trace, n, 5)).collect());
    insert(&mut shard, &request, 0, &mut out);
    shard.decide_all(&EVERYTHING, &mut out);
    let mut bytes = Vec::new();
    out.encode(&mut bytes);
    assert_eq!(origins(&bytes), origins(&request));
}

#[test]
fn output_stops_at_its_limit_and_goes_on() {
    let (mut shard, mut out) = shard();
    // The fourth span of a trace is an error, so all of them are kept.
    let spans = (0..50).map(|n| span(id(n), 4, 1_000)).collect();
    insert(&mut shard, &one_group(spans), 0, &mut out);
    let limit = TickLimit { traces: 1_000, out_bytes: 3_000 };
    let mut rounds = 0;
    loop {
        let progress = shard.decide_due(20_000, &limit, &mut out);
        assert!(out.encoded_len() < 3_000 + 1_500);
        out.clear();
        rounds += 1;
        if !progress.more {
            break;
        }
    }
    assert!((17..=25).contains(&rounds), "{rounds} rounds");
    assert_eq!(shard.stats().traces_kept, 50);
}

#[test]
fn a_request_that_ends_early_says_so() {
    let (mut shard, mut out) = shard();
    let request = one_group(vec![span(1, 0, 100)]);
    let shape = scan::check(&request, &ScanLimits::default()).unwrap();
    let inserted = shard.insert(&request[..request.len() - 3], &shape, 0, &mut out);
    assert!(inserted.failed.is_some());
    assert_eq!(shard.held().spans, inserted.stored);
}

#[test]
fn time_that_runs_backwards_decides_nothing_twice() {
    let (mut shard, mut out) = shard();
    insert(&mut shard, &one_group(vec![span(1, 0, 0)]), 50_000, &mut out);
    insert(&mut shard, &one_group(vec![span(2, 0, 0)]), 1, &mut out);
    assert_eq!(shard.next_deadline(), Some(60_000));
    assert_eq!(shard.decide_due(59_999, &EVERYTHING, &mut out).decided, 0);
    assert_eq!(shard.decide_due(60_000, &EVERYTHING, &mut out).decided, 2);
}
