//! What span metrics cost: spans go into a shard that counts them by three dimensions first. What it takes
//! more than the row `insert` is theirs.

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ringtail_engine::batch::Batch;
use ringtail_engine::shard::Shard;
use ringtail_engine::span_metrics::{Buckets, Dimension, Limits, Plan, PlanConfig, Tally, Unit};

use crate::load::{self, Load};
use crate::{REMEMBERED, SPANS_A_WAVE};

fn shard() -> Shard {
    let dimension = |name: &str| Dimension { name: name.to_owned(), default: None };
    let names = ["http.request.method", "http.response.status_code", "http.route"];
    let plan = Plan::new(PlanConfig {
        dimensions: names.map(dimension).into(),
        event_dimensions: None,
        excluded: Vec::new(),
        buckets: Buckets::Explicit(vec![100.0, 250.0, 500.0, 1_000.0, 5_000.0]),
        unit: Unit::Milliseconds,
        exemplars: 0,
        expiry: None,
    });
    let mut shard = load::shard(10, REMEMBERED);
    shard.set_metrics(Tally::new(Arc::new(plan), Limits { series: 10_000, bytes: 64 << 20 }));
    shard
}

/// As `insert`, counted.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn insert(bencher: Bencher<'_, '_>) {
    let mut load = Load::new();
    let inputs = || (load.requests(), shard(), Batch::new());
    let bencher = bencher.with_inputs(inputs).counter(ItemsCount::new(SPANS_A_WAVE));
    bencher.bench_local_values(|(requests, mut shard, mut out)| {
        for (request, shape) in &requests {
            black_box(shard.insert(request, shape, 0, &mut out));
        }
        (requests, shard, out)
    });
}
