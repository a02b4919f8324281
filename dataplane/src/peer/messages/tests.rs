//! The bytes of every message, what older and newer peers make of them, and their limits.

use std::sync::Arc;

use prost::Message;
use ringtail_engine::ownership::facts::Name;
use ringtail_engine::ownership::timers::FACTS_MAX;

use super::*;
use crate::peer::{Decision, Role};

const SEED: KeySeed = KeySeed::new([1; 16]);
const GOLDEN: &str = include_str!("golden.txt");

fn name(text: &str) -> Name {
    text.into()
}

fn verdict() -> message::Verdict {
    message::Verdict { keep: true, note: 3 }
}

fn known(key: u64) -> message::Decision {
    message::Decision { key: TraceKey(key), verdict: verdict(), age: 40, exported: true }
}

fn engine_status() -> message::Status {
    let of = facts::Instance::new("gw-0", 7);
    message::Status {
        from: of.clone(),
        digest: 0x0102_0304_0506_0708,
        complete: true,
        cold: 15,
        facts: [
            Fact { of, state: facts::State::Serving },
            Fact { of: facts::Instance::new("gw-1", 9), state: facts::State::Left },
        ]
        .into(),
        losses: [facts::Instance::new("gw-1", 8)].into(),
        heard: [(name("gw-1"), 300)].into(),
    }
}

fn greeting() -> Hello {
    Hello { status: engine_status(), asked: message::Asked { epoch: 4, at: 90_000 } }
}

fn parcel() -> Delivery {
    let part = |key, age, tentative| message::Part {
        key: TraceKey(key),
        age,
        bytes: 0,
        origin: message::Origin::Replay,
        tentative,
    };
    Delivery {
        parts: vec![part(1, 10, None), part(2, 20, Some(verdict())), part(3, 10, None)],
        hops: 1,
    }
}

fn gateway() -> Member {
    member(&engine_status().facts[0])
}

fn agent() -> Member {
    Member { id: "agent-0".to_owned(), role: Role::Agent.into(), ..gateway() }
}

fn outcomes() -> DeliverResponse {
    let mut response = DeliverResponse { holder: Some(gateway()), ..DeliverResponse::default() };
    let other = message::Outcome::Held(facts::Instance::new("gw-1", 9));
    let outcomes = [
        (TraceKey(2), other.clone()),
        (TraceKey(3), message::Outcome::Decided(known(3))),
        (TraceKey(4), message::Outcome::Refused),
        (TraceKey(5), other),
    ];
    add_outcomes(&mut response, outcomes);
    response
}

fn question() -> Poll {
    let status = engine_status();
    Poll {
        agent: name("agent-0"),
        done: Arc::clone(&status.losses),
        facts: status.facts,
        losses: status.losses,
        heard: status.heard,
        decided: [known(6)].into(),
    }
}

fn poll_reply() -> PollAnswer {
    let status = engine_status();
    PollAnswer {
        from: status.from,
        facts: status.facts,
        losses: status.losses,
        decided: [known(6)].into(),
    }
}

fn told() -> Decisions {
    let fresh = |key| message::Decision { age: 0, exported: false, ..known(key) };
    // The second and the third have one verdict.
    let list = vec![known(1), fresh(2), fresh(3)];
    Decisions { from: engine_status().from, propose: true, list }
}

fn reply() -> Agreement {
    Agreement { from: engine_status().from, known: vec![known(1)], refused: vec![TraceKey(2)] }
}

fn hello_reply() -> HelloResponse {
    let plain = HelloResponse {
        ring_versions: vec![1],
        seed_id: 5,
        seen_inst: 6,
        ..HelloResponse::default()
    };
    let answer = HelloAnswer { status: engine_status(), asked: greeting().asked };
    answer_hello(&answer, plain)
}

