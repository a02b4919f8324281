//! When something is decided, and who has to know.

use super::*;
use crate::ownership::message::{Agreement, Decisions, Poll, Req};
use crate::ownership::timers::{AGENT_WITNESSES_TOLD, FENCE, GAP, IN_FLIGHT, LEASE, SUSPECT, TICK};

/// A proposal of `from`, and what the gateway says.
fn propose(bench: &mut Bench, from: &str, key: TraceKey, verdict: Verdict) -> Agreement {
    let decision = Decision { key, verdict, age: 0, exported: false };
    let told = Decisions { from: Instance::new(from, 1), propose: true, list: vec![decision] };
    bench.own.on_decisions(&told, bench.now, &mut bench.out)
}

/// Spans that an agent sends again; whether they are dropped.
fn is_repeated(bench: &mut Bench, key: TraceKey, age: Millis) -> bool {
    bench.out.clear();
    bench.deliver(Part { age, origin: Origin::Replay, ..part(key) });
    bench.out.iter().any(|action| matches!(action, Action::Repeated { .. }))
}

/// Before others may take it for dead, and decide themselves.
#[test]
fn who_is_not_answered_stops_deciding() {
    const { assert!(LEASE < SUSPECT) };
    needs(
        |rules| rules.lease = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            bench.pass(LEASE + TICK);
            !bench.own.stand().may_decide(bench.now)
        },
    );
}

/// Agreements from before may have ended on the other side.
#[test]
fn who_was_stopped_asks_again_before_it_decides() {
    needs(
        |rules| rules.gap = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            bench.now += GAP + TICK;
            bench.deliver(part(bench.key(&["b"])));
            !bench.own.stand().may_decide(bench.now)
        },
    );
}

#[test]
fn only_the_owner_finds_agreement() {
    needs(
        |rules| rules.agree = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            let key = bench.key(&["c", "b"]);
            !propose(&mut bench, "a", key, KEEP).refused.is_empty()
        },
    );
}

#[test]
fn a_decision_that_stands_is_what_a_proposal_finds() {
    needs(
        |rules| rules.known = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            let key = bench.key(&["c", "b", "a", "d"]);
            propose(&mut bench, "c", key, KEEP);
            // As long as the view stays as it is, nobody else may decide it.
            bench.facts.push(serving("d"));
            bench.greet("d", &[]);
            bench.live(TICK);
            let other = Verdict { keep: false, note: 2 };
            let answer = propose(&mut bench, "c", key, other);
            answer.known.iter().any(|known| known.verdict == KEEP)
        },
    );
}

#[test]
fn a_decision_outlives_two_gateways() {
    needs(
        |rules| rules.third = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            let key = bench.key(&["b", "a", "c"]);
            bench.deliver(part(key));
            bench.out.clear();
            bench.own.on_judged(&[(key, KEEP)], bench.now, &mut bench.out);
            bench.told().len() == 2
        },
    );
}

#[test]
fn a_new_next_choice_hears_of_old_decisions() {
    needs(
        |rules| rules.restream = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            let key = bench.key(&["b", "d", "a", "c"]);
            bench.deliver(part(key));
            bench.decide(key);
            bench.facts.push(serving("d"));
            bench.greet("d", &[]);
            bench.pass(TICK);
            bench.told().iter().any(|(to, _)| to == "d")
        },
    );
}

#[test]
fn what_was_exported_is_not_exported_again() {
    needs(
        |rules| rules.exported = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            let key = bench.key(&["b"]);
            bench.deliver(part(key));
            bench.live(IN_FLIGHT);
            bench.decide(key);
            // The times of decisions are remembered to within 16 ms.
            is_repeated(&mut bench, key, IN_FLIGHT + 16)
        },
    );
}

