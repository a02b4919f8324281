//! Hazards of the wire format, one test each.

use super::*;
use crate::wire::put_varint;

// === messages ===

const ID: TraceId = *b"0123456789abcdef";
const OTHER_ID: TraceId = *b"fedcba9876543210";

/// A length-delimited field.
fn field(number: u32, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(number << 3 | 2));
    put_varint(&mut out, body.len() as u64);
    out.extend(body);
    out
}

/// A span with this trace ID and name.
fn span(id: &[u8], name: &str) -> Vec<u8> {
    [field(1, &[id]), field(5, &[name.as_bytes()])].concat()
}

/// `ScopeSpans` of one span called "a".
fn one_scope() -> Vec<u8> {
    field(2, &[&field(2, &[&span(&ID, "a")])])
}

/// A request of one span with an attribute; its value is a string in `arrays` nested arrays.
fn nested(arrays: u32) -> Vec<u8> {
    let mut value = field(1, &[b"deep"]);
    for _ in 0..arrays {
        value = field(5, &[&field(1, &[&value])]);
    }
    let attribute = field(9, &[&field(1, &[b"key"]), &field(2, &[&value])]);
    field(1, &[&field(2, &[&field(2, &[&span(&ID, "a"), &attribute])])])
}

// === what a walk says ===

#[derive(Default)]
struct Told(Vec<String>);