/// Every message of the protocol, one line each: its name and its bytes. A field that is renumbered or
/// changes its type shows here; a new one may be added.
#[test]
fn the_bytes_of_each_message_stay_as_they_are() {
    let spans = bytes::Bytes::from_static(b"\x0a\x00");
    let messages = [
        ("hello", hello(&greeting(), &SEED).encode_to_vec()),
        ("hello_response", hello_reply().encode_to_vec()),
        (
            "deliver",
            DeliverRequest { spans, ..delivery(&parcel(), gateway(), 9, false) }.encode_to_vec(),
        ),
        ("deliver_response", outcomes().encode_to_vec()),
        ("decide", decisions(&told(), gateway()).encode_to_vec()),
        ("decide_response", agreement(&reply(), gateway()).encode_to_vec()),
        ("decide_along", along(&greeting(), &SEED).encode_to_vec()),
        (
            "decide_response_along",
            DecideResponse { hello: Some(hello_reply()), ..agreement(&reply(), gateway()) }
                .encode_to_vec(),
        ),
        ("poll", poll(&question(), agent(), 9, &SEED).encode_to_vec()),
        ("poll_response", poll_answer(&poll_reply(), gateway()).encode_to_vec()),
    ];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines = messages.map(|(name, bytes)| format!("{name} {}\n", hex(&bytes)));
    if std::env::var_os("RINGTAIL_GENERATE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/peer/messages/golden.txt");
        std::fs::write(path, lines.concat()).unwrap();
        return;
    }
    assert_eq!(lines.concat(), GOLDEN);
}

#[test]
fn what_is_sent_is_what_arrives() {
    let arrived = hello_of(&hello(&greeting(), &SEED)).unwrap().unwrap();
    assert_eq!(format!("{arrived:?}"), format!("{:?}", greeting()));
    let answer = hello_answer_of(&hello_reply(), NEVER).unwrap();
    assert_eq!(format!("{:?}", answer.status), format!("{:?}", engine_status()));
    assert_eq!(answer.asked, greeting().asked);
    let arrived = decisions_of(&decisions(&told(), gateway())).unwrap();
    assert_eq!(format!("{arrived:?}"), format!("{:?}", told()));
    let arrived = agreement_of(&agreement(&reply(), gateway())).unwrap();
    assert_eq!(format!("{arrived:?}"), format!("{:?}", reply()));
    let arrived = poll_of(&poll(&question(), agent(), 9, &SEED)).unwrap();
    assert_eq!(format!("{arrived:?}"), format!("{:?}", question()));
    let arrived = poll_answer_of(&poll_answer(&poll_reply(), gateway())).unwrap();
    assert_eq!(format!("{arrived:?}"), format!("{:?}", poll_reply()));
}

#[test]
fn a_delivery_tells_each_trace_apart_that_differs() {
    let request = delivery(&parcel(), gateway(), 9, false);
    assert_eq!((request.parts.len(), &request.only[..]), (1, &[1, 2, 3][..]));
    let manner = Manner::of(&request).unwrap();
    for sent in parcel().parts {
        assert_eq!(manner.part(sent.key, 0), Some(sent));
    }
    assert_eq!(manner.part(TraceKey(4), 0), None);
    let all = Manner::of(&delivery(&parcel(), gateway(), 9, true)).unwrap();
    assert_eq!(all.part(TraceKey(4), 77).unwrap().bytes, 77);
}

#[test]
fn a_receipt_is_in_the_order_of_what_was_sent() {
    let receipt = receipt_of(&outcomes(), (1..=5).map(TraceKey)).unwrap();
    let held = |name, inst| message::Outcome::Held(facts::Instance::new(name, inst));
    let expected = [
        held("gw-0", 7),
        held("gw-1", 9),
        message::Outcome::Decided(known(3)),
        message::Outcome::Refused,
        held("gw-1", 9),
    ];
    assert_eq!(receipt.outcomes, expected);
}

