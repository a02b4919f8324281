//! Nothing is due early, nothing more than a bucket late, and nothing is lost or due twice.

use super::*;
use crate::buffer::duplicates::Seen;
use crate::buffer::index::Entry;
use crate::buffer::index::Stage;
use crate::buffer::segment::Chain;
use crate::facts::TraceFacts;
use crate::key::TraceKey;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn entry(number: u64) -> Entry {
    Entry {
        key: TraceKey(number),
        facts: TraceFacts::new(u128::from(number).to_be_bytes()),
        chain: Chain::EMPTY,
        seen: Seen::default(),
        first_seen: 0,
        due: 0,
        links: UNLINKED,
        program: 0,
        steady: Default::default(),
        stage: Stage::Open,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add { wait: Millis },
    Cancel { nth: usize },
    Later { by: Millis },
    TakeOldest,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![0..2_000u64, 0..3_600_000u64, Just(20_000_000), Just(u64::MAX / 4)];
    let by = prop_oneof![0..700u64, 0..5_000u64, Just(4_000_000), Just(17_000_000)];
    let step = prop_oneof![
        4 => wait.prop_map(|wait| Step::Add { wait }),
        1 => (0..64usize).prop_map(|nth| Step::Cancel { nth }),
        2 => by.prop_map(|by| Step::Later { by }),
        1 => Just(Step::TakeOldest),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn due_when_the_bucket_ends(steps in steps(), start in 0..10_000_000u64) {
        let (mut index, mut deadlines) = (Index::default(), Deadlines::default());
        let mut model = BTreeMap::new();
        let mut now = start;
        for (number, step) in (1u64..).zip(steps) {
            match step {
                Step::Add { wait } => {
                    let bound = deadlines.footprint() + deadlines.worst_case(now, now + wait);
                    let slot = index.insert(entry(number));
                    deadlines.insert(&mut index, slot, now, now + wait);
                    model.insert(slot, now + wait);
                    prop_assert!(deadlines.footprint() <= bound);
                }
                Step::Cancel { nth } => {
                    let Some(slot) = model.keys().nth(nth).copied() else { continue };
                    model.remove(&slot);
                    deadlines.remove(&mut index, slot);
                    index.remove_whole(slot);
                }
                Step::Later { by } => now += by,
                Step::TakeOldest => {
                    let taken = deadlines.pop(&mut index);
                    prop_assert_eq!(taken.is_some(), !model.is_empty());
                    if let Some(slot) = taken {
                        prop_assert!(model.remove(&slot).is_some());
                        index.remove_whole(slot);
                    }
                }
            }
            while let Some(slot) = deadlines.pop_due(&mut index, now) {
                let deadline = model.remove(&slot).expect("due twice, or after it was cancelled");
                prop_assert!(deadline <= now, "early: {} at {}", deadline, now);
                index.remove_whole(slot);
            }
            let late = now.saturating_sub(BUCKET_MS);
            prop_assert!(model.values().all(|deadline| *deadline > late), "more than a bucket late");
            prop_assert_eq!(deadlines.next().is_some(), !model.is_empty());
        }
    }
}

#[test]
fn the_next_deadline_is_when_the_first_bucket_ends() {
    let (mut index, mut deadlines) = (Index::default(), Deadlines::default());
    assert_eq!(deadlines.next(), None);
    for (number, deadline) in [(1, 30_001), (2, 30_250), (3, 90_000)] {
        let slot = index.insert(entry(number));
        deadlines.insert(&mut index, slot, 1, deadline);
    }
    assert_eq!(deadlines.next(), Some(30_250));
    assert_eq!(deadlines.pop_due(&mut index, 30_249), None);
    assert!(deadlines.pop_due(&mut index, 30_250).is_some());
    assert!(deadlines.pop_due(&mut index, 30_250).is_some());
    assert_eq!(deadlines.next(), Some(90_000));
    let mut slots = Vec::new();
    assert_eq!(deadlines.bucket(&index, 0, &mut slots), Some(360));
    assert_eq!(slots.len(), 1);
    assert_eq!(deadlines.bucket(&index, 361, &mut slots), None);
    assert_eq!(deadlines.pop(&mut index), Some(slots.first().copied().unwrap_or(2)));
}