/// It goes along with the next proposal, which is answered for both.
#[test]
fn news_of_an_export_needs_no_message_of_its_own() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let (first, second) = (bench.key(&["b", "a", "c"]), bench.key(&["b", "c", "a"]));
    bench.deliver(part(first));
    bench.decide(first);
    bench.pass(TICK);
    assert_eq!(bench.told(), [], "it waits for company");
    bench.deliver(part(second));
    bench.own.on_judged(&[(second, KEEP)], bench.now, &mut bench.out);
    let asked = bench.told();
    assert_eq!(asked.len(), 2);
    let mut witness = Bench::serving(Rules::ALL, &["a", "c"]);
    for action in std::mem::take(&mut bench.out) {
        let Action::Send { message: Message::Decisions(told), .. } = action else { continue };
        let exported = told.list.iter().filter(|told| told.exported).map(|told| told.key);
        assert!(told.propose && exported.eq([first]), "{told:?}");
        // Who gets it learns the one, and is asked about the other.
        let from = Instance::new("c", 1);
        let theirs = |told: &Decision| told.exported || witness.key(&["c", "b"]) == told.key;
        let told = Decisions { from, list: told.list.into_iter().filter(theirs).collect(), ..told };
        let answer = witness.own.on_decisions(&told, witness.now, &mut witness.out);
        assert_eq!((answer.known, answer.refused), (Vec::new(), Vec::new()));
        assert!(is_repeated(&mut witness, first, IN_FLIGHT + 2 * TICK));
    }
    for (to, req) in asked {
        bench.fail(&to, req);
    }
    bench.live(1_000 + TICK);
    let again = bench.out.iter().filter_map(|action| match action {
        Action::Send { message: Message::Decisions(told), .. } if !told.propose => Some(&told.list),
        _ => None,
    });
    let again: Vec<_> = again.flatten().map(|told| (told.key, told.exported)).collect();
    assert_eq!(again, [(first, true), (first, true)], "nobody answered");
}

/// What the one that was not waited for held may be new.
#[test]
fn what_may_have_missed_a_decision_is_exported() {
    needs(
        |rules| rules.doubt = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c"]);
            let key = bench.key(&["b", "a"]);
            bench.deliver(part(key));
            bench.stuck = Some("c");
            bench.live(LEASE + FENCE + 2 * TICK);
            bench.decide(key);
            !is_repeated(&mut bench, key, FENCE + LEASE)
        },
    );
}

/// The owner may end before it has asked again, and nobody else need have heard of it.
#[test]
fn who_leaves_tells_the_next_choices_what_it_has_heard() {
    needs(
        |rules| rules.last_words = false,
        |rules| {
            let mut bench = Bench::serving(rules, &["a", "c", "d"]);
            let key = bench.key(&["a", "b", "c", "d"]);
            propose(&mut bench, "a", key, KEEP);
            bench.out.clear();
            bench.own.drain(bench.now, &mut bench.out);
            let told: Vec<String> = bench.told().into_iter().map(|(to, _)| to).collect();
            told == ["c", "d"]
        },
    );
}

#[test]
fn a_decision_that_a_witness_refuses_is_counted_and_tried_again() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let key = bench.key(&["b", "a", "c"]);
    bench.deliver(part(key));
    bench.out.clear();
    bench.own.on_judged(&[(key, KEEP)], bench.now, &mut bench.out);
    for (to, req) in bench.told() {
        let from = Instance::new(&to, 1);
        let answer = Agreement { from, known: Vec::new(), refused: vec![key] };
        bench.own.on_agreement(req, &answer, bench.now, &mut bench.out);
        // An answer that comes twice is no second refusal.
        bench.own.on_agreement(req, &answer, bench.now, &mut bench.out);
    }
    assert_eq!(bench.own.stats().turned_down, 1);
    assert!(bench.out.iter().any(|action| matches!(action, Action::PutBack { .. })));
    assert!(!bench.out.iter().any(|action| matches!(action, Action::Settle { .. })));
}

/// The traces that follow a decision, in order.
fn settled(bench: &Bench) -> Vec<TraceKey> {
    let settled = bench.out.iter().filter_map(|action| match action {
        Action::Settle { key, .. } => Some(*key),
        _ => None,
    });
    settled.collect()
}

/// A witness agrees to all that it was asked in this round.
fn agree(bench: &mut Bench, name: &str, req: Req) {
    let answer = Agreement { from: Instance::new(name, 1), known: Vec::new(), refused: Vec::new() };
    bench.own.on_agreement(req, &answer, bench.now, &mut bench.out);
}