fn text_of(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

impl Visit for Told {
    fn group(&mut self, group: &Group<'_>) {
        let (resource, scope) = (text_of(group.resource.bytes()), text_of(group.scope.bytes()));
        self.0.push(format!("group {resource} | {scope}"));
    }
    fn span(&mut self, _: &Group<'_>, id: &TraceId, span: &[u8]) {
        let name = span.last().map_or(' ', |last| char::from(*last));
        self.0.push(format!("span {} {name}", text_of(&id[..4])));
    }
    fn invalid_span(&mut self, span: &[u8]) {
        self.0.push(format!("invalid {}", span.len()));
    }
    fn loose(&mut self, raw: &[u8]) {
        self.0.push(format!("loose {}", text_of(raw)));
    }
}

/// Checks and walks a request, with its shape and without.
fn tell(request: &[u8]) -> (Shape, Vec<String>) {
    let shape = check(request, &ScanLimits::default()).unwrap();
    let (mut told, mut again) = (Told::default(), Told::default());
    walk(request, &shape, &mut told).unwrap();
    walk(request, &Shape::UNKNOWN, &mut again).unwrap();
    assert_eq!(told.0, again.0);
    (shape, told.0)
}

fn refusal(request: &[u8]) -> ScanError {
    check(request, &ScanLimits::default()).unwrap_err()
}

// === headers ===

#[test]
fn headers_may_follow_the_spans() {
    let scope = field(2, &[&field(2, &[&span(&ID, "a")]), &field(1, &[]), &field(3, &[b"s"])]);
    let request = field(1, &[&scope, &field(1, &[]), &field(3, &[b"r"])]);
    let (shape, told) = tell(&request);
    assert_eq!(told, [r"group \n\x00\x1a\x01r | \n\x00\x1a\x01s", "span 0123 a"]);
    assert_eq!((shape.groups, shape.header_bytes), (1, 10));
}

#[test]
fn headers_in_several_pieces_keep_their_order() {
    let resource = |dropped: u8| field(1, &[&[0x10, dropped]]);
    let request =
        field(1, &[&resource(1), &one_scope(), &resource(2), &one_scope(), &field(3, &[b"r"])]);
    let (shape, told) = tell(&request);
    let group = r"group \n\x02\x10\x01\n\x02\x10\x02\x1a\x01r | ";
    assert_eq!(told, [group, "span 0123 a", group, "span 0123 a"]);
    assert_eq!((shape.groups, shape.header_bytes), (2, 11), "a resource counts once");
}

#[test]
fn pieces_of_one_resource_do_not_reach_the_next() {
    let first = field(1, &[&field(3, &[b"x"]), &one_scope(), &field(3, &[b"y"])]);
    let second = field(1, &[&field(3, &[b"z"]), &one_scope()]);
    let (_, told) = tell(&[first, second].concat());
    assert_eq!(told[0], r"group \x1a\x01x\x1a\x01y | ");
    assert_eq!(told[2], r"group \x1a\x01z | ");
}

#[test]
fn a_schema_url_alone_is_a_header() {
    let (_, told) = tell(&field(1, &[&one_scope(), &field(3, &[b"url"])]));
    assert_eq!(told, [r"group \x1a\x03url | ", "span 0123 a"]);
}

#[test]
fn no_headers_at_all() {
    let (shape, told) = tell(&field(1, &[&one_scope()]));
    assert_eq!((told.len(), &told[0][..], shape.header_bytes), (2, "group  | ", 0));
}

#[test]
fn a_scope_without_valid_spans_is_no_group() {
    let scopes = [field(2, &[&field(3, &[b"s"])]), field(2, &[&field(2, &[&span(b"", "a")])])];
    let (shape, told) = tell(&field(1, &[&field(3, &[b"r"]), &scopes.concat()]));
    assert_eq!(told, ["invalid 5"]);
    assert_eq!((shape.groups, shape.header_bytes, shape.invalid_ids), (0, 0, 1));
}

#[test]
fn an_outline_says_what_a_walk_would() {
    let spans = |count: usize| field(2, &[&span(&ID, "a")]).repeat(count);
    let head = field(1, &[&field(1, &[b"n"])]);
    let late = field(3, &[b"u"]);
    let scope = |count| field(2, &[&head, &spans(count), &late]);
    let group = |count| field(1, &[&scope(count), &scope(1), &late]);
    let usual = [group(3), group(1)].concat();
    let (shape, told) = tell(&usual);
    assert!(shape.outline.is_some());
    assert_eq!((shape.groups, told.len()), (4, 4 + 6));
    // Headers in three pieces, more spans than are noted, an ID that is not at the front.
    let between = field(2, &[&head, &spans(1), &late, &spans(1), &late]);
    let swapped = [field(5, &[b"a"]), field(1, &[&ID])].concat();
    let unusual = [between, scope(8193), field(2, &[&field(2, &[&swapped])])];
    for scope in unusual {
        assert_eq!(tell(&field(1, &[&scope])).0.outline, None);
    }
}

// === unknown and reserved fields ===

#[test]
fn spans_of_the_reserved_field_1000_are_left_out_and_counted() {
    let legacy = field(1000, &[&field(2, &[&span(&ID, "z")])]);
    let request = field(1, &[&legacy, &field(3, &[b"r"]), &one_scope(), &legacy]);
    let (shape, told) = tell(&request);
    assert_eq!(told, [r"group \x1a\x01r | ", "span 0123 a"]);
    assert_eq!((shape.legacy_fields, shape.spans, shape.header_bytes), (2, 1, 3));
}

#[test]
fn field_1000_of_a_scope_is_like_any_unknown_field() {
    let scope = field(2, &[&field(2, &[&span(&ID, "a")]), &field(1000, &[b"u"])]);
    let (shape, told) = tell(&field(1, &[&scope]));
    assert_eq!(told, [r"group  | \xc2>\x01u", "span 0123 a"]);
    assert_eq!((shape.legacy_fields, shape.header_bytes), (0, 4));
}

#[test]
fn unknown_fields_of_the_request_are_told_as_they_stand() {
    let group: &[u8] = &[0x4b, 0x08, 1, 0x4c];
    let request = [&[0x10, 7][..], &field(1, &[&one_scope()]), group].concat();
    let (shape, told) = tell(&request);
    assert_eq!(told, [r"loose \x10\x07", "group  | ", "span 0123 a", r"loose K\x08\x01L"]);
    assert_eq!(shape.unknown_request_fields, 2);
}

#[test]
fn groups_end_where_they_should() {
    let mut group = Vec::new();
    for _ in 0..32 {
        group = [&[0x4b], &group[..], &[0x4c]].concat();
    }
    assert!(check(&group, &ScanLimits::default()).is_ok());
    let deeper = [&[0x4b], &group[..], &[0x4c]].concat();
    assert_eq!(refusal(&deeper), ScanError::Wire(WireError::TooDeep(32)));
    assert_eq!(refusal(&[0x4b, 0x54]), ScanError::Wire(WireError::GroupMismatch));
    assert_eq!(refusal(&[0x4c]), ScanError::Wire(WireError::GroupMismatch));
    assert_eq!(refusal(&[0x4b]), ScanError::Wire(WireError::Truncated));
}

// === trace IDs ===

#[test]
fn the_last_of_several_trace_ids_counts() {
    let ids = [field(1, &[&ID]), field(1, &[&OTHER_ID]), field(5, &[b"a"])].concat();
    let (shape, told) = tell(&field(1, &[&field(2, &[&field(2, &[&ids])])]));
    assert_eq!(told, ["group  | ", "span fedc a"]);
    assert_eq!(shape.spans, 1);
}

#[test]
fn a_late_trace_id_is_found_among_plain_ones() {
    let late = [field(5, &[b"a"]), field(1, &[&OTHER_ID])].concat();
    let spans = [field(2, &[&span(&ID, "a")]), field(2, &[&late])].concat();
    let (_, told) = tell(&field(1, &[&field(2, &[&spans])]));
    assert_eq!(told, ["group  | ", "span 0123 a", "span fedc 0"]);
}

#[test]
fn a_trace_id_behind_a_long_tag_or_length_is_found() {
    for head in [&[0x8a, 0x00, 16][..], &[0x0a, 0x90, 0x00]] {
        let span = [head, &ID].concat();
        let (shape, told) = tell(&field(1, &[&field(2, &[&field(2, &[&span])])]));
        assert_eq!((told.len(), shape.spans, shape.invalid_ids), (2, 1, 0));
    }
}

#[test]
fn wrong_lengths_and_zero_are_invalid() {
    let ids: [&[u8]; 6] =
        [b"", b"123456789abcdef", b"0123456789abcdefg", &[0; 16], &[0; 8], &[0; 17]];
    for id in ids {
        let spans = [field(2, &[&span(&ID, "a")]), field(2, &[&span(id, "b")])].concat();
        let (shape, told) = tell(&field(1, &[&field(2, &[&spans])]));
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[2].starts_with("invalid"), "{told:?}");
        assert_eq!((shape.spans, shape.invalid_ids, shape.span_bytes), (1, 1, 21));
    }
}

