//! What is rewritten as bytes against the same done to decoded messages, on random requests that are as odd
//! as the wire format allows; and whatever the bytes are, nothing panics.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test should say where")]

#[expect(dead_code, reason = "other tests need the rest")]
mod wild;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use regex::Regex;
use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::rewrite::attributes::{Action, Actions, Given, Home, Verb};
use ringtail_engine::rewrite::outgoing::Outgoing;
use ringtail_engine::rewrite::redaction::{Hasher, Mask, Plan, Redaction, Texts};
use ringtail_engine::rewrite::sampling::{Chance, Mark};
use ringtail_engine::scan::{Group, ScanLimits, Shape, TraceId, Visit, check, walk};

/// Texts of wild requests are short and of few letters, so these are found often.
const VALUE_PATTERN: &str = "[a-e]|[0-4]";
const KEY_PATTERN: &str = "[a-m]";

// === the same, decoded ===

struct Model {
    plan: Plan,
    patterns: Vec<(Option<Regex>, Option<Regex>)>,
}

impl Model {
    fn new(plan: &Plan) -> Self {
        let compile = |text: &Option<String>| text.as_ref().map(|text| Regex::new(text).unwrap());
        let patterns = plan.masks.iter();
        let patterns = patterns.map(|m| (compile(&m.key_pattern), compile(&m.value_pattern)));
        Self { plan: plan.clone(), patterns: patterns.collect() }
    }

    fn masks_of(&self, key: &str) -> Vec<usize> {
        let about = |place: &usize| {
            let (mask, (pattern, _)) = (&self.plan.masks[*place], &self.patterns[*place]);
            match (&mask.key, pattern) {
                (Some(own), _) => own == key,
                (None, Some(pattern)) => pattern.is_match(key),
                (None, None) => true,
            }
        };
        (0..self.plan.masks.len()).filter(about).collect()
    }

    fn attributes(&self, list: &mut Vec<KeyValue>, around: &[usize], outermost: bool) {
        let allowed = self.plan.allow_only.as_ref().filter(|_| outermost);
        list.retain(|pair| {
            !self.plan.remove.contains(&pair.key)
                && allowed.is_none_or(|allowed| allowed.contains(&pair.key))
        });
        for pair in list {
            let mut masks = [around, &self.masks_of(&pair.key)].concat();
            masks.sort_unstable();
            masks.dedup();
            if self.plan.hash.contains(&pair.key) {
                // Which hash it is others test.
                pair.value = Some(AnyValue { value: Some(Value::StringValue("hash".to_owned())) });
                // With a value goes whatever else there was.
                pair.key_strindex = 0;
                continue;
            }
            let whole = masks.iter().find(|place| self.patterns[**place].1.is_none());
            if let Some(place) = whole {
                let text = self.plan.masks[*place].replacement.clone();
                pair.value = Some(AnyValue { value: Some(Value::StringValue(text)) });
                pair.key_strindex = 0;
            } else if let Some(any) = &mut pair.value {
                self.any(any, &masks);
            }
        }
    }

    fn any(&self, any: &mut AnyValue, masks: &[usize]) {
        let shown = match &mut any.value {
            Some(Value::ArrayValue(list)) => {
                return list.values.iter_mut().for_each(|any| self.any(any, masks));
            }
            Some(Value::KvlistValue(map)) => return self.attributes(&mut map.values, masks, false),
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::BoolValue(value)) => value.to_string(),
            Some(Value::IntValue(value)) => value.to_string(),
            Some(Value::DoubleValue(value)) => value.to_string(),
            Some(Value::BytesValue(bytes)) => {
                let found = |place: &&usize| {
                    let pattern = self.plan.masks[**place].value_pattern.as_ref().unwrap();
                    regex::bytes::Regex::new(pattern).unwrap().is_match(bytes)
                };
                if let Some(place) = masks.iter().find(found) {
                    let text = self.plan.masks[*place].replacement.clone();
                    any.value = Some(Value::StringValue(text));
                }
                return;
            }
            _ => return,
        };
        let masked = self.text(&shown, masks);
        if masked != shown {
            any.value = Some(Value::StringValue(masked));
        }
    }

    fn text(&self, text: &str, masks: &[usize]) -> String {
        let mut masked = text.to_owned();
        for place in masks {
            if let Some(pattern) = &self.patterns[*place].1 {
                let to = regex::NoExpand(&self.plan.masks[*place].replacement);
                masked = pattern.replace_all(&masked, to).into_owned();
            }
        }
        masked
    }

    fn request(&self, request: &mut ExportTraceServiceRequest) {
        let everywhere = self.plan.masks.iter().enumerate();
        let everywhere = everywhere.filter(|(_, m)| m.key.is_none() && m.key_pattern.is_none());
        let everywhere: Vec<usize> = everywhere.map(|(place, _)| place).collect();
        let clean = |list: &mut Vec<KeyValue>| self.attributes(list, &[], true);
        let text = |text: &mut String, wanted: bool| {
            if wanted {
                *text = self.text(text, &everywhere);
            }
        };
        for spans in &mut request.resource_spans {
            spans.resource.iter_mut().for_each(|resource| clean(&mut resource.attributes));
            for scope in &mut spans.scope_spans {
                scope.scope.iter_mut().for_each(|scope| clean(&mut scope.attributes));
                for span in &mut scope.spans {
                    clean(&mut span.attributes);
                    text(&mut span.name, self.plan.texts.span_names);
                    for event in &mut span.events {
                        clean(&mut event.attributes);
                        text(&mut event.name, self.plan.texts.event_names);
                    }
                    span.links.iter_mut().for_each(|link| clean(&mut link.attributes));
                    let status = span.status.iter_mut();
                    status.for_each(|s| text(&mut s.message, self.plan.texts.status_messages));
                }
            }
        }
    }
}

