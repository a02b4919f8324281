//! Tests of the offline check: the examples, one mistake at a time, many at once, and random documents.

mod random;

use super::*;

const SHOP: &str = include_str!("../../../examples/shop.yaml");
const MINIMAL: &str = include_str!("../../../examples/minimal.yaml");

/// What is wrong with a text, a line a problem.
fn told(yaml: &str) -> String {
    let problems = validate(yaml).err().unwrap_or_default();
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Replaces a piece of the shop example and compares what is wrong then.
fn check(from: &str, to: &str, expected: &str) {
    assert!(SHOP.contains(from), "no {from:?} in the example");
    let told = told(&SHOP.replacen(from, to, 1));
    let unplaced: Vec<_> = told
        .lines()
        .map(|line| {
            line.split_once(": ")
                .filter(|(at, _)| at.starts_with("line "))
                .map_or(line, |(_, rest)| rest)
        })
        .collect();
    assert_eq!(
        unplaced.join("\n"),
        expected,
        "after {from:?} became {to:?}"
    );
}

#[test]
fn the_examples_are_valid() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let problems = told(&std::fs::read_to_string(&path).unwrap());
        assert!(problems.is_empty(), "{}:\n{problems}", path.display());
        count += 1;
    }
    assert!(count >= 2);
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
fn single_mistakes_are_told_alone() {
    let cases = [
        (
            "name: shop",
            "name: shop-",
            "metadata.name: must be a name of at most 46 lower-case letters, digits and '-', \
          starting with a letter and ending with a letter or digit",
        ),
        (
            "  name: shop",
            "  namespace: shop",
            "metadata.name: is required",
        ),
        (
            "kind: TracePipeline",
            "kind: TracePipelines",
            "kind: must be TracePipeline, not \"TracePipelines\"",
        ),
        (
            "kind: TracePipeline",
            "kind: ConfigMap",
            "kind: must be TracePipeline, not \"ConfigMap\"",
        ),
        ("kind: TracePipeline", "", "kind: is required"),
        (
            "v1alpha1",
            "v1",
            "apiVersion: must be ringtail.dev/v1alpha1, not \"ringtail.dev/v1\"",
        ),
        (
            "decisionWait: 30s",
            "decisionWait: 30",
            "spec.sampling.decisionWait: must be a duration such as 30s, 500ms \
          or 1m30s, not the number 30",
        ),
        (
            "decisionWait: 30s",
            "decisionWait: 999ms",
            "spec.sampling.decisionWait: must be from 1s to 1h",
        ),
        (
            "decisionWait: 30s",
            "decisionWait: 60m1ms",
            "spec.sampling.decisionWait: must be from 1s to 1h",
        ),
        (
            "timeout: 200ms",
            "timeout: 11s",
            "spec.agent.batch.timeout: must be from 1ms to 10s",
        ),
        (
            "maxBytes: 1Mi",
            "maxBytes: 1MB",
            "spec.agent.batch.maxBytes: must be a size in bytes such as 512Ki, 64Mi or \
          1Gi, without a fraction",
        ),
        (
            "maxBytes: 1Mi",
            "maxBytes: 1048576",
            "spec.agent.batch.maxBytes: must be text: write \"1048576\", with the \
          quotes",
        ),
        (
            "maxBytes: 1Mi",
            "maxBytes: 5Mi",
            "spec.agent.batch.maxBytes: must be from 1Ki to 4Mi",
        ),
        (
            "maxBytes: 1Mi",
            "maxBytes: 999999999999Ti",
            "spec.agent.batch.maxBytes: must be from 1Ki to 4Mi",
        ),
        (
            "maxSpans: 8192",
            "maxSpans: 0",
            "spec.agent.batch.maxSpans: must be from 1 to 100000, not 0",
        ),
        (
            "maxSpans: 8192",
            "max_spans: 8192",
            "spec.agent.batch.max_spans: unknown field; did you mean maxSpans?",
        ),
        (
            "replicas: 3",
            "replicas: many",
            "spec.gateway.replicas: must be a whole number, not the text \"many\"",
        ),
        (
            "replicas: 3",
            "replicas: 18446744073709551615",
            "spec.gateway.replicas: must be from 1 to 64, not 18446744073709551615",
        ),
        (
            "gateway:\n    replicas: 3",
            "gateway: 3",
            "spec.gateway: must be a map of fields, not the number 3",
        ),
        (
            "\"10\" #",
            "0.1 #",
            "spec.sampling.policies[6].probabilistic.samplingPercentage: must be quoted when it has \
          a fraction: write \"0.1\"",
        ),
        (
            "\"10\" #",
            "-1 #",
            "spec.sampling.policies[6].probabilistic.samplingPercentage: must be from 0 to 100, not \
          -1",
        ),
        (
            "\"10\" #",
            "yes #",
            "spec.sampling.policies[6].probabilistic.samplingPercentage: must be a percentage from \
          0 to 100 such as 25 or \"0.1\", without a % sign, not true",
        ),
        (
            "compression: Zstd\n    batch",
            "compression: zstd\n    batch",
            "spec.agent.compression: must be one of None, Gzip, \
          Zstd, not \"zstd\"; did you mean Zstd?",
        ),
        (
            "type: Latency",
            "type: latency",
            "spec.sampling.policies[3].type: must be one of AlwaysSample, StatusCode, \
          Latency, Probabilistic, StringAttribute, NumericAttribute, And, Or, Not, Drop, not \"latency\"; did you mean \
          Latency?",
        ),
        (
            "        type: Latency\n",
            "",
            "spec.sampling.policies[3].type: is required; from the other fields it should \
          be Latency",
        ),
        (
            "threshold: 500ms",
            "threshold_ms: 500",
            "spec.sampling.policies[3].latency.threshold: is required\n\
          spec.sampling.policies[3].latency.threshold_ms: unknown field; did you mean threshold?",
        ),
        (
            "latency:\n          threshold: 500ms",
            "threshold: 500ms",
            "spec.sampling.policies[3].latency: is required \
          when type is Latency\nspec.sampling.policies[3].threshold: unknown field here; it belongs under latency",
        ),
        (
            "name: slowCheckout",
            "name: errors",
            "spec.sampling.policies[5].name: \"errors\" is the name of entry [2] \
          already",
        ),
        (
            "[/healthz, /readyz]",
            "[/healthz, /healthz]",
            "spec.sampling.policies[1].stringAttribute.values[1]: repeats \
          entry [0]",
        ),
        (
            "[/healthz, /readyz]",
            "[/healthz, \"\"]",
            "spec.sampling.policies[1].stringAttribute.values[1]: must not be \
          empty",
        ),
        (
            "[/healthz, /readyz]",
            "[/healthz, on]",
            "spec.sampling.policies[1].stringAttribute.values[1]: must be text: \
          write \"true\", with the quotes",
        ),
        (
            "[/healthz, /readyz]",
            "/healthz",
            "spec.sampling.policies[1].stringAttribute.values: must be a list (each \
          entry begins with '- '), not the text \"/healthz\"",
        ),
        (
            "http://127.0.0.1:4417",
            "127.0.0.1:4417",
            "spec.exporters[0].otlp.endpoint: must be http://host:port without a \
          path, such as http://tempo:4317 (https is not available in this version)",
        ),
        (
            "http://127.0.0.1:4417",
            "http://tempo:65536",
            "spec.exporters[0].otlp.endpoint: must be http://host:port \
          without a path, such as http://tempo:4317 (https is not available in this version)",
        ),
        (
            "maxElapsed: 5m",
            "maxInterval: 500ms",
            "spec.exporters[0].otlp.retry.maxInterval: must not be shorter than \
          initialInterval",
        ),
        (
            "protocol: GRPC",
            "headers: [{name: te, value: trailers}]",
            "spec.exporters[0].otlp.headers[0].name: is \
          reserved: gRPC sets this header itself",
        ),
    ];
    for (from, to, expected) in cases {
        check(from, to, expected);
    }
}