#[test]
fn a_valid_id_followed_by_an_invalid_one_is_invalid() {
    let ids = [field(1, &[&ID]), field(1, &[b"short"])].concat();
    let (shape, told) = tell(&field(1, &[&field(2, &[&field(2, &[&ids])])]));
    assert_eq!((told.len(), shape.spans, shape.invalid_ids), (1, 0, 1));
}

// === limits ===

#[test]
fn values_may_nest_as_deep_as_the_limit() {
    // The request is level 1, an attribute's value level 6, and an array adds two.
    assert!(check(&nested(13), &ScanLimits::default()).is_ok(), "level 32");
    assert_eq!(refusal(&nested(14)), ScanError::TooDeep(32), "levels 33 and 34");
    let at = |max_depth| {
        let limits = ScanLimits { max_depth, ..ScanLimits::default() };
        check(&nested(13), &limits).map(|shape| shape.spans)
    };
    assert_eq!(at(31), Err(ScanError::TooDeep(31)));
    assert_eq!(at(33), Ok(1));
    assert_eq!(refusal(&nested(10_000)), ScanError::TooDeep(32), "and the stack holds");
}

#[test]
fn the_usual_attribute_is_not_deeper_than_others() {
    // The attribute is level 5, its value level 6.
    let at = |max_depth| check(&nested(0), &ScanLimits { max_depth, ..ScanLimits::default() });
    assert!(at(6).is_ok());
    assert_eq!(at(5), Err(ScanError::TooDeep(5)));
    assert_eq!(at(4), Err(ScanError::TooDeep(4)));
}

#[test]
fn spans_are_counted_against_the_limit_whatever_their_ids() {
    let spans = [field(2, &[&span(&ID, "a")]), field(2, &[])].concat();
    let request = field(1, &[&field(2, &[&spans])]);
    let limited = |max_spans| check(&request, &ScanLimits { max_spans, ..ScanLimits::default() });
    assert!(limited(2).is_ok());
    assert_eq!(limited(1), Err(ScanError::TooManySpans(1)));
}

