//! What finding a trace's place costs: key, owner, choices, shard, remembered decisions.

use divan::Bencher;
use divan::counter::ItemsCount;
use ringtail_engine::key::{KeySeed, TraceKey, shard_of};
use ringtail_engine::memory::DecisionMemory;
use ringtail_engine::ring::{Member, View};

const KEYS: usize = 10_000;
const SEED: KeySeed = KeySeed::new([7; 16]);

fn main() {
    divan::main();
}

fn ids() -> Vec<[u8; 16]> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..KEYS).map(|_| random.u128(..).to_be_bytes()).collect()
}

fn keys() -> Vec<TraceKey> {
    ids().iter().map(|id| SEED.key(id)).collect()
}

fn view(members: usize) -> View {
    let member = |n| Member { id: format!("shop-gateway-{n}"), inst: 1 };
    View::new((0..members).map(member).collect(), &SEED)
}

#[divan::bench]
fn key(bencher: Bencher<'_, '_>) {
    let ids = ids();
    bencher
        .counter(ItemsCount::new(KEYS))
        .bench_local(|| ids.iter().fold(0, |sum, id| sum ^ SEED.key(id).0));
}

#[divan::bench]
fn shard(bencher: Bencher<'_, '_>) {
    let keys = keys();
    bencher
        .counter(ItemsCount::new(KEYS))
        .bench_local(|| keys.iter().fold(0, |sum, key| sum ^ shard_of(*key, 8)));
}

#[divan::bench(args = [3, 10, 64, 100])]
fn owner(bencher: Bencher<'_, '_>, members: usize) {
    let (view, keys) = (view(members), keys());
    bencher.counter(ItemsCount::new(KEYS)).bench_local(|| {
        keys.iter().filter_map(|key| view.owner(*key)).fold(0, |sum, owner| sum ^ owner)
    });
}

#[divan::bench(args = [3, 10, 64, 100])]
fn first_three(bencher: Bencher<'_, '_>, members: usize) {
    let (view, keys) = (view(members), keys());
    bencher.counter(ItemsCount::new(KEYS)).bench_local(|| {
        let first = keys.iter().flat_map(|key| view.first::<3>(*key));
        first.flatten().fold(0, |sum, member| sum ^ member)
    });
}

/// A memory whose pages were all touched, and a source of further keys.
fn full(generation: usize) -> (DecisionMemory<u64>, fastrand::Rng) {
    let mut memory = DecisionMemory::new(generation);
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..2 * memory.generation() {
        memory.insert(TraceKey(random.u64(..)), 0);
    }
    (memory, random)
}

#[divan::bench(args = [10_000, 1_000_000], sample_size = 1000)]
fn remember(bencher: Bencher<'_, '_>, generation: usize) {
    let (mut memory, mut random) = full(generation);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let key = random.u64(..);
        memory.insert(TraceKey(key), key);
    });
}

#[divan::bench(args = [10_000, 1_000_000], sample_size = 1000)]
fn recall_of_an_unknown_key(bencher: Bencher<'_, '_>, generation: usize) {
    let (memory, mut random) = full(generation);
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench_local(|| memory.find(TraceKey(random.u64(..))).copied());
}
