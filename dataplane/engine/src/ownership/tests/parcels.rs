//! What goes to new owners, and how much at a time.

use std::collections::BTreeMap;

use super::*;
use crate::ownership::timers::{PARCEL_TRACES, PARCELS_IN_FLIGHT};

/// More than may be on the way at once.
const TRACES: usize = 40 * PARCEL_TRACES;

/// Parcels by receiver: how many traces each has.
fn parcels(bench: &Bench) -> BTreeMap<String, Vec<usize>> {
    let mut parcels = BTreeMap::<String, Vec<usize>>::new();
    for (to, _, delivery) in bench.delivered() {
        parcels.entry(to).or_default().push(delivery.parts.len());
    }
    parcels
}

#[test]
fn so_many_parcels_are_on_their_way_and_each_answer_makes_room_for_one() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let view = Arc::clone(&bench.own.stand().view);
    let keys = (0..).map(|number: u128| SEED.key(&number.to_be_bytes()));
    let ours = |key: &TraceKey| view.members()[view.owner(*key).unwrap()].id == "b";
    let parts: Vec<Part> = keys.filter(ours).take(TRACES).map(part).collect();
    bench.own.on_delivery(Inbound(1), &Delivery { parts, hops: 0 }, bench.now, &mut bench.out);
    bench.out.clear();
    bench.own.drain(bench.now, &mut bench.out);
    let sent = parcels(&bench);
    let full = vec![PARCEL_TRACES; PARCELS_IN_FLIGHT];
    assert_eq!(sent, BTreeMap::from([("a".to_owned(), full.clone()), ("c".to_owned(), full)]));
    // One of them answers until everything that is its own has gone there.
    let mut open = bench.delivered();
    let mut gone = 0;
    while let Some(place) = open.iter().position(|(to, ..)| to == "c") {
        let (to, req, delivery) = open.remove(place);
        gone += delivery.parts.len();
        bench.out.clear();
        let from = Instance::new(&to, 1);
        let outcomes = vec![Outcome::Held(from.clone()); delivery.parts.len()];
        let receipt = Receipt { from, outcomes };
        bench.own.on_receipt(req, &receipt, bench.now, &mut bench.out);
        let more = bench.delivered();
        assert!(more.len() <= 1 && more.iter().all(|(to, ..)| to == "c"));
        open.extend(more);
    }
    let theirs = TRACES - gone;
    assert!(gone > TRACES / 3 && theirs > TRACES / 3, "{gone} went to c");
    assert_eq!(open.len(), PARCELS_IN_FLIGHT, "the other one has answered nothing");
}