/// Others may have decided meanwhile, and the witnesses would know.
#[test]
fn who_could_not_decide_for_long_asks_again_before_it_decides_alone() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let key = bench.key(&["b", "a", "c"]);
    bench.deliver(part(key));
    bench.own.on_judged(&[(key, KEEP)], bench.now, &mut bench.out);
    for (to, req) in bench.told() {
        bench.fail(&to, req);
    }
    bench.pass(2 * FENCE);
    assert!(!bench.own.stand().may_decide(bench.now), "it is one of three");
    bench.live(2 * TICK);
    bench.out.clear();
    bench.own.on_judged(&[(key, KEEP)], bench.now, &mut bench.out);
    assert_eq!(bench.told().len(), 2);
    assert_eq!(settled(&bench), []);
    // Nobody answers now either, though they agree.
    let asked = bench.told();
    bench.live(FENCE + TICK);
    asked.iter().for_each(|(to, req)| bench.fail(to, *req));
    bench.own.on_judged(&[(key, KEEP)], bench.now, &mut bench.out);
    assert_eq!(settled(&bench), [key]);
}

#[test]
fn each_witness_is_asked_once_a_round_and_a_decision_waits_for_its_own_witnesses_alone() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c", "d"]);
    let keys = [["b", "a", "c"], ["b", "a", "d"]].map(|choices| bench.key(&choices));
    bench.own.on_judged(&keys.map(|key| (key, KEEP)), bench.now, &mut bench.out);
    let asked = bench.out.iter().filter_map(|action| match action {
        Action::Send { to, message: Message::Decisions(told), .. } => {
            Some((to.to_string(), told.list.len()))
        }
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    assert_eq!(asked, [("a".to_owned(), 2), ("c".to_owned(), 1), ("d".to_owned(), 1)]);
    let [(_, req), ..] = bench.told()[..] else { panic!("nobody was asked") };
    for (name, expected) in [("a", 0), ("c", 1)] {
        agree(&mut bench, name, req);
        assert_eq!(settled(&bench).len(), expected, "{name}");
    }
    bench.fail("d", req);
    assert_eq!(settled(&bench), keys);
}

/// Whether an agent that asks is told of a decision on the trace.
fn tells_agents(bench: &mut Bench, key: TraceKey) -> bool {
    let poll = Poll {
        agent: "agent".into(),
        done: Arc::default(),
        facts: Arc::default(),
        losses: Arc::default(),
        heard: Arc::default(),
        decided: Arc::default(),
    };
    let answer = bench.own.on_poll(&poll, bench.now, &mut bench.out);
    answer.decided.iter().any(|decision| decision.key == key)
}

/// Nobody else who knows it may be heard, and who is not told may decide again.
#[test]
fn agents_hear_of_what_was_decided_before_gateways_became_few() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let key = bench.key(&["a", "b"]);
    let agreement = propose(&mut bench, "a", key, KEEP);
    assert!(agreement.refused.is_empty());
    assert!(!tells_agents(&mut bench, key), "two more gateways remember it");
    bench.pass(LEASE + FENCE + TICK);
    assert!(tells_agents(&mut bench, key));
    bench.pass(AGENT_WITNESSES_TOLD);
    assert!(!tells_agents(&mut bench, key), "it was told");
}

/// One of a round turns out to be more than that: it follows what is known of it, and the rest of the round
/// is decided as if nothing had happened.
#[test]
fn what_witnesses_are_asked_about_is_theirs_all_the_same() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let keys = [["b", "a", "c"], ["b", "c", "a"]].map(|choices| bench.key(&choices));
    let [key, other] = keys;
    bench.own.on_judged(&keys.map(|key| (key, KEEP)), bench.now, &mut bench.out);
    let again = propose(&mut bench, "a", key, Verdict { keep: false, note: 1 });
    assert_eq!(again.refused, [key], "it is ours, and we are about to decide it");
    let [(_, req), ..] = bench.told()[..] else { panic!("nobody was asked") };
    let known = Decision { key, verdict: Verdict { keep: false, note: 1 }, age: 9, exported: true };
    let told = Decisions { from: Instance::new("a", 1), propose: false, list: vec![known] };
    bench.out.clear();
    bench.own.on_decisions(&told, bench.now, &mut bench.out);
    assert_eq!(settled(&bench), [key]);
    bench.out.clear();
    ["a", "c"].into_iter().for_each(|name| agree(&mut bench, name, req));
    assert_eq!(settled(&bench), [other]);
}

