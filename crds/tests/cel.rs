//! The rules of the schema, run as an API server runs them, agree with the offline check.
//!
//! `cargo test -p ringtail-crds --features cel`; the manifest says why it is not on by default.
#![cfg(feature = "cel")]
#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::{fs, path::Path};

use kube::core::cel::Validator;
use ringtail_crds::{TracePipeline, schema, validate};
use serde_json::Value;

const SHOP: &str = include_str!("../../examples/shop.yaml");

/// What is wrong with the text for an API server, as `field: message`. Reading it into the types and
/// writing it again puts the defaults in, as an API server does before it runs rules.
fn online(yaml: &str) -> Vec<String> {
    let pipeline: TracePipeline = serde_saphyr::from_str(yaml).unwrap();
    broken_rules(&definition(), &pipeline)
}

fn definition() -> Value {
    let definition = serde_json::to_value(schema::definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn broken_rules(root: &Value, pipeline: &TracePipeline) -> Vec<String> {
    let value = serde_json::to_value(pipeline).unwrap();
    let errors = Validator::new().validate(root, &value, None).err();
    let errors = errors.map(|errors| errors.into_vec()).unwrap_or_default();
    errors.iter().map(|error| format!("{}: {}", error.field_path, error.message)).collect()
}

fn offline(yaml: &str) -> Vec<String> {
    let problems = validate(yaml).err().unwrap_or_default();
    problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

/// Both take the example with `from` replaced by `to`, or both refuse it in `field`.
fn check(from: &str, to: &str, field: Option<&str>) {
    assert!(SHOP.contains(from), "no {from:?} in the example");
    let yaml = SHOP.replacen(from, to, 1);
    let (online, offline) = (online(&yaml), offline(&yaml));
    let places = |told: &[String]| {
        told.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let expected: Vec<_> = field.into_iter().map(str::to_owned).collect();
    assert_eq!(places(&offline), expected, "offline, {to:?}: {offline:#?}");
    assert_eq!(places(&online), expected, "online, {to:?}: {online:#?}");
}

const WAIT: &str = "spec.sampling.decisionWait";
const BATCH: &str = "spec.agent.batch";
const LATENCY: &str = "spec.sampling.policies[3].latency";
const OTLP: &str = "spec.exporters[0].otlp";
const NONE: (&str, &str) = ("", "");

/// What to replace in the example, with what, and which field is wrong then.
const BOUNDS: [(&str, &str, (&str, &str)); 25] = [
    ("decisionWait: 30s", "decisionWait: 1s", NONE),
    ("decisionWait: 30s", "decisionWait: 999ms", (WAIT, "")),
    ("decisionWait: 30s", "decisionWait: 59m60s", NONE),
    ("decisionWait: 30s", "decisionWait: 1h1ms", (WAIT, "")),
    ("timeout: 200ms", "timeout: 10s", NONE),
    ("timeout: 200ms", "timeout: 10001ms", (BATCH, ".timeout")),
    ("timeout: 200ms", "timeout: 0s", (BATCH, ".timeout")),
    ("maxBytes: 1Mi", "maxBytes: 4Mi", NONE),
    ("maxBytes: 1Mi", "maxBytes: 4194k", NONE),
    ("maxBytes: 1Mi", "maxBytes: 4195k", (BATCH, ".maxBytes")),
    ("maxBytes: 1Mi", "maxBytes: \"1023\"", (BATCH, ".maxBytes")),
    ("timeout: 5s", "timeout: 99ms", (OTLP, ".timeout")),
    ("maxElapsed: 5m", "maxElapsed: 25h", (OTLP, ".retry.maxElapsed")),
    ("maxElapsed: 5m", "maxInterval: 1s", NONE),
    ("maxElapsed: 5m", "maxInterval: 999ms", (OTLP, ".retry.maxInterval")),
    ("maxElapsed: 5m", "initialInterval: 31s", (OTLP, ".retry.maxInterval")),
    ("maxBytes: 64Mi", "maxBytes: 65Gi", (OTLP, ".queue.maxBytes")),
    ("protocol: GRPC", "headers: [{name: x-te, value: a}]", NONE),
    ("protocol: GRPC", "headers: [{name: te, value: a}]", (OTLP, ".headers[0].name")),
    ("protocol: GRPC", "headers: [{name: grpc-x, value: a}]", (OTLP, ".headers[0].name")),
    ("protocol: GRPC", "headers: [{name: x-bin, value: a}]", (OTLP, ".headers[0].name")),
    ("protocol: GRPC", "headers: [{name: user-agent, value: a}]", (OTLP, ".headers[0].name")),
    ("threshold: 500ms", "threshold: 25h", (LATENCY, ".threshold")),
    ("threshold: 500ms", "{threshold: 1s, upperThreshold: 1001ms}", NONE),
    ("threshold: 500ms", "{threshold: 1s, upperThreshold: 1s}", (LATENCY, ".upperThreshold")),
];

#[test]
fn rules_agree_at_their_bounds() {
    for (from, to, (object, field)) in BOUNDS {
        let field = format!("{object}{field}");
        check(from, to, Some(field.as_str()).filter(|field| !field.is_empty()));
    }
}

#[test]
fn rules_agree_across_fields() {
    let at = "spec.sampling.policies[3]";
    let numeric =
        |rest: &str| format!("type: NumericAttribute\n        numericAttribute: {{key: a{rest}}}");
    let latency = "type: Latency\n        latency:\n          threshold: 500ms";
    check(latency, &numeric(", minValue: 0"), None);
    check(latency, &numeric(", minValue: 2, maxValue: 2"), None);
    check(latency, &numeric(""), Some(&format!("{at}.numericAttribute")));
    check(
        latency,
        &numeric(", minValue: 2, maxValue: 1"),
        Some(&format!("{at}.numericAttribute.maxValue")),
    );
    check(latency, "type: Latency", Some(&format!("{at}.latency")));
    let both = format!("{latency}\n        not: {{policy: errors}}");
    check(latency, &both, Some(&format!("{at}.not")));
    let early = "spec.agent.batch.timeout";
    let short = SHOP.replace("decisionWait: 30s", "decisionWait: 2s");
    for (timeout, field) in [("1999ms", None), ("2s", Some(early))] {
        let yaml = short.replace("timeout: 200ms", &format!("timeout: {timeout}"));
        assert_eq!(online(&yaml).len(), field.iter().len(), "{:?}", online(&yaml));
        assert_eq!(offline(&yaml).len(), field.iter().len(), "{:?}", offline(&yaml));
    }
}

/// Of the table of manifests, which `manifests.rs` judges offline, at least so many break a rule: one for
/// each that is no bound of a value.
const BROKEN_MIN: usize = 20;

#[test]
fn rules_agree_about_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let root = definition();
    let mut broken = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        // What does not fit the types does not get as far as rules.
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let Ok(pipeline) = serde_json::from_value::<TracePipeline>(value) else { continue };
        let told = broken_rules(&root, &pipeline);
        let field =
            text.lines().find_map(|line| line.strip_prefix("# field: ")).unwrap_or_default();
        let schema = text.contains("# refused by: schema");
        let expected = told.iter().all(|line| schema && line.starts_with(&format!("{field}: ")));
        assert!(expected && told.len() <= 1, "{}: {told:?}", path.display());
        broken += told.len();
    }
    assert!(broken >= BROKEN_MIN, "{broken}");
}