#[test]
fn empty_fields_are_as_good_as_absent() {
    check("    replicas: 3", "    replicas:", "");
    check("gateway:\n    replicas: 3", "gateway:", "");
    check(
        "policies: [slow, checkout]",
        "policies:",
        "spec.sampling.policies[5].and.policies: is required",
    );
    check(
        "[/healthz, /readyz]",
        "[/healthz, ~]",
        "spec.sampling.policies[1].stringAttribute.values[1]: must be text, not \
        empty",
    );
}

#[test]
fn what_a_cluster_returns_is_a_manifest() {
    let metadata = "metadata:\n  uid: 1b2c\n  generation: 3\n  annotations: {example.com/owner: shop}\n  \
        managedFields: [{manager: kubectl}]\n  name: shop";
    check("metadata:\n  name: shop", metadata, "");
    let wrong = "metadata:\n  name: shop\n  annotations: {example.com/owner: 7}";
    let expected =
        "metadata.annotations[\"example.com/owner\"]: must be text: write \"7\", with the quotes";
    check("metadata:\n  name: shop", wrong, expected);
}

#[test]
fn one_file_holds_one_pipeline() {
    let other = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    assert_eq!(told(&format!("{other}---\n{SHOP}\n---\n")), "");
    assert_eq!(
        told(other),
        "line 2: kind: must be TracePipeline, not \"Namespace\""
    );
    let two = format!("{SHOP}\n---\n{MINIMAL}");
    assert_eq!(
        told(&two),
        "holds 2 TracePipelines, and exactly one is expected: put each into its own file"
    );
    let none = format!("{other}---\n{other}");
    assert_eq!(
        told(&none),
        "holds 2 documents, and none of them has kind TracePipeline: one is expected"
    );
    for empty in ["", "---\n", "# nothing\n"] {
        assert_eq!(told(empty), "is empty, and one TracePipeline is expected");
    }
}

#[test]
fn text_that_is_not_yaml_is_told_with_its_line() {
    insta::assert_snapshot!(
        [
            "spec:\n  sampling: {\n",
            "spec:\n\tsampling: {}\n",
            "spec: 1\nspec: 2\n",
            "just text",
            "- a\n- b",
            "kind: *nothing",
            "a: &a [*a]",
            "\0",
        ]
        .map(|text| format!("{text:?}\n{}", told(text)))
        .join("\n\n")
    );
    assert!(told(&"[".repeat(100_000)).contains("is not valid YAML"));
    assert!(told(&" ".repeat(3 << 20)).starts_with("is 3145728 bytes long"));
}
