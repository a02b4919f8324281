//! What the gateway's buffer costs: nanoseconds to insert and to decide a span, bytes to hold one.
//!
//! `cargo bench -p ringtail-bench --bench buffer`, rows per span. The resident memory of two million spans
//! comes first, then what it costs to keep traces whole.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod counted;
mod load;
mod watched;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use load::{Load, REQUESTS_A_WAVE, SPANS_A_REQUEST, SPANS_A_TRACE};
use ringtail_engine::batch::Batch;
use ringtail_engine::shard::TickLimit;

const SPANS_A_WAVE: usize = REQUESTS_A_WAVE * SPANS_A_REQUEST;
const EVERYTHING: TickLimit = TickLimit { traces: u64::MAX, out_bytes: u64::MAX };
/// Decisions that a shard remembers at least.
const REMEMBERED: usize = 1 << 20;
/// As much as a gateway does between two looks at its queue.
const TURN: TickLimit = TickLimit { traces: 512, out_bytes: 1 << 20 };

fn main() {
    if !std::env::args().any(|arg| arg == "--test" || arg == "--list") {
        print_resident(2_000_000);
        watched::print_cost();
    }
    divan::main();
}

/// How much a gateway's memory grows by holding so many spans.
fn print_resident(spans: usize) {
    let mut load = Load::new();
    let mut out = Batch::new();
    let mut shard = load::shard(10, REMEMBERED);
    load.wave(|request, shape| _ = shard.insert(request, shape, 0, &mut out));
    while shard.decide_all(&EVERYTHING, &mut out).more {}
    out.clear();
    let (before, mut wire, mut waves) = (resident(), 0, 0);
    while (shard.held().spans as usize) < spans {
        waves += 1;
        load.wave(|request, shape| {
            wire += request.len() as u64;
            shard.insert(request, shape, waves, &mut out);
        });
    }
    let (held, grown) = (shard.held(), resident() - before);
    println!(
        "resident: {} spans of {} bytes, {SPANS_A_TRACE} a trace: {:.0} bytes a span accounted, \
         {:.0} resident, {:.3} x wire",
        held.spans,
        wire / held.spans,
        held.bytes as f64 / held.spans as f64,
        grown as f64 / held.spans as f64,
        grown as f64 / wire as f64,
    );
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// Spans go in; the shard is empty at first and its memory is new.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn insert(bencher: Bencher<'_, '_>) {
    let mut load = Load::new();
    let inputs = || (load.requests(), load::shard(10, REMEMBERED), Batch::new());
    let bencher = bencher.with_inputs(inputs).counter(ItemsCount::new(SPANS_A_WAVE));
    bencher.bench_local_values(|(requests, mut shard, mut out)| {
        for (request, shape) in &requests {
            black_box(shard.insert(request, shape, 0, &mut out));
        }
        (requests, shard, out)
    });
}

/// All that was inserted is decided at once; so many percent are kept and gathered.
#[divan::bench(args = [0, 10, 100], sample_count = 20, sample_size = 1)]
fn decide(bencher: Bencher<'_, '_>, percent: u32) {
    let mut load = Load::new();
    let inputs = || {
        let (mut shard, mut out) = (load::shard(percent, REMEMBERED), Batch::new());
        load.wave(|request, shape| _ = shard.insert(request, shape, 0, &mut out));
        (shard, out)
    };
    let bencher = bencher.with_inputs(inputs).counter(ItemsCount::new(SPANS_A_WAVE));
    bencher.bench_local_values(|(mut shard, mut out)| {
        while shard.decide_due(1_000_000, &TURN, &mut out).more {
            out.clear();
        }
        (shard, out)
    });
}

/// A gateway in its stride: spans go in, those of ten waves ago are decided, a tenth is kept.
#[divan::bench(sample_count = 40, sample_size = 1)]
fn steady(bencher: Bencher<'_, '_>) {
    let mut load = Load::new();
    let (mut shard, mut out) = (load::shard(10, REMEMBERED), Batch::new());
    let mut now = 0;
    let mut wave = move |requests: &load::Requests| {
        now += 1_000;
        for (request, shape) in requests {
            shard.insert(request, shape, now, &mut out);
            while shard.decide_due(now, &TURN, &mut out).more {
                out.clear();
            }
        }
    };
    (0..15).for_each(|_| wave(&load.requests()));
    let bencher = bencher.with_inputs(|| load.requests()).counter(ItemsCount::new(SPANS_A_WAVE));
    bencher.bench_local_refs(|requests| wave(requests));
}