/// Hashes become one word, as in the model.
fn hashes_shown(request: &mut ExportTraceServiceRequest, keys: &[String]) {
    fn shown(list: &mut [KeyValue], keys: &[String]) {
        for pair in list {
            match pair.value.as_mut().and_then(|any| any.value.as_mut()) {
                Some(Value::StringValue(text)) if keys.contains(&pair.key) => {
                    assert_eq!(text.len(), 64);
                    *text = "hash".to_owned();
                }
                Some(value) => shown_value(value, keys),
                None => {}
            }
        }
    }
    fn shown_value(value: &mut Value, keys: &[String]) {
        match value {
            Value::KvlistValue(map) => shown(&mut map.values, keys),
            Value::ArrayValue(list) => {
                let values = list.values.iter_mut().filter_map(|any| any.value.as_mut());
                values.for_each(|value| shown_value(value, keys));
            }
            _ => {}
        }
    }
    for spans in &mut request.resource_spans {
        spans.resource.iter_mut().for_each(|r| shown(&mut r.attributes, keys));
        for scope in &mut spans.scope_spans {
            scope.scope.iter_mut().for_each(|s| shown(&mut s.attributes, keys));
            for span in &mut scope.spans {
                shown(&mut span.attributes, keys);
                span.events.iter_mut().for_each(|e| shown(&mut e.attributes, keys));
                span.links.iter_mut().for_each(|l| shown(&mut l.attributes, keys));
            }
        }
    }
}

// === through bytes ===

struct Gather(Batch, Option<GroupRef>);

impl Visit for Gather {
    fn group(&mut self, _group: &Group<'_>) {
        self.1 = None;
    }

    fn span(&mut self, group: &Group<'_>, _id: &TraceId, span: &[u8]) {
        let Self(batch, known) = self;
        let place = *known.get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
        batch.push(place, span);
    }
}

/// A batch with the valid spans of a request, and the request that it encodes to.
fn gathered(request: &[u8]) -> Option<(Batch, Vec<u8>)> {
    let shape = check(request, &ScanLimits::default()).ok()?;
    let mut gather = Gather(Batch::new(), None);
    walk(request, &shape, &mut gather).unwrap();
    let mut encoded = Vec::new();
    gather.0.encode(&mut encoded);
    Some((gather.0, encoded))
}

/// Each span with what it is in, in order of its text. Resources and scopes may move: those that are equal
/// once rewritten, or are but encoded in two ways, become one.
fn spans(request: &ExportTraceServiceRequest) -> Vec<String> {
    let resources = request.resource_spans.iter();
    let scopes = resources.flat_map(|group| group.scope_spans.iter().map(move |s| (group, s)));
    let spans = scopes.flat_map(|(group, scope)| {
        let around = (&group.resource, &group.schema_url, &scope.scope, &scope.schema_url);
        scope.spans.iter().map(move |span| format!("{around:?} {span:?}"))
    });
    let mut lines: Vec<String> = spans.collect();
    lines.sort();
    lines
}

/// Every key of a request, so that a plan can name some of them.
fn keys(request: &ExportTraceServiceRequest) -> Vec<String> {
    let spans = request.resource_spans.iter();
    let of_resources = spans.clone().flat_map(|s| s.resource.iter().flat_map(|r| &r.attributes));
    let of_spans = spans.flat_map(|s| &s.scope_spans).flat_map(|s| &s.spans);
    let of_spans = of_spans.flat_map(|span| &span.attributes);
    let mut keys: Vec<String> = of_resources.chain(of_spans).map(|pair| pair.key.clone()).collect();
    keys.retain(|key| !key.is_empty() && key.len() < 200);
    keys.sort();
    keys.dedup();
    keys
}

