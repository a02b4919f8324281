//! Headers are stored once, live as long as a span names them, and nothing is multiplied.

use super::*;
use std::cell::Cell;

fn hold(table: &mut HeaderTable, resource: &[u8], scope: &[u8]) -> u32 {
    let held = table.hold_resource(&Headers::whole(resource));
    let group = table.hold_group(held, &Headers::whole(scope));
    table.release_resource(held);
    group
}

#[test]
fn equal_headers_are_one_group() {
    let mut table = HeaderTable::default();
    let cases: [(&[u8], &[u8]); 6] =
        [(b"", b""), (b"a", b""), (b"", b"a"), (b"a", b"a"), (b"ab", b"c"), (b"a", b"bc")];
    let groups: Vec<_> =
        cases.iter().map(|(resource, scope)| hold(&mut table, resource, scope)).collect();
    for (number, (resource, scope)) in cases.iter().enumerate() {
        assert_eq!(hold(&mut table, resource, scope), groups[number]);
        assert_eq!(groups.iter().filter(|group| **group == groups[number]).count(), 1);
    }
    for group in groups {
        table.release(group);
        table.release(group);
    }
    table.shrink();
    assert_eq!(table.footprint(), 0, "nothing is named any more");
}

#[test]
fn one_resource_with_many_scopes_is_stored_once() {
    let mut table = HeaderTable::default();
    let resource = vec![1; 1 << 20];
    let bound = table.worst_case(1_000, (1 << 20) + 4_000);
    let held = table.hold_resource(&Headers::whole(&resource));
    for scope in 0..1_000u32 {
        table.hold_group(held, &Headers::whole(&scope.to_be_bytes()));
    }
    table.release_resource(held);
    assert!(table.footprint() < (2 << 20));
    assert!(table.footprint() <= bound);
}

#[test]
fn growth_stays_below_the_worst_case() {
    let mut table = HeaderTable::default();
    let mut held = Vec::new();
    for round in 0..40u32 {
        let count = round % 9 * 100;
        let bound = table.footprint() + table.worst_case(u64::from(count), u64::from(count) * 8);
        held.extend((0..count).map(|n| {
            hold(&mut table, &(round * 1_000 + n).to_be_bytes(), &(round * 1_000 + n).to_le_bytes())
        }));
        assert!(table.footprint() <= bound, "round {round}: {} > {bound}", table.footprint());
        let dead = held.len() / 3;
        held.drain(..dead).for_each(|group| table.release(group));
    }
    held.drain(..).for_each(|group| table.release(group));
    table.shrink();
    assert_eq!(table.footprint(), 0);
}

#[test]
fn a_resource_is_asked_once_a_generation() {
    let mut table = HeaderTable::default();
    let (one, two) = (hold(&mut table, b"resource", b"one"), hold(&mut table, b"resource", b"two"));
    let asked = Cell::new(0);
    let mut ask = |group, program| {
        table.resource_bits(group, program, |resource| {
            asked.set(asked.get() + 1);
            resource.bytes().len() as u64 * 100 + u64::from(program)
        })
    };
    for _ in 0..10 {
        assert_eq!([ask(one, 0), ask(two, 1), ask(two, 0), ask(one, 1)], [800, 801, 800, 801]);
    }
    assert_eq!(asked.get(), 2);
    assert_eq!(ask(one, 2), 802, "a newer generation takes the place of an older one");
    assert_eq!(ask(one, 1), 801);
    assert_eq!(asked.get(), 3);
}

#[test]
fn each_gathering_has_its_own_places() {
    let mut table = HeaderTable::default();
    let (one, two) = (hold(&mut table, b"", b""), hold(&mut table, b"a", b""));
    let mut place = |group, out: &mut Batch| table.gathered(group, out).unwrap();
    let mut out = Batch::new();
    let places = [place(one, &mut out), place(two, &mut out)];
    assert_ne!(places[0], places[1]);
    assert_eq!([place(one, &mut out), place(two, &mut out)], places);
    let mut other = Batch::new();
    table.start_gathering();
    let mut place = |group| table.gathered(group, &mut other).unwrap();
    assert_eq!(
        [place(two), place(one)],
        places,
        "places are given in the order in which they are asked for"
    );
}