#[test]
fn headers_are_limited_a_resource_and_a_scope_each() {
    let limits = |max_header_bytes| ScanLimits { max_header_bytes, ..ScanLimits::default() };
    let url = field(3, &[b"0123456789"]);
    // Unknown fields count, children and field 1000 do not: 12 and 2 bytes.
    let unknown: &[u8] = &[0x20, 1];
    let scope = field(2, &[&field(2, &[&span(&ID, "a")]), &url, unknown]);
    let legacy = field(1000, &[&[0; 100]]);
    let resource = field(1, &[&legacy, &url, unknown, &scope]);
    let two = [&resource[..], &resource].concat();
    assert_eq!(check(&two, &limits(14)).map(|shape| shape.spans), Ok(2));
    let refused = Err(ScanError::HeadersTooLong(13));
    assert_eq!(check(&two, &limits(13)), refused);
    assert_eq!(check(&field(1, &[&scope]), &limits(13)), refused);
    assert_eq!(check(&field(1, &[&url, unknown]), &limits(13)), refused, "without spans too");
}

// === emptiness ===

#[test]
fn empty_messages_are_messages() {
    assert_eq!(tell(b""), (Shape::default(), Vec::new()));
    let (shape, told) = tell(&field(1, &[]));
    assert_eq!((shape, told.len()), (Shape::default(), 0));
    let (shape, told) = tell(&field(1, &[&field(2, &[])]));
    assert_eq!((shape, told.len()), (Shape::default(), 0));
    let (shape, told) = tell(&field(1, &[&field(2, &[&field(2, &[])])]));
    assert_eq!((shape.invalid_ids, told), (1, vec!["invalid 0".to_owned()]));
}

// === refusals ===

#[test]
fn known_fields_of_another_wire_type_are_refused() {
    let in_span = |bytes: &[u8]| field(1, &[&field(2, &[&field(2, &[bytes])])]);
    let cases: [(Vec<u8>, u32); 9] = [
        (vec![0x08, 1], 1),
        (field(1, &[&[0x08, 1]]), 1),
        (field(1, &[&[0x10, 1]]), 2),
        (field(1, &[&[0x1d, 0, 0, 0, 0]]), 3),
        (field(1, &[&field(2, &[&[0x10, 1]])]), 2),
        (in_span(&[0x08, 1]), 1),
        (in_span(&[0x38, 1]), 7),
        (in_span(&[0x0b, 0x0c]), 1),
        (in_span(&[0x85, 0x01, 0, 0, 0, 0, 0x80, 0x01, 0]), 16),
    ];
    for (request, number) in cases {
        let expected = ScanError::Wire(WireError::WrongType(number));
        assert_eq!(refusal(&request), expected, "{request:x?}");
    }
}

#[test]
fn texts_must_be_utf8_and_bytes_need_not() {
    let in_span = |bytes: &[u8]| field(1, &[&field(2, &[&field(2, &[bytes])])]);
    assert_eq!(refusal(&in_span(&field(5, &[b"\xff"]))), ScanError::Text(5));
    assert_eq!(refusal(&field(1, &[&field(3, &[b"\xc3"])])), ScanError::Text(3));
    let value = field(9, &[&field(2, &[&field(7, &[b"\xff"])])]);
    assert!(check(&in_span(&value), &ScanLimits::default()).is_ok());
    // The fields that we do not know may hold anything.
    assert!(check(&in_span(&field(77, &[b"\xff"])), &ScanLimits::default()).is_ok());
}

#[test]
fn refusals_say_what_and_what_to_do() {
    let told = [
        refusal(&[0x0a, 5]).to_string(),
        refusal(&nested(14)).to_string(),
        ScanError::TooManySpans(7).to_string(),
        ScanError::HeadersTooLong(8).to_string(),
    ];
    assert_eq!(
        told,
        [
            "not an OTLP trace request: the message is cut off inside a field",
            "messages are nested more than 32 deep; flatten nested attribute values",
            "more than 7 spans in one request; send smaller batches",
            "a resource or scope has more than 8 bytes of attributes; drop or shorten some",
        ]
    );
}

#[test]
fn equal_headers_have_equal_hashes() {
    let (one, same, other) = (Headers::whole(b"a"), Headers::whole(b"a"), Headers::whole(b"b"));
    assert_eq!(one.hash(), same.hash());
    assert_ne!(one.hash(), other.hash());
}
