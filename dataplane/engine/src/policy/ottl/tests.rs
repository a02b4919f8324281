//! Conditions on one span: what they answer, where they cannot, what is refused and where, and that nothing
//! is too strange.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message;

use super::super::limits::MAX_REGEX_BYTES;
use super::*;
use crate::scan::{Group, Headers};

fn wrapped(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(wrapped(value)), ..KeyValue::default() }
}

fn list(values: Vec<Any>) -> Any {
    Any::ArrayValue(ArrayValue { values: values.into_iter().map(wrapped).collect() })
}

fn span() -> Span {
    let map =
        KeyValueList { values: vec![pair("inner", text("deep")), pair("n", Any::IntValue(7))] };
    let event = |name: &str, message: &str| Event {
        time_unix_nano: 1_000_000_500,
        name: name.to_owned(),
        attributes: vec![pair("exception.type", text(message))],
        dropped_attributes_count: 2,
    };
    Span {
        trace_id: vec![0xab; 16],
        span_id: vec![0x01; 8],
        trace_state: "vendor=gold,b=2".to_owned(),
        parent_span_id: vec![0, 0, 0, 0, 0, 0, 0, 9],
        name: "GET /checkout".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 2_500_000_000,
        attributes: vec![
            pair("http.route", text("/checkout/:id")),
            pair("http.status_code", Any::IntValue(503)),
            pair("ratio", Any::DoubleValue(0.25)),
            pair("cache.hit", Any::BoolValue(true)),
            pair("tags", list(vec![text("a"), Any::IntValue(3), Any::BoolValue(false)])),
            pair("map", Any::KvlistValue(map)),
            pair("raw", Any::BytesValue(vec![1, 0xff])),
            pair("empty", text("")),
            pair("count", text("42")),
            pair("twice", text("first")),
            pair("twice", text("second")),
            KeyValue { key: "nothing".to_owned(), value: None, ..KeyValue::default() },
        ],
        dropped_attributes_count: 4,
        events: vec![event("start", "none"), event("exception", "java.io.IOException")],
        dropped_events_count: 5,
        dropped_links_count: 6,
        status: Some(Status { code: 2, message: "out of stock".to_owned() }),
        flags: 0x101,
        ..Span::default()
    }
}

/// The span with its resource and scope, as bytes.
struct Bytes {
    resource: Vec<u8>,
    scope: Vec<u8>,
    span: Vec<u8>,
}

impl Bytes {
    fn of(span: &Span) -> Self {
        let attributes =
            vec![pair("service.name", text("shop")), pair("replica", Any::IntValue(2))];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let scope = Some(InstrumentationScope {
            name: "io.http".to_owned(),
            version: "1.2.3".to_owned(),
            attributes: vec![pair("team", text("web"))],
            dropped_attributes_count: 0,
        });
        Self {
            resource: ResourceSpans { resource, ..ResourceSpans::default() }.encode_to_vec(),
            scope: ScopeSpans { scope, ..ScopeSpans::default() }.encode_to_vec(),
            span: span.encode_to_vec(),
        }
    }

    fn ask(&self, expression: &Expression) -> Result<bool, Failed> {
        let (resource, scope) = (Headers::whole(&self.resource), Headers::whole(&self.scope));
        expression.holds(&Subject::new(&Group { resource, scope }, &self.span))
    }

    fn ask_events(&self, expression: &Expression) -> Vec<Result<bool, Failed>> {
        let (resource, scope) = (Headers::whole(&self.resource), Headers::whole(&self.scope));
        let subject = Subject::new(&Group { resource, scope }, &self.span);
        subject.events().map(|event| expression.holds(&event)).collect()
    }
}

fn parsed(condition: &str, context: Context) -> Expression {
    parse(condition, context, MAX_REGEX_BYTES)
        .unwrap_or_else(|refusal| panic!("{condition}: {}", refusal.explain(condition)))
}

