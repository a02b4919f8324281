//! Balance, movement and recorded answers of the ring; the recorded ones come from an independent
//! implementation (SipHash-1-3, mix, rendezvous and digest layout written again in Python).

use std::collections::HashSet;

use super::*;

const SEED: KeySeed = KeySeed::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

fn member(id: &str, inst: u64) -> Member {
    Member { id: id.to_owned(), inst }
}

/// Members gw-0 ... with instance 1.
fn fleet(size: usize) -> Vec<Member> {
    (0..size).map(|n| member(&format!("gw-{n}"), 1)).collect()
}

/// A reproducible random key a number: from a random trace ID, as in production.
fn key(number: u64) -> TraceKey {
    let [high, low] = [mix(2 * number + 1), mix(2 * number + 2)];
    let mut id = [0; 16];
    id[..8].copy_from_slice(&high.to_le_bytes());
    id[8..].copy_from_slice(&low.to_le_bytes());
    SEED.key(&id)
}

fn owned(view: &View, keys: u64) -> Vec<u64> {
    let mut counts = vec![0; view.len()];
    for number in 0..keys {
        counts[view.owner(key(number)).unwrap()] += 1;
    }
    counts
}

#[test]
fn the_busiest_member_has_at_most_a_twentieth_more_than_the_mean() {
    const KEYS: u64 = 1_000_000;
    for size in [3, 10, 64, 100] {
        let counts = owned(&View::new(fleet(size), &SEED), KEYS);
        let busiest = *counts.iter().max().unwrap();
        let ratio = busiest as f64 * size as f64 / KEYS as f64;
        println!("{size} members: busiest / mean {ratio:.4}");
        assert!(ratio <= 1.05, "{size} members: {ratio}");
    }
}

#[test]
fn a_join_moves_only_keys_of_the_one_who_joins_and_a_leave_only_its_own() {
    const KEYS: u64 = 1_000_000;
    for size in [3_usize, 10, 100] {
        let [small, large] = [fleet(size), fleet(size + 1)].map(|m| View::new(m, &SEED));
        let joiner = format!("gw-{size}");
        let mut moved = 0_u64;
        for number in 0..KEYS {
            let key = key(number);
            let before = &small.members()[small.owner(key).unwrap()].id;
            let after = &large.members()[large.owner(key).unwrap()].id;
            if before != after {
                // Read forwards this is a join, backwards it is the same member's leaving.
                assert_eq!(*after, joiner, "key {number}, {size} members");
                moved += 1;
            }
        }
        let ideal = KEYS as f64 / (size + 1) as f64;
        let ratio = moved as f64 / ideal;
        println!("{size} members and one more: moved / ideal {ratio:.4}");
        assert!(ratio <= 1.02, "{size} members: {ratio}");
    }
}

#[test]
fn who_leaves_is_replaced_by_the_second_choice() {
    let view = View::new(fleet(10), &SEED);
    for number in 0..2_000 {
        let key = key(number);
        let choices: Vec<&str> = view.ranked(key).map(|i| view.members()[i].id.as_str()).collect();
        let rest = view.members().iter().filter(|m| m.id != choices[0]).cloned().collect();
        let smaller = View::new(rest, &SEED);
        let rest: Vec<&str> =
            smaller.ranked(key).map(|i| smaller.members()[i].id.as_str()).collect();
        assert_eq!(rest, choices[1..], "key {number}");
    }
}

#[test]
fn every_member_is_ranked_once_and_the_owner_first() {
    for size in [1, 2, 3, 64, 100] {
        let view = View::new(fleet(size), &SEED);
        for number in 0..50 {
            let ranked: Vec<usize> = view.ranked(key(number)).collect();
            assert_eq!(ranked.len(), size);
            assert_eq!(ranked.iter().collect::<HashSet<_>>().len(), size);
            assert_eq!(view.owner(key(number)), Some(ranked[0]));
            assert_eq!(view.first::<1>(key(number)), [ranked.first().copied()]);
            let first = [0, 1, 2].map(|rank| ranked.get(rank).copied());
            assert_eq!(view.first::<3>(key(number)), first);
        }
    }
}

#[test]
fn equal_scores_go_to_the_smaller_place_and_are_all_ranked() {
    let view = View { members: fleet(4), hashes: vec![5, 9, 5, 9], digest: 0 };
    for number in 0..200 {
        let ranked: Vec<usize> = view.ranked(key(number)).collect();
        assert!(ranked == [0, 2, 1, 3] || ranked == [1, 3, 0, 2], "{ranked:?}");
        assert_eq!(view.first::<4>(key(number)).map(Option::unwrap).to_vec(), ranked);
        assert_eq!(view.owner(key(number)), Some(ranked[0]));
    }
}

#[test]
fn shards_do_not_follow_members() {
    const KEYS: u64 = 200_000;
    let view = View::new(fleet(4), &SEED);
    let mut counts = [[0_u64; 4]; 4];
    for number in 0..KEYS {
        let key = key(number);
        counts[view.owner(key).unwrap()][crate::key::shard_of(key, 4) as usize] += 1;
    }
    let mean = KEYS as f64 / 16.0;
    for count in counts.as_flattened() {
        assert!((*count as f64 / mean - 1.0).abs() < 0.04, "{counts:?}");
    }
}