/// Whoever asks hears of exports with the answer, and not once more with the next question.
#[test]
fn an_answer_says_what_was_exported() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let key = bench.key(&["b", "a", "c"]);
    bench.deliver(part(key));
    bench.decide(key);
    let theirs = [bench.key(&["a", "b", "c"]), bench.key(&["a", "c", "b"])];
    let answer = propose(&mut bench, "a", theirs[0], KEEP);
    let said: Vec<_> = answer.known.iter().map(|known| (known.key, known.exported)).collect();
    assert_eq!((said, answer.refused), (vec![(key, true)], Vec::new()));
    assert_eq!(propose(&mut bench, "a", theirs[1], KEEP).known, [], "it is said once");
    bench.live(1_000 + TICK);
    let told: Vec<String> = bench.told().into_iter().map(|(to, _)| to).collect();
    assert_eq!(told, ["c"], "who has not asked is told");

    // What is sent again of it after its owner is gone, the one who heard drops; but not before.
    let mut heard = Bench::serving(Rules::ALL, &["a", "b2", "c"]);
    let key = heard.key(&["c", "b"]);
    let known = Decision { key, verdict: KEEP, age: 0, exported: true };
    let answer = Agreement { from: Instance::new("c", 1), known: vec![known], refused: vec![] };
    heard.live(IN_FLIGHT);
    heard.own.on_agreement(Req(7), &answer, heard.now, &mut heard.out);
    heard.facts.retain(|fact| *fact.of.name != *"c");
    heard.facts.push(Fact { of: Instance::new("c", 1), state: State::Left });
    heard.greet("a", &[]);
    heard.live(TICK);
    assert!(is_repeated(&mut heard, key, IN_FLIGHT + 2 * TICK));
}

/// It leaves with spans of a trace that their new owner has decided without them.
#[test]
fn what_is_held_follows_news_that_come_along() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let owns = |key: &TraceKey| bench.own.stand().owns(*key);
    let keys = (0u64..).map(|number| SEED.key(&u128::from(number).to_be_bytes()));
    let keys: Vec<TraceKey> = keys.filter(owns).take(10).collect();
    keys.iter().for_each(|key| bench.deliver(part(*key)));
    bench.own.drain(bench.now, &mut bench.out);
    let left: Vec<TraceKey> =
        bench.delivered().iter().map(|(.., sent)| sent.parts[0].key).collect();
    let stays = |key: &TraceKey| !left.contains(key);
    let held: Vec<TraceKey> = keys.into_iter().filter(stays).collect();
    assert_eq!(bench.own.len(), held.len());
    bench.out.clear();
    let exported = |key: &TraceKey| Decision { key: *key, verdict: KEEP, age: 0, exported: true };
    let list = held.iter().map(exported).collect();
    let told = Decisions { from: Instance::new("c", 1), propose: true, list };
    bench.own.on_decisions(&told, bench.now, &mut bench.out);
    assert_eq!((settled(&bench), bench.own.len()), (held, 0));
}

/// Others' decisions are looked up for some time after a change. What answers say of them does not make
/// that longer: each look is a place in memory that lies apart.
#[test]
fn news_in_answers_are_noted_and_not_looked_up() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    let theirs = bench.key(&["c", "b"]);
    propose(&mut bench, "c", theirs, KEEP);
    bench.facts.push(serving("d"));
    bench.greet("d", &[]);
    bench.live(TICK);
    let looks = |bench: &Bench| bench.own.shard.traces.decided.may_know_others();
    assert!(looks(&bench));
    let keys = (0..u64::MAX).map(|number| SEED.key(&u128::from(number).to_be_bytes()));
    let owner = |bench: &Bench, key: TraceKey| {
        bench.own.stand().owner(key).map(|owner| owner.id.clone()).unwrap_or_default()
    };
    for key in keys.take(4_000) {
        match owner(&bench, key).as_str() {
            "b" => bench.decide(key),
            name => {
                let known = vec![Decision { key, verdict: KEEP, age: 0, exported: true }];
                let answer = Agreement { from: Instance::new(name, 1), known, refused: vec![] };
                bench.own.on_agreement(Req(7), &answer, bench.now, &mut bench.out);
            }
        }
    }
    assert!(!looks(&bench));
}
