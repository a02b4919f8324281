//! Tests of the offline check: the examples, one mistake at a time, many at once, and random documents.

mod random;

use super::*;
use crate::resolved::Resolver;

const SHOP: &str = include_str!("../../../examples/shop.yaml");
const MINIMAL: &str = include_str!("../../../examples/minimal.yaml");

/// What is wrong with a text, a line a problem.
fn told(yaml: &str) -> String {
    let problems = validate(yaml).err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The shop example with a piece replaced.
fn edited(from: &str, to: &str) -> String {
    assert!(SHOP.contains(from), "no {from:?} in the example");
    SHOP.replacen(from, to, 1)
}

/// What is wrong after each of some edits of the shop example, to be compared with a snapshot.
fn told_after(edits: &[(&str, &str)]) -> String {
    let cases = edits.iter().map(|(from, to)| {
        let told = told(&edited(from, to));
        format!("{from:?} -> {to:?}\n{}", if told.is_empty() { "valid" } else { &told })
    });
    cases.collect::<Vec<_>>().join("\n\n")
}

#[test]
fn the_examples_are_valid() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        // Beside the pipelines lie recorded traces and a Collector's files.
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if !text.contains("kind: TracePipeline") {
            continue;
        }
        let problems = told(&text);
        assert!(problems.is_empty(), "{}:\n{problems}", path.display());
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn the_shop_resolves() {
    insta::assert_debug_snapshot!(validate(SHOP).unwrap());
}

#[test]
fn defaults_are_in_place() {
    insta::assert_debug_snapshot!(validate(MINIMAL).unwrap());
}

#[test]
fn many_mistakes_are_told_at_once() {
    insta::assert_snapshot!(told(include_str!("tests/mistakes.yaml")));
}

#[test]
fn mistakes_of_the_envelope() {
    insta::assert_snapshot!(told_after(&[
        ("name: shop", "name: shop-"),
        ("  name: shop", "  namespace: shop"),
        ("metadata:\n  name: shop", "metadata: shop"),
        ("kind: TracePipeline", "kind: TracePipelines"),
        ("kind: TracePipeline", ""),
        (
            "apiVersion: ringtail.dev/v1alpha1\nkind: TracePipeline",
            "apiVersion: v1\nkind: ConfigMap"
        ),
        ("v1alpha1", "v1"),
        ("spec:", "specs:"),
        ("  gateway:\n    replicas: 3", "gateway:\n  replicas: 3"),
    ]));
}

#[test]
fn mistakes_in_single_values() {
    insta::assert_snapshot!(told_after(&[
        ("decisionWait: 30s", "decisionWait: 30"),
        ("decisionWait: 30s", "decisionWait: 1.5m"),
        ("decisionWait: 30s", "decisionWait: 999ms"),
        ("decisionWait: 30s", "decisionWait: 60m1ms"),
        ("timeout: 200ms", "timeout: 11s"),
        ("maxBytes: 1Mi", "maxBytes: 1MB"),
        ("maxBytes: 1Mi", "maxBytes: 1048576"),
        ("maxBytes: 1Mi", "maxBytes: 5Mi"),
        ("maxBytes: 1Mi", "maxBytes: 999999999999Ti"),
        ("maxSpans: 8192", "maxSpans: 0"),
        ("maxSpans: 8192", "max_spans: 8192"),
        ("replicas: 3", "replicas: many"),
        ("replicas: 3", "replicas: 18446744073709551615"),
        ("replicas: 3", "replicas: 340282366920938463463374607431768211456"),
        ("gateway:\n    replicas: 3", "gateway: 3"),
        ("\"10\" #", "0.1 #"),
        ("\"10\" #", "-1 #"),
        ("\"10\" #", "yes #"),
        ("\"10\" #", ".nan #"),
        ("\"10\" #", "\"1e1\" #"),
        ("    compression: Zstd\n    batch", "    compression: zstd\n    batch"),
        ("http://127.0.0.1:4417", "127.0.0.1:4417"),
        ("http://127.0.0.1:4417", "ftp://tempo:4317"),
        ("http://127.0.0.1:4417", "http://tempo:65536"),
        ("http://127.0.0.1:4417", "http://[::1]:4317"),
        ("maxElapsed: 5m", "maxInterval: 500ms"),
        ("protocol: GRPC", "headers: [{name: te, value: trailers}]"),
        ("protocol: GRPC", "headers: [{name: x-org, value: 'two\n\n    lines'}]"),
    ]));
}

#[test]
fn mistakes_in_policies() {
    insta::assert_snapshot!(told_after(&[
        ("type: Latency", "type: latency"),
        ("        type: Latency\n", ""),
        ("threshold: 500ms", "threshold_ms: 500"),
        ("latency:\n          threshold: 500ms", "threshold: 500ms"),
        ("latency:\n          threshold: 500ms", "not:\n          policy: errors"),
        ("name: slowCheckout", "name: errors"),
        ("[/healthz, /readyz]", "[/healthz, /healthz]"),
        ("[/healthz, /readyz]", "[/healthz, \"\"]"),
        ("[/healthz, /readyz]", "[/healthz, on]"),
        ("[/healthz, /readyz]", "[/healthz, ~]"),
        ("[/healthz, /readyz]", "/healthz"),
        ("[slow, checkout]", "[slow, chekout]"),
        ("[slow, checkout]", "[slow, checkout, slowCheckout]"),
        ("[slow, checkout]", "[slow, checkout, probes]"),
        ("[/checkout]", "[\"(\"]\n          enabledRegexMatching: true"),
        ("[healthChecks]", "[]"),
    ]));
    let silent = MINIMAL.replace("        type:", "        role: Part\n        type:");
    assert!(told(&silent).contains("spec.sampling.policies: no policy votes"), "{}", told(&silent));
}

#[test]
fn empty_fields_are_as_good_as_absent() {
    insta::assert_snapshot!(told_after(&[
        ("    replicas: 3", "    replicas:"),
        ("gateway:\n    replicas: 3", "gateway:"),
        ("          policies: [slow, checkout]", "          policies:"),
    ]));
}

#[test]
fn what_a_cluster_returns_is_a_manifest() {
    insta::assert_snapshot!(told_after(&[
        ("  name: shop", "  name: shop\n  uid: 1b2c\n  managedFields: [{manager: kubectl}]"),
        ("  name: shop", "  name: shop\n  annotations: {example.com/owner: shop}"),
        ("  name: shop", "  name: shop\n  annotations: {example.com/owner: 7}"),
        ("  name: shop", "  name: shop\n  labels: {team: shop, tier: [1]}"),
    ]));
}

#[test]
fn static_gateways_resolve() {
    let gateways =
        "routing: {resolver: {type: Static, static: {endpoints: [gw-0:4317, '[::1]:4317']}}}";
    let external = format!("  {gateways}\n  gateway:\n    type: External");
    let pipeline = validate(&edited("  gateway:", &external)).unwrap();
    let expected = ["gw-0:4317", "[::1]:4317"].map(str::to_owned).to_vec();
    assert_eq!(pipeline.resolver, Resolver::Static(expected));
}

#[test]
fn one_file_holds_one_pipeline() {
    let other = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    assert_eq!(told(&format!("{other}---\n{SHOP}\n---\n")), "");
    insta::assert_snapshot!(
        [
            format!("{SHOP}\n---\n{MINIMAL}"),
            format!("{other}---\n{other}"),
            other.to_owned(),
            String::new(),
            "---\n".to_owned(),
            "# nothing\n".to_owned(),
            format!("{SHOP}\n---\n{{"),
        ]
        .map(|text| told(&text))
        .join("\n")
    );
}

#[test]
fn text_that_is_not_yaml_is_told_with_its_line() {
    let texts = [
        "spec:\n  sampling: {\n",
        "spec:\n\tsampling: {}\n",
        "spec: 1\nspec: 2\n",
        "just text",
        "- a\n- b",
        "kind: *nothing",
        "a: &a [*a]",
        "\0",
    ];
    let told_of = |text: &str| format!("{text:?}\n{}", told(text));
    insta::assert_snapshot!(texts.map(told_of).join("\n\n"));
    assert!(told(&"[".repeat(100_000)).contains("is not valid YAML"));
    assert!(told(&" ".repeat(3 << 20)).starts_with("is 3145728 bytes long"));
}
