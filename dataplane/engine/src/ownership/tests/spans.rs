//! Where spans go, and who is taken for dead.

use super::*;
use crate::ownership::timers::{SUSPECT, TICK};

#[test]
fn spans_of_others_are_on_their_way_at_once() {
    needs(
        |rules| rules.forward = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            bench.deliver(part(bench.key(&["c", "b"])));
            bench.delivered().iter().any(|(to, ..)| to == "c")
        },
    );
}

#[test]
fn an_owner_that_does_not_answer_is_tried_through_the_next_choice() {
    needs(
        |rules| rules.fallback = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            bench.deliver(part(bench.key(&["c", "a"])));
            let (to, req, _) = bench.delivered()[0].clone();
            bench.fail(&to, req);
            bench.delivered().iter().any(|(to, ..)| to == "a")
        },
    );
}

#[test]
fn who_joins_holds_nothing_for_others() {
    needs(
        |rules| rules.refuse = false,
        |rules| {
            let mut bench = Bench::joining(rules, &["a", "c"]);
            bench.deliver(part(bench.key(&["c", "a"])));
            for choice in 0..2 {
                let (to, req, _) = bench.delivered()[choice].clone();
                bench.fail(&to, req);
            }
            bench.outcomes() == [Outcome::Refused]
        },
    );
}

/// So nobody takes it for dead who does not hear it.
#[test]
fn the_others_are_told_who_is_heard() {
    needs(
        |rules| rules.relay = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            bench.live(SUSPECT);
            let mut heard = bench.out.iter().filter_map(|action| match action {
                Action::Send { to, message: Message::Hello(hello), .. } if **to == *"a" => {
                    Some(hello.status.heard.clone())
                }
                _ => None,
            });
            heard.next_back().is_some_and(|heard| heard.iter().any(|(name, _)| **name == *"c"))
        },
    );
}

#[test]
fn who_hears_nobody_takes_nobody_for_dead() {
    needs(
        |rules| rules.quorum = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            bench.pass(SUSPECT + 2 * TICK);
            bench.knows_as("a") == Some(State::Serving)
        },
    );
}

/// After the others took it for dead, agents have sent again what it held: it may be with the backend.
#[test]
fn what_was_held_by_the_dead_counts_as_sent_again() {
    needs(
        |rules| rules.woken = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            bench.deliver(part(bench.key(&["b", "c"])));
            bench.facts[0].state = State::Gone;
            bench.greet("c", &[]);
            assert_eq!(bench.own.stand().me.inst, 2);
            let sent = bench.delivered();
            sent.iter().any(|(to, _, sent)| to == "c" && sent.parts[0].origin == Origin::Replay)
        },
    );
}
