//! The check and the walk of log requests against prost, on random requests and on what is left of them when
//! bytes are cut off or changed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test should say where")]

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::hold::{Heading, Hold};
use ringtail_engine::key::TraceKey;
use ringtail_engine::scan::{
    Group, Records, ScanError, ScanLimits, TraceId, Visit, check_logs, walk_logs,
};

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        ".{0,6}".prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        (-1e9..1e9).prop_map(Value::DoubleValue),
        vec(any::<u8>(), 0..5).prop_map(Value::BytesValue),
    ];
    let value = leaf.prop_map(|value| AnyValue { value: Some(value) });
    value.prop_recursive(3, 12, 3, |inner| {
        let pair = ("[a-c]", inner.clone()).prop_map(|(key, value)| KeyValue {
            key,
            value: Some(value),
            ..KeyValue::default()
        });
        prop_oneof![
            vec(inner, 0..3).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec(pair, 0..3).prop_map(|values| Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = ("[a-d]{1,3}", any_value());
    let pair =
        pair.prop_map(|(key, value)| KeyValue { key, value: Some(value), ..KeyValue::default() });
    vec(pair, 0..3)
}

fn trace_id() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0..6_u8).prop_map(|trace| [vec![1; 15], vec![trace]].concat()),
        1 => Just(Vec::new()),
        1 => Just(vec![0; 16]),
        1 => vec(any::<u8>(), 0..20),
    ]
}

fn record() -> impl Strategy<Value = LogRecord> {
    let body = proptest::option::of(any_value());
    let numbers = (any::<u64>(), 0..25_i32, any::<u32>(), "[a-z]{0,8}");
    (trace_id(), body, attributes(), numbers).prop_map(|(trace_id, body, attributes, numbers)| {
        let (time_unix_nano, severity_number, flags, severity_text) = numbers;
        LogRecord {
            trace_id,
            body,
            attributes,
            time_unix_nano,
            observed_time_unix_nano: time_unix_nano / 2,
            severity_number,
            flags,
            event_name: severity_text.clone(),
            severity_text,
            ..LogRecord::default()
        }
    })
}

fn request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope = (attributes(), vec(record(), 0..6), "[s-u]?");
    let scope = scope.prop_map(|(attributes, log_records, schema_url)| ScopeLogs {
        scope: Some(InstrumentationScope { attributes, ..InstrumentationScope::default() }),
        log_records,
        schema_url,
    });
    let resource = (attributes(), vec(scope, 0..4), "[r-t]?");
    let resource = resource.prop_map(|(attributes, scope_logs, schema_url)| ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs,
        schema_url,
    });
    vec(resource, 0..4).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

/// Everything that belongs to a record: what its resource says, what its scope says, itself.
type Whole = (Vec<u8>, Vec<u8>, Vec<u8>);

fn wholes(request: ExportLogsServiceRequest) -> Vec<Whole> {
    let mut found = Vec::new();
    for mut resource in request.resource_logs {
        for mut scope in std::mem::take(&mut resource.scope_logs) {
            for record in std::mem::take(&mut scope.log_records) {
                let (resource, scope) = (resource.encode_to_vec(), scope.encode_to_vec());
                found.push((resource, scope, record.encode_to_vec()));
            }
        }
    }
    found.sort();
    found
}

fn is_valid(id: &[u8]) -> bool {
    id.len() == 16 && id.iter().any(|byte| *byte != 0)
}