/// Each condition has this answer on the span above.
fn check(expected: Result<bool, Failed>, conditions: &[&str]) {
    let bytes = Bytes::of(&span());
    for condition in conditions {
        assert_eq!(bytes.ask(&parsed(condition, Context::Span)), expected, "{condition}");
    }
}

#[test]
fn fields_of_spans() {
    check(
        Ok(true),
        &[
            r#"name == "GET /checkout""#,
            r#"span.name == "GET /checkout""#,
            "kind == SPAN_KIND_SERVER",
            "kind == 2",
            r#"kind.string == "Server""#,
            r#"kind.deprecated_string == "SPAN_KIND_SERVER""#,
            "status.code == STATUS_CODE_ERROR",
            r#"status.message == "out of stock""#,
            r#"attributes["http.route"] == "/checkout/:id""#,
            r#"span.attributes["http.status_code"] >= 500"#,
            r#"resource.attributes["service.name"] == "shop""#,
            r#"instrumentation_scope.name == "io.http""#,
            r#"scope.version == "1.2.3""#,
            r#"instrumentation_scope.attributes["team"] == "web""#,
            r#"trace_state == "vendor=gold,b=2""#,
            r#"trace_state["vendor"] == "gold""#,
            r#"trace_state["missing"] == """#,
            "parent_span_id == SpanID(0x0000000000000009)",
            "parent_span_id != SpanID(0x0000000000000000)",
            r#"parent_span_id.string == "0000000000000009""#,
            "trace_id == TraceID(0xabababababababababababababababab)",
            r#"trace_id.string == "abababababababababababababababab""#,
            "span_id == SpanID(0x0101010101010101)",
            r#"span_id.string == "0101010101010101""#,
            "dropped_attributes_count == 4",
            "dropped_events_count == 5 and dropped_links_count == 6",
            "not IsRootSpan()",
            r#"attributes["map"]["inner"] == "deep""#,
            r#"attributes["tags"][1] == 3"#,
            r#"attributes["map"]["missing"] == nil"#,
            r#"attributes["map"]["missing"]["more"] == nil"#,
            r#"parent_span_id == SpanID("0000000000000009")"#,
            "flags == 257",
            r#"attributes["twice"] == "first""#,
        ],
    );
    check(
        Err(Failed),
        &[
            r#"attributes["tags"][3] == 3"#,
            r#"attributes["tags"]["a"] == 3"#,
            r#"attributes["http.route"]["a"] == 3"#,
        ],
    );
}

#[test]
fn comparisons_follow_the_table_of_ottl() {
    check(
        Ok(true),
        &[
            r#"attributes["http.status_code"] == 503.0"#,
            r#"503 == attributes["http.status_code"]"#,
            r#"attributes["ratio"] < 1"#,
            r#"1 > attributes["ratio"]"#,
            r#"attributes["missing"] == nil"#,
            r#"attributes["nothing"] == nil"#,
            r#"attributes["missing"] == attributes["other"]"#,
            r#"attributes["missing"] >= nil and attributes["missing"] <= nil"#,
            r#"attributes["http.route"] != nil"#,
            r#"attributes["missing"] != "x""#,
            r#"attributes["http.status_code"] != "503""#,
            r#"attributes["cache.hit"] != 1"#,
            r#"attributes["cache.hit"] == true"#,
            r#"attributes["cache.hit"] > false"#,
            r#""a" < "b" and "a" < "aa" and not ("b" < "a")"#,
            r#"attributes["raw"] == 0x01ff"#,
            r#"attributes["raw"] < 0x02"#,
            r#"attributes["tags"] == ["a", 3, false]"#,
            r#"attributes["tags"] != ["a", 3]"#,
            r#"attributes["tags"] != ["a", 3, false, 1]"#,
            r#"attributes["map"] == attributes["map"]"#,
            r#"parent_span_id != "0000000000000009""#,
            "1 == 1 and 1 != 2 and 1 < 2 and 1 <= 1 and 2 > 1 and 1 >= 1",
            "9223372036854775807 == 9223372036854775807",
            "-5 < -4 and +5 == 5 and -.5 == -0.5",
            "1.5e3 == 1500",
        ],
    );
    check(
        Ok(false),
        &[
            r#"attributes["missing"] == """#,
            r#"attributes["missing"] < 1"#,
            r#"attributes["missing"] > 1"#,
            r#"attributes["missing"] < nil"#,
            r#"attributes["http.status_code"] == "503""#,
            r#"attributes["http.status_code"] < "600""#,
            r#"attributes["cache.hit"] == "true""#,
            r#"attributes["cache.hit"] == 1"#,
            r#"attributes["http.route"] == nil"#,
            r#"attributes["tags"] == "a""#,
            r#"attributes["tags"] < ["b"]"#,
            r#"attributes["map"] == nil"#,
            r#"Duration("1s") == 1000000000"#,
            "start_time == 1000000000",
            r#"name != "GET /checkout""#,
        ],
    );
}

