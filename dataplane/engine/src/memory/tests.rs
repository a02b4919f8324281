//! The decision memory compared with a list of everything it was told.

use proptest::prelude::*;

use super::*;

/// Keys that differ in more than the bit of the verdict, as the hashes of trace IDs do.
fn key(number: u64) -> TraceKey {
    TraceKey(mix(number))
}

/// Everything that was ever remembered, latest last.
#[derive(Default)]
struct Model(Vec<(u64, bool)>);

impl Model {
    fn latest(&self, number: u64) -> Option<bool> {
        self.0.iter().rev().find(|(n, _)| *n == number).map(|(_, kept)| *kept)
    }

    /// The last `count` different numbers.
    fn last(&self, count: usize) -> Vec<u64> {
        let mut last = Vec::new();
        for (number, _) in self.0.iter().rev() {
            if last.len() == count {
                break;
            }
            if !last.contains(number) {
                last.push(*number);
            }
        }
        last
    }
}

proptest! {
    #[test]
    fn recall_is_right_and_knows_the_last_generation(
        size in 1_usize..40,
        told in prop::collection::vec((0_u64..200, any::<bool>()), 0..600),
    ) {
        let mut memory = DecisionMemory::new(size);
        let bytes = memory.bytes();
        let mut model = Model::default();
        for (number, kept) in told {
            memory.remember(key(number), kept);
            model.0.push((number, kept));
            prop_assert_eq!(memory.recall(key(number)), Some(kept));
        }
        for number in 0..200 {
            // What is recalled is the latest verdict, or nothing.
            if let Some(kept) = memory.recall(key(number)) {
                prop_assert_eq!(Some(kept), model.latest(number));
            }
        }
        for number in model.last(memory.generation()) {
            prop_assert!(memory.recall(key(number)).is_some(), "forgot {}", number);
        }
        prop_assert!(memory.len() <= 2 * memory.generation());
        prop_assert_eq!(memory.bytes(), bytes);
    }
}

#[test]
fn what_was_never_told_is_not_recalled() {
    let mut memory = DecisionMemory::new(100_000);
    assert!(memory.is_empty());
    for number in 0..100_000 {
        memory.remember(key(number), number % 3 == 0);
    }
    let wrong = (100_000..1_000_000).filter(|n| memory.recall(key(*n)).is_some()).count();
    assert_eq!(wrong, 0);
}

#[test]
fn two_full_generations_cost_what_the_module_says_and_then_the_older_is_forgotten() {
    let mut memory = DecisionMemory::new(100_000);
    let keys = 2 * memory.generation() as u64;
    let bytes = memory.bytes();
    for number in 0..keys {
        memory.remember(key(number), true);
    }
    assert_eq!(memory.len() as u64, keys);
    assert!((0..keys).all(|n| memory.recall(key(n)) == Some(true)));
    assert_eq!(memory.bytes(), bytes);
    // 8 bytes and one control byte a slot, 7 of 8 slots used: 10.3 bytes.
    let a_key = bytes as f64 / keys as f64;
    assert!((9.0..10.4).contains(&a_key), "{a_key} bytes a key");

    memory.remember(key(keys), false);
    assert_eq!(memory.recall(key(0)), None);
    assert_eq!(memory.recall(key(keys - 1)), Some(true));
    assert_eq!(memory.recall(key(keys)), Some(false));
}

#[test]
fn a_later_verdict_replaces_an_earlier_one_in_either_generation() {
    let mut memory = DecisionMemory::new(1);
    memory.remember(key(0), false);
    for number in 1..=memory.generation() as u64 {
        memory.remember(key(number), true);
    }
    assert_eq!(memory.recall(key(0)), Some(false), "in the previous generation");
    memory.remember(key(0), true);
    assert_eq!(memory.recall(key(0)), Some(true));
}

#[test]
fn the_verdict_does_not_move_the_entry() {
    for number in 0..1_000 {
        let TraceKey(key) = key(number);
        assert_eq!(hash(key & !KEPT), hash(key | KEPT));
    }
}
