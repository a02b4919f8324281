//! Requests made to be expensive cost what was foretold, and no more than a constant times what came in.

use super::*;
/// Inserts a request into an empty shard and into one that has seen others, and returns by how much memory
/// grew.
fn growth(request: &[u8]) -> u64 {
    let mut shard = Shard::new(config(), program(20));
    let mut out = Batch::new();
    // The buffer bounds its memory by itself, without the limit on headers.
    let limits = ScanLimits { max_header_bytes: u32::MAX, ..ScanLimits::default() };
    let shape = scan::check(request, &limits).unwrap();
    let (before, bound) = (shard.held().bytes, shard.worst_case(&shape));
    let inserted = shard.insert(request, &shape, 1, &mut out);
    let grown = shard.held().bytes - before;
    assert_eq!(inserted.stored, u64::from(shape.spans));
    assert!(grown <= bound, "{grown} grown, at most {bound} foretold");
    assert!(bound <= 4 * grown + (4 << 20), "{bound} is far more than the {grown} that it came to");
    while shard.decide_all(&EVERYTHING, &mut out).more {}
    shard.relieve(1, u64::MAX, &mut out);
    let rest = shard.held().bytes - before;
    assert!(rest <= SCRATCH_BYTES as u64, "{rest} bytes do not come back");
    grown
}

#[test]
fn two_hundred_thousand_minimal_spans() {
    let spans = (1..=200_000u128)
        .map(|trace| Span { trace_id: trace.to_be_bytes().to_vec(), ..Span::default() });
    let request = one_group(spans.collect());
    assert!(request.len() < 4_100_000);
    let grown = growth(&request);
    assert!(grown / 200_000 <= 220, "{} bytes a trace", grown / 200_000);
}

#[test]
fn four_mebibytes_of_distinct_resources() {
    let groups: Vec<_> = (0..40_000u64)
        .map(|n| {
            group(&format!("service-{n:050}"), "scope", vec![span(u128::from(n % 10 + 1), n, 0)])
        })
        .collect();
    let request = request(groups);
    assert!(request.len() > (4 << 20));
    assert!(growth(&request) < 4 * request.len() as u64);
}

#[test]
fn one_large_resource_with_many_scopes() {
    let mut whole = group(&"r".repeat(200 << 10), "scope", Vec::new());
    let scoped = |n: u64| ScopeSpans {
        scope: Some(scope(&n.to_string())),
        spans: vec![span(1, n, 0)],
        ..ScopeSpans::default()
    };
    whole.scope_spans = (0..20_000).map(scoped).collect();
    let request = request(vec![whole]);
    assert!(growth(&request) < 4 * request.len() as u64);
}

#[test]
fn spans_larger_than_a_segment() {
    let request = one_group((0..4).map(|n| span(7, n, 4 << 20)).collect());
    let grown = growth(&request);
    assert!(grown < request.len() as u64 + (1 << 20));
}

#[test]
fn ordinary_spans_cost_little_beside_their_bytes() {
    let mut shard = Shard::new(ShardConfig { memory_keys: 1, ..config() }, program(20));
    let (mut out, mut wire) = (Batch::new(), 0);
    for part in 0..1_000u64 {
        let spans: Vec<_> =
            (0..100).map(|n| span(u128::from(part / 8 * 100 + n + 1), part, 420)).collect();
        wire += spans.iter().map(|span| span.encoded_len() as u64).sum::<u64>();
        insert(&mut shard, &one_group(spans), part, &mut out);
    }
    let held = shard.held();
    assert_eq!((held.spans, held.traces), (100_000, 12_500));
    assert!(held.bytes * 100 < wire * 115, "{} bytes held for {wire} on the wire", held.bytes);
}

/// Eight spans a trace, which come over half of the wait: 220 MiB are held at a time.
#[test]
fn traces_spread_over_time_leave_no_holes() {
    const APART: u64 = 62;
    let mut shard = Shard::new(ShardConfig { memory_keys: 1, ..config() }, program(1_000_000));
    let mut out = Batch::new();
    for turn in 0..80 * 25u64 {
        let now = turn * 1_000 / 80;
        let spans = (0..96u64).map(|n| {
            let (trace, number) = ((turn + (8 - n % 8) * APART) * 12 + n / 8, n % 8);
            span(id(u128::from(trace)), number, 4_000)
        });
        insert(&mut shard, &one_group(spans.collect()), now, &mut out);
        shard.decide_due(now, &EVERYTHING, &mut out);
        out.clear();
        if now > 12_000 {
            let (held, reserved) = (shard.held().bytes, shard.log.reserved());
            let live = shard.log.live_bytes();
            assert!(reserved * 100 < live * 115, "{reserved} reserved for {live} live at {now}");
            // The rest is one spare segment for every sixteen.
            assert!(held * 100 < live * 125, "{held} held for {live} live at {now}");
        }
    }
    let stats = shard.stats();
    assert_eq!((stats.late_kept, stats.late_dropped), (0, 0));
    assert!(stats.evacuated_bytes * 20 < stats.stored * 4_000, "spans were moved about: {stats:?}");
}