#[test]
fn an_empty_view_owns_nothing() {
    let view = View::new(Vec::new(), &SEED);
    assert!(view.is_empty());
    assert_eq!(view.owner(key(1)), None);
    assert_eq!(view.ranked(key(1)).next(), None);
    assert_eq!(view.position("gw-0"), None);
}

#[test]
fn neither_order_nor_repetition_of_members_matters() {
    let view = View::new(fleet(7), &SEED);
    let mut shuffled = fleet(7);
    shuffled.reverse();
    shuffled.rotate_left(3);
    shuffled.extend(fleet(4));
    let other = View::new(shuffled, &SEED);
    assert_eq!(other.members(), view.members());
    assert_eq!(other.digest(), view.digest());
    for number in 0..1_000 {
        assert_eq!(other.owner(key(number)), view.owner(key(number)));
    }
}

#[test]
fn of_two_instances_the_later_counts_and_changes_the_digest_but_no_owner() {
    let once = View::new(fleet(3), &SEED);
    let restarted = View::new([fleet(3), vec![member("gw-1", 2)]].concat(), &SEED);
    assert_eq!(restarted.members()[1], member("gw-1", 2));
    assert_eq!(restarted.position("gw-1"), Some(1));
    assert_ne!(restarted.digest(), once.digest());
    for number in 0..1_000 {
        assert_eq!(restarted.owner(key(number)), once.owner(key(number)));
    }
}

#[test]
fn another_seed_gives_another_digest() {
    let other = KeySeed::new([9; 16]);
    assert_ne!(View::new(fleet(3), &other).digest(), View::new(fleet(3), &SEED).digest());
}

const IDS: [u128; 6] = [
    0x0000_0000_0000_0000_0000_0000_0000_0001,
    0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
    0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
    0xffff_ffff_ffff_ffff_ffff_ffff_ffff_ffff,
    0x5b8e_fff7_9803_8103_d269_b633_813f_c60c,
    0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
];

/// The first three choices for each of [`IDS`].
type Choices = [[&'static str; 3]; 6];

const THREE: Choices = [
    ["gw-2", "gw-0", "gw-1"],
    ["gw-2", "gw-0", "gw-1"],
    ["gw-1", "gw-2", "gw-0"],
    ["gw-0", "gw-1", "gw-2"],
    ["gw-2", "gw-0", "gw-1"],
    ["gw-1", "gw-0", "gw-2"],
];

const A: &str = "shop-gateway-7d9c5b6f4-2xkqp";
const B: &str = "shop-gateway-7d9c5b6f4-9hzvm";
const C: &str = "shop-gateway-7d9c5b6f4-pl4tz";
const D: &str = "äußere";

const NAMED: Choices = [[A, D, B], [A, D, C], [B, D, C], [D, A, B], [C, A, D], [D, B, A]];

const TEN: Choices = [
    ["gw-6", "gw-5", "gw-2"],
    ["gw-5", "gw-6", "gw-4"],
    ["gw-1", "gw-8", "gw-2"],
    ["gw-9", "gw-5", "gw-3"],
    ["gw-7", "gw-6", "gw-9"],
    ["gw-6", "gw-7", "gw-8"],
];

const HUNDRED: Choices = [
    ["gw-87", "gw-68", "gw-69"],
    ["gw-63", "gw-13", "gw-32"],
    ["gw-64", "gw-48", "gw-13"],
    ["gw-77", "gw-72", "gw-39"],
    ["gw-65", "gw-62", "gw-82"],
    ["gw-90", "gw-58", "gw-6"],
];

/// Ring version 1. When this test fails, a fleet of two builds would name two owners for one trace: that
/// takes a new ring version, never a new table.
#[test]
fn owners_and_digests_are_the_recorded_ones() {
    let restarted = vec![member("gw-0", 1), member("gw-1", 2), member("gw-2", 1)];
    let named = vec![
        member(A, 1_763_712_000_000),
        member(B, 1_763_712_000_001),
        member(C, 1_763_712_000_002),
        member(D, 5),
    ];
    let golden: [(Vec<Member>, u64, Choices); 5] = [
        (fleet(3), 0x2f7c_6742_bbe5_8332, THREE),
        (restarted, 0x5e03_6992_1a2e_9915, THREE),
        (named, 0x6de6_f6d4_4647_a6a8, NAMED),
        (fleet(10), 0xf6d3_664a_0d0a_b9fb, TEN),
        (fleet(100), 0x3e3c_5427_0a79_c4b5, HUNDRED),
    ];
    assert_eq!(RING_VERSION, 1);
    assert_eq!(View::new(Vec::new(), &SEED).digest(), 0x786c_4016_f217_bd9b);
    assert_eq!(View::new(fleet(1), &SEED).digest(), 0xff09_1be0_43c9_dddc);
    for (members, digest, choices) in golden {
        let view = View::new(members, &SEED);
        assert_eq!(view.digest(), digest, "{:?}", view.members());
        for (id, expected) in IDS.into_iter().zip(choices) {
            let key = SEED.key(&id.to_be_bytes());
            let ranked: Vec<&str> =
                view.ranked(key).take(3).map(|i| view.members()[i].id.as_str()).collect();
            assert_eq!(ranked, expected, "{id:032x} in {:?}", view.members());
        }
    }
}