#[test]
fn an_older_peer_holds_what_it_takes_and_agrees_with_an_equal_view() {
    let response = DeliverResponse { holder: Some(gateway()), ..DeliverResponse::default() };
    let receipt = receipt_of(&response, [TraceKey(1)].into_iter()).unwrap();
    assert_eq!(receipt.outcomes, [message::Outcome::Held(facts::Instance::new("gw-0", 7))]);
    let request = DeliverRequest { from: Some(agent()), ..DeliverRequest::default() };
    let part = Manner::of(&request).unwrap().part(TraceKey(1), 5).unwrap();
    assert_eq!((part.origin, part.age, part.bytes), (message::Origin::Client, 0, 5));
    let response = HelloResponse { member: Some(gateway()), digest: 9, ..HelloResponse::default() };
    let answer = hello_answer_of(&response, greeting().asked).unwrap();
    assert!(answer.status.complete && answer.status.digest == 9);
    assert_eq!(answer.asked, greeting().asked);
    assert_eq!(answer.status.facts.len(), 1);
    assert!(hello_of(&HelloRequest::default()).unwrap().is_none());
}

#[test]
fn a_newer_peer_is_understood_as_far_as_possible() {
    // A field that we do not know, and a state that we do not know.
    let mut request = hello(&greeting(), &SEED);
    request.status.as_mut().unwrap().facts[1].state = 99;
    let mut bytes = request.encode_to_vec();
    bytes.extend([0xfa, 0x07, 3, b'n', b'e', b'w']);
    let arrived = hello_of(&HelloRequest::decode(&bytes[..]).unwrap()).unwrap().unwrap();
    assert_eq!(arrived.status.facts.len(), 1);
    assert_eq!(arrived.asked, greeting().asked);
}

#[test]
fn lists_and_ids_have_an_end() {
    let too_many =
        |result: Result<(), Wrong>| assert!(matches!(result, Err(Wrong::TooMany { .. })));
    let mut request = decisions(&told(), gateway());
    request.decisions = vec![Decision::default(); DECISIONS_MAX + 1];
    too_many(decisions_of(&request).map(drop));
    let mut request = decisions(&told(), gateway());
    request.fresh[0].keys = vec![0; KEY_BYTES * DECISIONS_MAX].into();
    too_many(decisions_of(&request).map(drop));
    request.fresh[0].keys = vec![0; KEY_BYTES + 1].into();
    assert_eq!(decisions_of(&request).unwrap_err(), Wrong::Keys(9));
    let mut request = hello(&greeting(), &SEED);
    request.status.as_mut().unwrap().facts = vec![gateway(); FACTS_MAX + 1];
    too_many(hello_of(&request).map(drop));
    let only = vec![0; PARTS_MAX + 1];
    too_many(Manner::of(&DeliverRequest { only, ..DeliverRequest::default() }).map(drop));
    for id in [String::new(), "x".repeat(NAME_BYTES_MAX + 1)] {
        let from = Some(Member { id, ..gateway() });
        let request = DecideRequest { from, ..DecideRequest::default() };
        assert!(matches!(decisions_of(&request), Err(Wrong::Id(_))));
    }
    assert_eq!(decisions_of(&DecideRequest::default()).unwrap_err(), Wrong::Missing("sender"));
}

#[test]
fn only_what_comes_into_the_fleet_for_the_first_time_is_counted() {
    let from = |role: Role| {
        let role = role.into();
        Some(Member { id: "x".to_owned(), inst: 1, state: 0, role })
    };
    let cases = [
        (from(Role::Agent), false, false, true),
        (None, false, false, true),
        (from(Role::Agent), true, false, false),
        (from(Role::Agent), false, true, false),
        (from(Role::Gateway), false, false, false),
        (from(Role::Gateway), true, true, false),
    ];
    for (from, again, counted, expected) in cases {
        let request = DeliverRequest { from, again, counted, ..DeliverRequest::default() };
        assert_eq!(Manner::of(&request).unwrap().counts, expected, "{request:?}");
    }
    assert!(Manner::uniform(message::Origin::Client).counts);
}
