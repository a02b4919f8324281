//! Random documents: what the check takes, the types and the engine take too, and nothing makes it panic.

use proptest::{prelude::*, sample::Index};
use ringtail_engine::policy;

use super::*;
use crate::TracePipeline;

const CLUSTER: &str = include_str!("../../../../examples/cluster.yaml");
const SETTINGS: &str = include_str!("../../../tests/manifests/accepted-pod-settings.yaml");
const TEMPLATE: &str = include_str!("../../../tests/manifests/accepted-pod-template.yaml");

/// One change of a document, at a place that an index chooses.
#[derive(Clone, Debug)]
enum Mutation {
    Remove(Index),
    Replace(Index, Value),
    Repeat(Index),
    Rename(Index, String),
    Copy(Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        any::<Index>().prop_map(Mutation::Remove),
        (any::<Index>(), value()).prop_map(|(at, value)| Mutation::Replace(at, value)),
        any::<Index>().prop_map(Mutation::Repeat),
        (any::<Index>(), word()).prop_map(|(at, word)| Mutation::Rename(at, word)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Mutation::Copy(from, to)),
    ]
}

/// Words that mean something somewhere in a manifest, and some that mean nothing.
fn word() -> impl Strategy<Value = String> {
    let known = prop::sample::select(
        "name type role sampling policies latency threshold upperThreshold and or not drop policy \
         AlwaysSample Latency StatusCode Probabilistic StringAttribute NumericAttribute And Or \
         Not Drop Part Vote Error Zstd OTLP Static routing resolver static endpoints host:4317 \
         numericAttribute minValue maxValue slow errors 1s 3h 500ms 0s 64Mi 1Ki 10 0.1 100.0 1e3 \
         http://a:1 hashSalt headers value x-org agent gateway mode Sidecar None External replicas \
         receivers otlp grpc port hostPort autoscaling maxReplicas affinity podAntiAffinity env \
         volumes secretKeyRef podTemplate spec containers resources limits security peerTLS paused \
         filter protocol HTTPJSON https://a tls caRef bearerTokenSecretRef queue persistent \
         sizeLimit Debug debug File file path rotation"
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    );
    prop_oneof![9 => known, 1 => ".{0,70}"]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        word().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2i64..200).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map(word(), inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// JSON pointers of all nodes below the root.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, v)| (key.replace('~', "~0").replace('/', "~1"), v)).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    for (step, child) in children {
        let here = format!("{at}/{step}");
        pointers(child, &here, found);
        found.push(here);
    }
}

fn mutate(document: &mut Value, mutation: &Mutation) {
    let mut all = Vec::new();
    pointers(document, "", &mut all);
    if all.is_empty() {
        return;
    }
    let (Mutation::Remove(at)
    | Mutation::Replace(at, _)
    | Mutation::Repeat(at)
    | Mutation::Rename(at, _)
    | Mutation::Copy(_, at)) = mutation;
    let pointer = at.get(&all).clone();
    let copied = match mutation {
        Mutation::Copy(from, _) => document.pointer(&all[from.index(all.len())]).cloned(),
        Mutation::Replace(_, value) => Some(value.clone()),
        _ => None,
    };
    let (parent, step) = pointer.rsplit_once('/').unwrap();
    let key = step.replace("~1", "/").replace("~0", "~");
    match (document.pointer_mut(parent).unwrap(), mutation, copied) {
        (Value::Object(map), Mutation::Remove(_), _) => drop(map.remove(&key)),
        (Value::Array(items), Mutation::Remove(_), _) => drop(items.remove(key.parse().unwrap())),
        (Value::Object(map), Mutation::Rename(_, word), _) => {
            let value = map.remove(&key).unwrap();
            map.insert(word.clone(), value);
        }
        (Value::Array(items), Mutation::Repeat(_), _) => {
            let item = items[key.parse::<usize>().unwrap()].clone();
            items.push(item);
        }
        (Value::Object(map), _, Some(value)) => drop(map.insert(key, value)),
        (Value::Array(items), _, Some(value)) => items[key.parse::<usize>().unwrap()] = value,
        _ => {}
    }
}

/// What must hold for any text.
fn judge(text: &str) -> Result<(), TestCaseError> {
    let problems = match validate(text) {
        Ok(valid) => {
            prop_assert!(policy::compile(&valid.policies).is_ok());
            prop_assert!(valid.batch.timeout < valid.decision_wait);
            Vec::new()
        }
        Err(problems) => {
            prop_assert!(!problems.is_empty());
            problems
        }
    };
    // The walk stands for the API server: what it lets pass, the types must take.
    if let Ok([document]) = document::read(text).as_deref() {
        let mut value = document.to_value();
        defaults::fill_in(&SCHEMA, &mut value);
        let mut findings = Findings::default();
        walk::walk(&SCHEMA, &value, &Path::default(), &mut findings);
        let fits = findings.is_empty();
        let typed = serde_json::from_value::<TracePipeline>(value);
        prop_assert!(!fits || typed.is_ok(), "{:?}", typed.err());
        prop_assert!(fits || !problems.is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_documents(
        yaml in prop::sample::select(vec![SHOP, MINIMAL, CLUSTER, SETTINGS, TEMPLATE]),
        mutations in prop::collection::vec(mutation(), 0..6),
    ) {
        let mut document = document::read(yaml).unwrap()[0].to_value();
        mutations.iter().for_each(|mutation| mutate(&mut document, mutation));
        judge(&document.to_string())?;
    }

    #[test]
    fn mutated_text(edits in prop::collection::vec((any::<Index>(), 0usize..9, ".{0,4}"), 1..4)) {
        let mut text: Vec<char> = SHOP.chars().collect();
        for (at, removed, added) in edits {
            let start = at.index(text.len());
            let end = (start + removed).min(text.len());
            text.splice(start..end, added.chars());
        }
        judge(&text.into_iter().collect::<String>())?;
    }
}