#[test]
fn words_and_brackets_bind_as_in_ottl() {
    check(
        Ok(true),
        &[
            "true",
            "not false",
            "true or false and false",
            "(true or false) and true",
            "not (true and false)",
            "not true or true",
            "false or not false and true",
            "((((true))))",
            "(1) == (1)",
            "((1 + 2)) * 3 == 9",
            "kind == 1 or kind == 2 or kind == 3",
            "true and\n\ttrue",
        ],
    );
    check(
        Ok(false),
        &[
            "false",
            "not true",
            "(true or false) and false",
            "not (true or false)",
            "false and true or false",
        ],
    );
    // What decides first keeps the rest from being asked.
    check(Ok(true), &[r#"true or HasPrefix(1, "a")"#, r#"not (false and Len(nil) == 0)"#]);
    check(Err(Failed), &[r#"HasPrefix(1, "a") or true"#, r#"not HasPrefix(1, "a")"#]);
}

#[test]
fn times_and_numbers_are_computed_with() {
    check(
        Ok(true),
        &[
            r#"end_time - start_time > Duration("1s")"#,
            r#"end_time - start_time == Duration("1.5s")"#,
            r#"(end_time - start_time) < Duration("1h2m3s")"#,
            "end_time_unix_nano - start_time_unix_nano > 1000000000",
            "(end_time_unix_nano - start_time_unix_nano) / 1000000 == 1500",
            "Milliseconds(end_time - start_time) == 1500",
            "Seconds(end_time - start_time) == 1.5",
            "Minutes(end_time - start_time) == 0.025",
            r#"Hours(Duration("90m")) == 1.5"#,
            r#"Microseconds(Duration("1ms")) == 1000"#,
            r#"Nanoseconds(Duration("1us")) == 1000"#,
            r#"start_time + Duration("1500ms") == end_time"#,
            r#"Duration("1500ms") + start_time == end_time"#,
            r#"end_time - Duration("1500ms") == start_time"#,
            r#"Duration("1m") - Duration("1s") == Duration("59s")"#,
            r#"Duration("-1s") < Duration("0")"#,
            "1 + 2 * 3 == 7",
            "10 - 2 - 3 == 5",
            "7 / 2 == 3",
            "7.0 / 2 == 3.5",
            "-7 / 2 == -3",
            r#"-attributes["http.status_code"] == -503"#,
            "9223372036854775807 + 1 < 0",
            r#"attributes["http.status_code"] * 2 == 1006"#,
        ],
    );
    check(
        Err(Failed),
        &[
            "1 / 0 == 0",
            "1.5 / 0 == 0",
            r#"1 + "a" == 2"#,
            "1 + nil == 1",
            "start_time + end_time == 0",
            r#"Duration("1s") * 2 == 0"#,
            r#"start_time - 1 == 0"#,
            r#"-name == 1"#,
            "Seconds(1) == 1",
            r#"attributes["missing"] + 1 == 1"#,
        ],
    );
}

#[test]
fn functions() {
    check(
        Ok(true),
        &[
            r#"IsMatch(name, "^GET /ch.*")"#,
            r#"IsMatch(attributes["http.route"], ":id$")"#,
            r#"IsMatch(attributes["http.status_code"], "^5..$")"#,
            r#"IsMatch(attributes["cache.hit"], "true")"#,
            r#"IsMatch(attributes["ratio"], "^0.25$")"#,
            r#"not IsMatch(attributes["missing"], ".*")"#,
            r#"IsMatch(name, "\\d") == false"#,
            r#"IsString(name) and IsInt(kind) and IsDouble(attributes["ratio"])"#,
            r#"IsBool(attributes["cache.hit"]) and IsMap(attributes["map"])"#,
            r#"IsList(attributes["tags"]) and IsList([])"#,
            r#"not IsString(attributes["missing"]) and not IsInt(name) and not IsBool(nil)"#,
            r#"HasPrefix(name, "GET") and HasSuffix(name, "checkout")"#,
            r#"not HasPrefix(name, "POST") and not HasSuffix(name, "x")"#,
            r#"ContainsValue(attributes["tags"], "a")"#,
            r#"ContainsValue(attributes["tags"], 3.0)"#,
            r#"not ContainsValue(attributes["tags"], true)"#,
            r#"ContainsValue(["x", "shop"], resource.attributes["service.name"])"#,
            r#"Len(name) == 13 and Len(attributes["tags"]) == 3 and Len(attributes["map"]) == 2"#,
            r#"Len([1, 2]) == 2 and Len(attributes["raw"]) == 2"#,
            r#"ToLowerCase(name) == "get /checkout" and ToUpperCase("ä") == "Ä""#,
            r#"ConvertCase(name, "lower") == "get /checkout""#,
            r#"ConvertCase("a", "upper") == "A""#,
            r#"Int(attributes["count"]) == 42 and Int(3.9) == 3 and Int(true) == 1"#,
            r#"Int(name) == nil and Int(nil) == nil"#,
            r#"Double("2.5") == 2.5 and Double(2) == 2.0 and Double(nil) == nil"#,
            r#"String(5) == "5" and String(true) == "true" and String(2.5) == "2.5""#,
            r#"String(attributes["raw"]) == "01ff" and String(nil) == nil"#,
            r#"String(2.5e30) == "2.5e+30" and String(1.5e-9) == "1.5e-09""#,
            r#"Concat([name, kind, nil], "|") == "GET /checkout|2|<nil>""#,
            r#"Substring(name, 4, 9) == "/checkout""#,
            r#"Substring(ToLowerCase(name), 0, 3) == "get""#,
        ],
    );
    check(
        Err(Failed),
        &[
            r#"HasPrefix(attributes["missing"], "x")"#,
            r#"HasSuffix(kind, "x")"#,
            r#"IsMatch(attributes["map"], "x")"#,
            r#"ContainsValue(name, "x")"#,
            "Len(nil) == 0",
            "Double(name) == nil",
            "Len(kind) == 0",
            "ToLowerCase(nil) == nil",
            "Substring(name, 0, 14) == name",
            "Substring(name, -1, 1) == name",
            "Substring(name, 0, 0) == name",
            r#"Int(attributes["map"]) == 1"#,
            r#"Concat([attributes["map"]], "") == name"#,
        ],
    );
}

#[test]
fn roots_are_known_by_their_parent() {
    let asked = parsed("IsRootSpan()", Context::Span);
    for (parent, root) in [(vec![], true), (vec![0; 8], true), (vec![1; 8], false)] {
        let span = Span { parent_span_id: parent, ..span() };
        assert_eq!(Bytes::of(&span).ask(&asked), Ok(root));
    }
    let zero = parsed("parent_span_id == SpanID(0x0000000000000000)", Context::Span);
    assert_eq!(Bytes::of(&Span::default()).ask(&zero), Ok(true));
    let empty = parsed(r#"parent_span_id.string == """#, Context::Span);
    assert_eq!(Bytes::of(&Span::default()).ask(&empty), Ok(true));
    // What a span does not say has the value of a new one.
    for condition in [
        r#"name == "" and kind == 0 and status.code == STATUS_CODE_UNSET"#,
        r#"status.message == "" and trace_state == "" and end_time - start_time == Duration("0s")"#,
        r#"attributes["x"] == nil"#,
    ] {
        assert_eq!(Bytes::of(&Span::default()).ask(&parsed(condition, Context::Span)), Ok(true));
    }
}

#[test]
fn events_are_asked_one_by_one() {
    let cases: [(&str, [Result<bool, Failed>; 2]); 10] = [
        (r#"name == "exception""#, [Ok(false), Ok(true)]),
        (r#"spanevent.name == "exception""#, [Ok(false), Ok(true)]),
        (r#"IsMatch(attributes["exception.type"], "^java")"#, [Ok(false), Ok(true)]),
        (r#"spanevent.attributes["exception.type"] == "none""#, [Ok(true), Ok(false)]),
        (r#"span.name == "GET /checkout" and name == "start""#, [Ok(true), Ok(false)]),
        (r#"resource.attributes["service.name"] == "shop""#, [Ok(true), Ok(true)]),
        (r#"time - span.start_time == Duration("500ns")"#, [Ok(true), Ok(true)]),
        ("spanevent.time_unix_nano > 1000000499", [Ok(true), Ok(true)]),
        ("dropped_attributes_count == 2", [Ok(true), Ok(true)]),
        (r#"HasPrefix(attributes["x"], "a")"#, [Err(Failed), Err(Failed)]),
    ];
    let bytes = Bytes::of(&span());
    for (condition, expected) in cases {
        let asked = parsed(condition, Context::SpanEvent);
        assert_eq!(bytes.ask_events(&asked), expected, "{condition}");
    }
    let none = Bytes::of(&Span::default()).ask_events(&parsed("true", Context::SpanEvent));
    assert!(none.is_empty());
}

#[test]
fn of_what_is_sent_in_pieces_the_last_counts() {
    let first = Span { name: "old".to_owned(), ..span() };
    let second = Span {
        name: "new".to_owned(),
        status: Some(Status { code: 0, message: "late".to_owned() }),
        ..Span::default()
    };
    let span = [first.encode_to_vec(), second.encode_to_vec()].concat();
    let bytes = Bytes { span, ..Bytes::of(&first) };
    // A status without a code leaves the earlier code.
    let condition =
        r#"name == "new" and status.code == 2 and status.message == "late" and kind == 2"#;
    assert_eq!(bytes.ask(&parsed(condition, Context::Span)), Ok(true));
}

#[test]
fn refusals_name_their_place() {
    let cases: [(&str, &str); 47] = [
        ("", "line 1, column 1: expected a value, found the end: >>> "),
        ("name", "line 1, column 1: a value alone is no condition"),
        (r#"name = "a""#, "line 1, column 6: '=' compares nothing: write '==': name >>> = \"a\""),
        (r#"name == 'a'"#, "column 9: '\\'' means nothing here; texts stand in double quotes"),
        (r#"name == "a"#, "column 9: the text has no closing quote"),
        (r#"name == "\d""#, r"column 10: \d is no escape; for a backslash write two: \\d"),
        (r#"name == "\x4""#, "column 10: \\x needs 2 hexadecimal digits"),
        (r#"name == "\ud800""#, "column 10: \\u needs 4 hexadecimal digits"),
        (r#"name == "\400""#, "column 10: an octal escape has three digits"),
        (r#"name == "\xff""#, "column 9: the text is not UTF-8"),
        ("name == ", "column 9: expected a value, found the end"),
        ("name == \"a\" and", "column 16: expected a value, found the end"),
        ("(name == \"a\"", "column 13: expected ')', found the end"),
        ("name == \"a\")", "column 12: expected and, or or the end, found ')'"),
        ("name == \"a\" && kind == 1", "column 13: '&' means nothing here"),
        ("!IsRootSpan()", "column 1: expected a value, found '!'"),
        ("name ! \"a\"", "column 6: '!' means nothing here: write not, or '!='"),
        ("true and\nnme == 1", "line 2, column 1: the path nme is not supported; fields of span:"),
        (
            "span.nme == 1",
            "column 1: the path span.nme is not supported; fields of span: attributes",
        ),
        (
            "resource.name == 1",
            "the path resource.name is not supported; fields of resource: attributes",
        ),
        ("attributes == 1", "column 1: attributes needs a key: attributes[\"key\"]"),
        ("attributes[0] == 1", "attributes needs a key"),
        ("name[\"a\"] == 1", "name has no parts that a key could pick"),
        ("attributes[name] == 1", "column 12: expected a text as key, found name"),
        ("attributes[\"a\" == 1", "column 16: expected ']', found '=='"),
        ("spanevent.name == \"x\"", "events are asked by the conditions under spanEvent"),
        ("kind == SPAN_KIND_SERVR", "column 9: SPAN_KIND_SERVR is not supported; constants are"),
        ("Ismatch(name, \"a\")", "column 1: no function is called Ismatch; did you mean IsMatch?"),
        ("Now() == 1", "column 1: the function Now is not supported; known ones are Concat,"),
        ("set(name, \"a\")", "the function set is not supported"),
        ("IsMatch(name)", "column 1: IsMatch takes 2 arguments, not 1"),
        ("IsMatch(name, name)", "column 15: the pattern of IsMatch must be a text"),
        ("IsMatch(name, \"(\")", "column 15: not a regular expression: unclosed group"),
        ("IsMatch(target=name, \"a\")", "the path target is not supported"),
        ("IsMatch(name, \"a\"", "column 18: expected ',', found the end"),
        ("HasPrefix(name \"a\")", "column 16: expected ',', found a text"),
        ("Duration(\"1d\") > 1", "column 10: is no duration; write one such as"),
        ("Duration(1) > 1", "column 10: Duration needs a text"),
        ("ConvertCase(name, \"snake\") == name", "column 19: ConvertCase converts to"),
        ("SpanID(0x01) == span_id", "column 8: SpanID needs 16 hexadecimal digits"),
        ("TraceID(\"01\") == trace_id", "column 9: TraceID needs 32"),
        ("Concat(name, \"\") == name", "column 8: Concat joins a list"),
        ("Int(name)", "column 1: a value alone is no condition"),
        ("(name == \"a\") == true", "column 1: a condition cannot stand where a value is needed"),
        ("name == {}", "column 9: maps are not supported"),
        ("99999999999999999999 == 1", "column 1: does not fit 64 bits"),
        ("name == \"a\" where kind == 1", "expected and, or or the end, found where"),
    ];
    for (condition, expected) in cases {
        let refusal = parse(condition, Context::Span, MAX_REGEX_BYTES).unwrap_err();
        let told = refusal.explain(condition);
        assert!(told.contains(expected), "{condition}\n  told {told}");
    }
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(32), Context::Span, 1000).is_ok());
    let told = parse(&nested(33), Context::Span, 1000).unwrap_err().message;
    assert_eq!(told, "is nested more than 32 deep");
    for opening in ["(", "[", "-", "Int(", "[Int(-("] {
        assert!(parse(&opening.repeat(2048 / opening.len()), Context::Span, 1000).is_err());
    }
    // Chains are no nesting.
    assert!(parse(&format!("{} == 1", ["1"; 500].join(" + ")), Context::Span, 1000).is_ok());
    assert!(parse(&["true"; 250].join(" and "), Context::Span, 1000).is_ok());
    assert!(parse(&format!("not {}", ["true"; 250].join(" or ")), Context::Span, 1000).is_ok());
}

/// Pieces of conditions in any order.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(
        "name kind status.code attributes[\"a\"] resource.attributes[\"service.name\"] == != < <= > >= \
         and or not ( ) [ ] , . \" 1 0 -1 1.5 .5 true false nil \"x\" \"\\\\d\" 0x01 SPAN_KIND_SERVER \
         IsMatch( IsMatch(name,\"a+\") Len(name) Int(\"5\") Duration(\"1s\") end_time start_time \
         + - * / spanevent.name IsRootSpan() Substring(name,0,1) Concat([name,1],\",\") é \\ { = trace_state \
         ContainsValue(attributes[\"tags\"],1) SpanID(0x0000000000000000) parent_span_id \
         HasPrefix(name,\"x\")"
            .split_whitespace()
            .collect::<Vec<_>>(),
    );
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.join(" "))
}

/// Conditions that parse.
fn condition() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec![
        "name",
        "kind",
        "attributes[\"a\"]",
        "attributes[\"tags\"][0]",
        "end_time - start_time",
        "resource.attributes[\"service.name\"]",
        "trace_state[\"b\"]",
        "parent_span_id",
        "1",
        "\"x\"",
        "nil",
        "true",
        "Len(name)",
        "Int(attributes[\"a\"])",
        "Concat([name, kind, attributes[\"a\"]], \"-\")",
        "Substring(name, 1, 2)",
        "ToLowerCase(name)",
        "Duration(\"1s\")",
        "-kind * 2",
        "status.code",
        "status.message",
        "scope.name",
        "attributes[\"a\"][\"b\"]",
        "Double(attributes[\"a\"])",
        "Seconds(end_time - start_time)",
        "[1, name]",
        "String(attributes[\"a\"])",
        "1 / kind",
    ]);
    let operator = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let compared = (value.clone(), operator, value).prop_map(|(a, o, b)| format!("{a} {o} {b}"));
    let asked = prop::sample::select(vec![
        "IsMatch(name, \"a+\")".to_owned(),
        "IsRootSpan()".to_owned(),
        "HasPrefix(attributes[\"a\"], \"x\")".to_owned(),
        "ContainsValue(attributes[\"a\"], 1)".to_owned(),
    ]);
    prop_oneof![3 => compared, 1 => asked].prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} and ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inner.prop_map(|a| format!("not ({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_condition_is_too_strange(text in prop_oneof![soup(), ".{0,60}"]) {
        for context in [Context::Span, Context::SpanEvent] {
            if let Err(refusal) = parse(&text, context, 10_000) {
                prop_assert!(refusal.at <= text.len());
                prop_assert!(refusal.explain(&text).starts_with("line "));
            }
        }
    }

    #[test]
    fn no_bytes_are_too_strange(
        condition in condition(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let asked = parsed(&condition, Context::Span);
        let of_event = parsed(&condition, Context::SpanEvent.min_context(&condition));
        let mut bytes = Bytes::of(&span());
        let _ = bytes.ask(&asked);
        for (place, value) in &flips {
            let place = place.index(bytes.span.len());
            bytes.span[place] = *value;
        }
        let _ = (bytes.ask(&asked), bytes.ask_events(&of_event));
        let end = cut.index(bytes.span.len());
        bytes.span.truncate(end);
        let _ = bytes.ask(&asked);
        let bytes = Bytes { resource: noise.clone(), scope: noise.clone(), span: noise };
        let _ = (bytes.ask(&asked), bytes.ask_events(&of_event));
    }
}

impl Context {
    /// Conditions above name fields of spans; an event has some of them.
    fn min_context(self, condition: &str) -> Self {
        match parse(condition, self, MAX_REGEX_BYTES) {
            Ok(_) => self,
            Err(_) => Self::Span,
        }
    }
}