fn plan(keys: &[String], dice: u32) -> Plan {
    let pick = |shift: u32| -> Vec<String> {
        let chosen = keys.iter().enumerate();
        let chosen = chosen
            .filter(|(place, _)| (dice >> shift).wrapping_add(*place as u32).is_multiple_of(5));
        chosen.map(|(_, key)| key.clone()).take(50).collect()
    };
    let mask = |key: Option<String>, key_pattern: Option<&str>, value: Option<&str>| Mask {
        key,
        key_pattern: key_pattern.map(str::to_owned),
        value_pattern: value.map(str::to_owned),
        replacement: if dice & 64 == 0 { "****".to_owned() } else { "abc$1".to_owned() },
    };
    let mut masks: Vec<Mask> =
        pick(3).into_iter().map(|key| mask(Some(key), None, Some(VALUE_PATTERN))).collect();
    if dice & 1 != 0 {
        masks.push(mask(None, Some(KEY_PATTERN), (dice & 2 != 0).then_some(VALUE_PATTERN)));
    }
    if dice & 4 != 0 {
        masks.push(mask(None, None, Some(VALUE_PATTERN)));
    }
    Plan {
        remove: pick(0),
        hash: pick(1),
        masks,
        allow_only: (dice & 8 != 0).then(|| [pick(2), pick(3)].concat()),
        texts: Texts {
            span_names: dice & 16 != 0,
            event_names: dice & 32 != 0,
            status_messages: dice & 128 != 0,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn redaction_does_to_bytes_what_it_would_do_to_messages(
        entropy in vec(any::<u8>(), 0..3000),
        dice in any::<u32>(),
    ) {
        let request = wild::request(&entropy);
        if let Some((batch, encoded)) = gathered(&request) {
            let mut expected = ExportTraceServiceRequest::decode(encoded.as_slice()).unwrap();
            let plan = plan(&keys(&expected), dice);
            Model::new(&plan).request(&mut expected);
            let redaction = Redaction::new(&plan, Hasher::default()).unwrap();
            let mut outgoing = Outgoing::default();
            outgoing.add(&batch, Some(&redaction), &Mark::default()).unwrap();
            let mut bytes = Vec::new();
            outgoing.ready().encode(&mut bytes);
            prop_assert!(check(&bytes, &ScanLimits::default()).is_ok());
            let mut told = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
            hashes_shown(&mut told, &plan.hash);
            prop_assert_eq!(spans(&told), spans(&expected));
        }
    }

    #[test]
    fn nothing_to_do_leaves_the_spans_alone(entropy in vec(any::<u8>(), 0..3000)) {
        let request = wild::request(&entropy);
        if let Some((batch, encoded)) = gathered(&request) {
            let plan = Plan { remove: vec!["no such key".to_owned()], ..Plan::default() };
            let redaction = Redaction::new(&plan, Hasher::default()).unwrap();
            let mut outgoing = Outgoing::default();
            outgoing.add(&batch, Some(&redaction), &Mark::default()).unwrap();
            let mut bytes = Vec::new();
            outgoing.ready().encode(&mut bytes);
            let decode = |bytes: &[u8]| ExportTraceServiceRequest::decode(bytes).unwrap();
            prop_assert_eq!(spans(&decode(&bytes)), spans(&decode(&encoded)));
        }
    }
}

/// Everything at once, to any bytes.
fn rewrite(bytes: &[u8]) {
    let plan = plan(&["a".to_owned(), "b".to_owned()], 0b1111_1111);
    let redaction = Redaction::new(&plan, Hasher::default()).unwrap();
    let verbs = [Verb::Insert(Given::Int(1)), Verb::Hash, Verb::Delete];
    let actions = verbs.into_iter().flat_map(|verb| {
        [Home::Span, Home::Resource].map(|home| Action {
            home,
            key: "a".to_owned(),
            verb: verb.clone(),
        })
    });
    let actions = Actions::new(&actions.collect::<Vec<_>>(), Hasher::default()).unwrap();
    let chance = Some(Chance::Hashed { least: 1 << 55, salt: 7 });
    let mark = Mark { policy: Some("p".to_owned()), chance, ..Mark::default() };
    let mut out = Vec::new();
    redaction.resource(bytes, &mut out);
    redaction.scope(bytes, &mut out);
    redaction.span(bytes, &mut out);
    actions.resource(bytes, &mut out);
    actions.span(bytes, &mut out);
    mark.scope(bytes, &mut out);
    mark.span(bytes, &[1; 16], &mut out);
    // A hash takes 66 bytes for a value of none, and a pair has four at least.
    assert!(out.len() <= 200 + bytes.len() * 7 * 32);
    let mut outgoing = Outgoing::default();
    if let Some((batch, _)) = gathered(bytes) {
        outgoing.add(&batch, Some(&redaction), &mark).unwrap();
        let mut encoded = Vec::new();
        outgoing.ready().encode(&mut encoded);
        walk(&encoded, &Shape::UNKNOWN, &mut Gather(Batch::new(), None)).unwrap();
    }
}

#[test]
fn fuzz_rewrite() {
    let entropy = bolero::produce::<Vec<u8>>().with().len(0_usize..3000);
    bolero::check!().with_generator(entropy).with_iterations(2000).with_max_len(8192).for_each(
        |bytes| {
            rewrite(bytes);
            rewrite(&wild::request(bytes));
        },
    );
}
