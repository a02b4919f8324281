//! What goes to new owners, and how much at a time.

use std::collections::BTreeMap;

use super::*;
use crate::ownership::timers::{PARCEL_TRACES, PARCELS_IN_FLIGHT, SUSPECT};

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
    assert!(parcels(&bench).values().flatten().all(|traces| *traces == 1), "they know of nothing");
    for (to, req, delivery) in bench.deliveries() {
        bench.take_all(&to, req, &delivery);
    }
    let sent = parcels(&bench);
    let full = vec![PARCEL_TRACES; PARCELS_IN_FLIGHT];
    assert_eq!(sent, BTreeMap::from([("a".to_owned(), full.clone()), ("c".to_owned(), full)]));
    let mut gone = 0;
    // One of them answers until everything that is its own has gone there.
    let mut open = bench.delivered();
    while let Some(place) = open.iter().position(|(to, ..)| to == "c") {
        let (to, req, delivery) = open.remove(place);
        gone += delivery.parts.len();
        bench.out.clear();
        bench.take_all(&to, req, &delivery);
        let more = bench.delivered();
        assert!(more.len() <= 1 && more.iter().all(|(to, ..)| to == "c"));
        open.extend(more);
    }
    let theirs = TRACES - gone;
    assert!(gone > TRACES / 3 && theirs > TRACES / 3, "{gone} went to c");
    assert_eq!(open.len(), PARCELS_IN_FLIGHT, "the other one has answered nothing");
}

/// It leaves, and one of those who get its traces has vanished: what it is sent is not even refused.
#[test]
fn who_does_not_answer_gets_one_trace_at_a_time_and_the_next_choice_the_rest_once() {
    needs(
        |rules| rules.wait = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            let keys = (0..).map(|number: u128| SEED.key(&number.to_be_bytes()));
            let parts: Vec<Part> =
                keys.filter(|key| bench.own.stand().owns(*key)).take(200).map(part).collect();
            let delivery = Delivery { parts, hops: 0 };
            bench.own.on_delivery(Inbound(1), &delivery, bench.now, &mut bench.out);
            bench.out.clear();
            bench.own.drain(bench.now, &mut bench.out);
            let view = Arc::clone(&bench.own.stand().view);
            let is_of_c = |part: &&Part| view.members()[view.owner(part.key).unwrap()].id == "c";
            let (mut to_c, mut by_a) = (0, 0);
            let began = bench.now;
            while bench.now < began + SUSPECT - TICK {
                for (to, req, delivery) in bench.deliveries() {
                    let number = delivery.parts.iter().filter(is_of_c).count();
                    if to == "c" {
                        to_c += number;
                        bench.fail(&to, req);
                    } else {
                        by_a += number;
                        bench.take_all(&to, req, &delivery);
                    }
                }
                bench.agree_as(&["a".to_owned()]);
                bench.pass(TICK);
            }
            to_c < 10 && by_a == delivery.parts.iter().filter(is_of_c).count()
        },
    );
}

/// Else two that do not reach the owner would send them to each other for as long as it is silent.
#[test]
fn what_cannot_be_passed_on_goes_back_unless_we_are_the_next_to_own_it() {
    let outcomes = |rules, choices: &[&str]| {
        let mut bench = Bench::serving(rules, &["a", "c"]);
        let parts = vec![part(bench.key(choices))];
        let delivery = Delivery { parts, hops: 1 };
        for inbound in [Inbound(1), Inbound(2)] {
            bench.own.on_delivery(inbound, &delivery, bench.now, &mut bench.out);
            for (to, req, delivery) in bench.deliveries() {
                assert_eq!(
                    (to.as_str(), delivery.hops),
                    ("c", 2),
                    "to its owner, for the last time"
                );
                assert_eq!(inbound, Inbound(1), "the owner does not answer");
                bench.fail(&to, req);
            }
        }
        bench.outcomes()
    };
    needs(
        |rules| rules.wait = false,
        |rules| {
            let ours = outcomes(rules, &["c", "b"]);
            assert!(ours.iter().all(|outcome| matches!(outcome, Outcome::Held(_))), "{ours:?}");
            outcomes(rules, &["c", "a"]) == [Outcome::Refused, Outcome::Refused]
        },
    );
}

/// The owner is dead, which the others know already: they take us for the owner, and pass on to us what we
/// send them.
#[test]
fn what_comes_round_to_us_is_not_sent_round_again_at_once() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let (me, sent) = (bench.own.stand().me.clone(), part(bench.key(&["c", "b", "a"])));
    let mut delivery = Delivery { parts: vec![sent], hops: 0 };
    let (mut inbound, mut round) = (0, 0);
    let until = bench.now + 4 * TICK;
    while bench.now < until {
        inbound += 1;
        bench.own.on_delivery(Inbound(inbound), &delivery, bench.now, &mut bench.out);
        while let Some((to, req, parcel)) = bench.deliveries().into_iter().next() {
            if to == "c" {
                bench.fail(&to, req);
                continue;
            }
            round += 1;
            assert!(round < 4, "it was sent round and round");
            inbound += 1;
            delivery = Delivery { hops: parcel.hops + 1, ..parcel };
            bench.own.on_delivery(Inbound(inbound), &delivery, bench.now, &mut bench.out);
            let from = Instance::new(&to, 1);
            let receipt = Receipt { from, outcomes: vec![Outcome::Held(me.clone())] };
            bench.own.on_receipt(req, &receipt, bench.now, &mut bench.out);
        }
        bench.agree_as(&["a".to_owned()]);
        bench.pass(TICK);
    }
    assert!(round > 0, "the next choice may reach the owner");
}
