//! The decision memory compared with a list of everything it was told.

use proptest::prelude::*;

use super::*;
use crate::key::mix;

/// Keys that are as even as the hashes of trace IDs.
fn key(number: u64) -> TraceKey {
    TraceKey(mix(number))
}

proptest! {
    #[test]
    fn what_is_found_is_right_and_the_last_generation_is(
        size in 1_usize..40,
        told in prop::collection::vec((0_u64..200, any::<u64>()), 0..600),
    ) {
        let mut memory = DecisionMemory::new(size);
        let bytes = memory.bytes();
        // In order of what was inserted, latest last.
        let mut model: Vec<(u64, u64)> = Vec::new();
        for (number, decision) in told {
            match memory.find_mut(key(number)) {
                Some(known) => {
                    *known = decision;
                    let known = model.iter_mut().rev().find(|(n, _)| *n == number);
                    known.unwrap().1 = decision;
                }
                None => {
                    memory.insert(key(number), decision);
                    model.push((number, decision));
                }
            }
            prop_assert_eq!(memory.find(key(number)), Some(&decision));
        }
        for number in 0..200 {
            let latest = model.iter().rev().find(|(n, _)| *n == number);
            if let Some(known) = memory.find(key(number)) {
                prop_assert_eq!(Some(*known), latest.map(|(_, decision)| *decision));
            }
        }
        for (number, _) in model.iter().rev().take(memory.generation()) {
            prop_assert!(memory.find(key(*number)).is_some(), "forgot {}", number);
        }
        prop_assert!(memory.len() <= 2 * memory.generation());
        prop_assert_eq!(memory.bytes(), bytes);
    }
}

#[test]
fn what_was_never_told_is_not_found() {
    let mut memory = DecisionMemory::new(100_000);
    assert!(memory.is_empty());
    for number in 0..100_000 {
        memory.insert(key(number), number);
    }
    assert!((100_000..1_000_000).all(|number| memory.find(key(number)).is_none()));
}

#[test]
fn two_full_generations_cost_what_the_module_says_and_then_the_older_is_forgotten() {
    let mut memory = DecisionMemory::new(100_000);
    let keys = 2 * memory.generation() as u64;
    let bytes = memory.bytes();
    for number in 0..keys {
        memory.insert(key(number), number);
    }
    assert_eq!(memory.len() as u64, keys);
    assert!((0..keys).all(|number| memory.find(key(number)) == Some(&number)));
    assert_eq!(memory.bytes(), bytes);
    // 16 bytes and one control byte a slot, 7 of 8 slots used: 19.4 bytes.
    let a_key = bytes as f64 / keys as f64;
    assert!((17.0..19.6).contains(&a_key), "{a_key} bytes a key");

    memory.insert(key(keys), keys);
    assert_eq!(memory.find(key(0)), None);
    assert_eq!(memory.find(key(keys - 1)), Some(&(keys - 1)));
    assert_eq!(memory.find(key(keys)), Some(&keys));
}
