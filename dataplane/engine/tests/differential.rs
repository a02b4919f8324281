//! The scanner and the splitter against prost, on random requests that are as odd as the wire format allows.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test should say where")]

mod wild;

use proptest::collection::vec;
use proptest::prelude::*;

fn entropy() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..4000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_split_loses_nothing_and_doubles_nothing(
        entropies in vec(entropy(), 1..5),
        parts in 1..6_usize,
    ) {
        let requests: Vec<Vec<u8>> = entropies.iter().map(|entropy| wild::request(entropy)).collect();
        wild::split(&requests, parts);
    }

    #[test]
    fn garbage_is_refused_or_understood_as_prost_does(bytes in vec(any::<u8>(), 0..200)) {
        wild::examine(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_cut_at_any_byte_is_found_where_prost_finds_it(entropy in vec(any::<u8>(), 0..600)) {
        let request = wild::request(&entropy);
        for end in 0..request.len().min(3000) {
            wild::examine(&request[..end]);
        }
    }

    #[test]
    fn any_flipped_byte_is_judged_as_prost_does(
        entropy in vec(any::<u8>(), 0..600),
        flip in 1..=255_u8,
    ) {
        let mut request = wild::request(&entropy);
        for place in 0..request.len().min(1500) {
            request[place] ^= flip;
            wild::examine(&request);
            request[place] ^= flip;
        }
    }
}

/// A field of a length below 128.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(body.len()).unwrap()], body].concat()
}

/// A request of one span with this attribute; lengths outside of the attribute are right.
fn request_with(attribute: &[u8]) -> Vec<u8> {
    let span = [field(1, &[7; 16]), field(9, attribute)].concat();
    field(1, &field(2, &field(2, &span)))
}

/// The scanner has a short way for the attributes that everybody sends; random requests seldom hold one.
#[test]
fn any_change_of_a_usual_attribute_is_judged_as_prost_does() {
    let attribute = |key: &[u8], value: &[u8]| [field(1, key), field(2, value)].concat();
    let attributes = [
        attribute(b"", b""),
        attribute(b"url", &field(1, b"")),
        attribute(b"url", &field(1, b"/cart")),
        attribute(b"url.path", &field(1, b"/api/v1/orders/12345")),
        attribute(b"user_agent.original", &field(1, &[b'x'; 40])),
        attribute("köy".as_bytes(), &field(1, "wärt".as_bytes())),
        attribute(b"hit", &[0x10, 1]),
        attribute(b"http.response.status_code", &[0x18, 0xc8, 0x01]),
        attribute(b"port", &[0x18, 0xfb, 0xc1, 0x00]),
        attribute(b"load", &[0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
    ];
    for attribute in attributes {
        assert!(wild::examine(&request_with(&attribute)).is_some(), "{attribute:02x?}");
        for place in 0..attribute.len() {
            wild::examine(&request_with(&attribute[..place]));
            wild::examine(&request_with(&attribute[place..]));
            let mut changed = attribute.clone();
            for byte in 0..=255 {
                changed[place] = byte;
                wild::examine(&request_with(&changed));
            }
        }
    }
}

/// Attributes in a row are looked at together: the bytes of texts are counted that are not ASCII, and those
/// of numbers that need not be, so every byte of a row may tell on another attribute's.
#[test]
fn any_change_in_a_row_of_attributes_is_judged_as_prost_does() {
    let attribute = |key: &[u8], value: &[u8]| field(9, &[field(1, key), field(2, value)].concat());
    let texts = [attribute(b"a", &field(1, b"text")), attribute(b"b", &field(1, "Ä".as_bytes()))];
    let numbers: [&[u8]; 5] = [
        &[0x10, 1],
        &[0x18, 0xc8, 0x01],
        &[0x18, 0x83, 0x87, 0x03],
        &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x21, 0, 0, 0, 0xff, 0, 0, 0xf0, 0xbf],
    ];
    for number in numbers {
        let number = attribute(b"n", number);
        for text in &texts {
            let row = [&text[..], &number, text, &number, &[0x85, 0x01, 1, 1, 0, 0]].concat();
            let span = |row: &[u8]| field(1, &field(2, &field(2, row)));
            assert!(wild::examine(&span(&row)).is_some(), "{row:02x?}");
            for place in 0..row.len() {
                wild::examine(&span(&row[..place]));
                let mut changed = row.clone();
                for byte in 0..=255 {
                    changed[place] = byte;
                    wild::examine(&span(&changed));
                }
            }
        }
    }
}

/// Guards the guard: the generator must go on making everything that the properties are about.
#[test]
fn wild_requests_are_wild() {
    let mut state = 1_u64;
    let mut random_byte = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let (mut accepted, mut spans, mut invalid, mut legacy, mut loose, mut groups) =
        (0, 0, 0, 0, 0, 0);
    for _ in 0..1000 {
        let entropy: Vec<u8> = (0..4000).map(|_| random_byte()).collect();
        let Some(shape) = wild::examine(&wild::request(&entropy)) else {
            continue;
        };
        accepted += 1;
        spans += shape.spans;
        invalid += shape.invalid_ids;
        legacy += shape.legacy_fields;
        loose += shape.unknown_request_fields;
        groups += shape.groups;
    }
    assert!((450..950).contains(&accepted), "{accepted} requests of 1000 are accepted");
    assert!(spans > 5000 && groups > 2000, "{spans} spans in {groups} groups");
    assert!(invalid > 1000 && legacy > 50 && loose > 100, "{invalid}, {legacy}, {loose}");
}