/// Whether ours and prost agree on a request, and what ours says of it.
fn examine(bytes: &[u8]) -> Option<Records> {
    let ours = check_logs(bytes, &ScanLimits::default());
    let theirs = ExportLogsServiceRequest::decode(bytes);
    match (&ours, &theirs) {
        (Ok(records), Ok(request)) => {
            let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
            let ids: Vec<bool> = scopes
                .flat_map(|scope| &scope.log_records)
                .map(|record| is_valid(&record.trace_id))
                .collect();
            assert_eq!(records.shape.spans as usize, ids.len());
            assert_eq!(records.strays as usize, ids.iter().filter(|valid| !**valid).count());
        }
        // Limits of ours.
        (Err(ScanError::TooDeep(_) | ScanError::HeadersTooLong(_)), _) | (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{ours:?} but {theirs:?}: {bytes:02x?}"),
    }
    ours.ok()
}

/// Splits by the last byte of the trace ID; strays go to the first part.
#[derive(Default)]
struct Splitter {
    parts: Vec<(Batch, Option<GroupRef>)>,
}

impl Splitter {
    fn push(&mut self, group: &Group<'_>, part: usize, record: &[u8]) {
        let (batch, known) = &mut self.parts[part];
        let place = *known.get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
        batch.push(place, record);
    }
}

impl Visit for Splitter {
    fn group(&mut self, _group: &Group<'_>) {
        self.parts.iter_mut().for_each(|(_, known)| *known = None);
    }

    fn span(&mut self, group: &Group<'_>, id: &TraceId, record: &[u8]) {
        let part = usize::from(id[15]) % self.parts.len();
        self.push(group, part, record);
    }

    fn stray(&mut self, group: &Group<'_>, record: &[u8]) {
        self.push(group, 0, record);
    }
}

/// Holds every record, those of no trace as those of one.
#[derive(Default)]
struct Holder {
    hold: Hold,
    heading: Option<std::sync::Arc<Heading>>,
}

impl Visit for Holder {
    fn group(&mut self, group: &Group<'_>) {
        self.heading = Some(Heading::of(group));
    }

    fn span(&mut self, _group: &Group<'_>, id: &TraceId, record: &[u8]) {
        let key = TraceKey(u64::from(id[15]));
        self.hold.insert(key, self.heading.as_ref().unwrap(), record, 7);
    }

    fn stray(&mut self, group: &Group<'_>, record: &[u8]) {
        self.span(group, &[0; 16], record);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_split_loses_nothing_and_doubles_nothing(requests in vec(request(), 1..4), parts in 1..5_usize) {
        let mut splitter = Splitter::default();
        splitter.parts.resize_with(parts, Default::default);
        for request in &requests {
            let bytes = request.encode_to_vec();
            prop_assert!(examine(&bytes).is_some());
            walk_logs(&bytes, &mut splitter).unwrap();
        }
        let mut found = Vec::new();
        for (part, (batch, _)) in splitter.parts.iter().enumerate() {
            let mut bytes = Vec::new();
            batch.encode(&mut bytes);
            let decoded = ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap();
            for (resource, scope, record) in wholes(decoded) {
                let id = LogRecord::decode(record.as_slice()).unwrap().trace_id;
                let expected = if is_valid(&id) { usize::from(id[15]) % parts } else { 0 };
                prop_assert_eq!(part, expected);
                found.push((resource, scope, record));
            }
        }
        found.sort();
        let mut sent: Vec<Whole> = requests.into_iter().flat_map(wholes).collect();
        sent.sort();
        prop_assert_eq!(found, sent);
    }

    #[test]
    fn what_was_held_comes_out_as_it_came_in(request in request()) {
        let mut holder = Holder::default();
        walk_logs(&request.encode_to_vec(), &mut holder).unwrap();
        let mut batch = Batch::new();
        while let Some(piece) = holder.hold.expire(7) {
            piece.put(&mut batch);
        }
        let mut bytes = Vec::new();
        batch.encode(&mut bytes);
        let decoded = ExportLogsServiceRequest::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(wholes(decoded), wholes(request));
        prop_assert_eq!(holder.hold.bytes(), 0);
    }

    #[test]
    fn garbage_is_refused_or_understood_as_prost_does(bytes in vec(any::<u8>(), 0..200)) {
        examine(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_cut_or_changed_byte_is_judged_as_prost_does(request in request(), flip in 1..=255_u8) {
        let mut bytes = request.encode_to_vec();
        for place in 0..bytes.len().min(800) {
            examine(&bytes[..place]);
            bytes[place] ^= flip;
            examine(&bytes);
            bytes[place] ^= flip;
        }
    }
}
