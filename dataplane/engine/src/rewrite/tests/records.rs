//! Redaction of log records.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::*;

fn redacted(plan: &Plan, record: LogRecord) -> (Vec<KeyValue>, LogRecord) {
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: record.attributes.clone(),
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    };
    let redaction = Redaction::new(plan, Hasher::new(Some(b"k"))).unwrap();
    let mut outgoing = Outgoing::default();
    outgoing.add_logs(&request.encode_to_vec(), &redaction).unwrap();
    let mut bytes = Vec::new();
    outgoing.ready().encode(&mut bytes);
    let mut request = ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap();
    let mut resource = request.resource_logs.remove(0);
    let record = resource.scope_logs.remove(0).log_records.remove(0);
    (resource.resource.unwrap_or_default().attributes, record)
}

fn digits() -> Plan {
    Plan {
        masks: vec![mask(None, None, Some("[0-9]+"))],
        remove: words(&["secret"]),
        ..Plan::default()
    }
}

fn of_body(body: Value) -> LogRecord {
    // With a trace and without one: strays are redacted as well.
    LogRecord { body: Some(any(body)), ..LogRecord::default() }
}

#[test]
fn attributes_of_records_are_as_those_of_spans() {
    let attributes = vec![text("secret", "x"), text("card", "4111 of 2"), text("plain", "y")];
    for trace_id in [vec![1; 16], Vec::new()] {
        let record = LogRecord { trace_id, attributes: attributes.clone(), ..LogRecord::default() };
        let (resource, record) = redacted(&digits(), record);
        let expected = vec![text("card", "**** of ****"), text("plain", "y")];
        assert_eq!(record.attributes, expected);
        assert_eq!(resource, expected);
    }
}

#[test]
fn bodies_are_masked_and_their_keys_are_as_attributes() {
    let string = |text: &str| Value::StringValue(text.to_owned());
    let pairs = |pairs: Vec<KeyValue>| Value::KvlistValue(KeyValueList { values: pairs });
    let before = vec![text("secret", "x"), text("a", "no 7"), map("b", vec![text("secret", "x")])];
    let after = vec![text("a", "no ****"), map("b", vec![])];
    let array = |values: Vec<AnyValue>| Value::ArrayValue(ArrayValue { values });
    let cases = [
        (string("card 4111"), string("card ****")),
        (Value::IntValue(4111), string("****")),
        (pairs(before.clone()), pairs(after.clone())),
        (array(vec![any(string("7")), any(pairs(before))]), {
            array(vec![any(string("****")), any(pairs(after))])
        }),
        (string("nothing"), string("nothing")),
    ];
    for (before, after) in cases {
        let (_, record) = redacted(&digits(), of_body(before.clone()));
        assert_eq!(record.body, Some(any(after)), "{before:?}");
    }
}

#[test]
fn only_allowed_keys_leave_in_a_body() {
    let plan = Plan { allow_only: Some(words(&["a"])), ..digits() };
    let body = vec![text("a", "1"), text("b", "2"), text("secret", "3")];
    let body = Value::KvlistValue(KeyValueList { values: body });
    let record = LogRecord { attributes: vec![text("b", "2"), text("a", "1")], ..of_body(body) };
    let (_, record) = redacted(&plan, record);
    let left = vec![text("a", "****")];
    assert_eq!(record.attributes, left);
    let body = Value::KvlistValue(KeyValueList { values: left });
    assert_eq!(record.body, Some(any(body)));
    // A text has no keys that could be allowed; masks are what is for it.
    let (_, record) = redacted(&plan, of_body(Value::StringValue("b=2".to_owned())));
    assert_eq!(record.body, Some(any(Value::StringValue("b=****".to_owned()))));
}
