//! Recordings of every form against policies.

use std::io::Write;

use ringtail_engine::json;
use ringtail_engine::scan::ScanLimits;
use serde_json::Value;

use super::*;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");

fn lines() -> String {
    std::fs::read_to_string(format!("{EXAMPLES}/recorded.jsonl")).unwrap()
}

fn shop() -> ValidPipeline {
    let text = std::fs::read_to_string(format!("{EXAMPLES}/shop.yaml")).unwrap();
    ringtail_crds::validate(&text).unwrap()
}

fn with_policies(policies: &str) -> ValidPipeline {
    let text = format!(
        "{{apiVersion: ringtail.dev/v1alpha1, kind: TracePipeline, metadata: {{name: t}}, spec: \
         {{exporters: [{{name: a, type: OTLP, otlp: {{endpoint: \"http://a:1\"}}}}], \
         sampling: {{policies: [{policies}]}}}}}}"
    );
    ringtail_crds::validate(&text).unwrap()
}

/// The requests of the example in protobuf.
fn wire() -> Vec<Vec<u8>> {
    let limits = ScanLimits::default();
    lines().lines().map(|line| json::traces(line.as_bytes(), &limits).unwrap().wire).collect()
}

fn recording(bytes: &[u8]) -> Result<Recording, String> {
    let mut recording = Recording::default();
    recording.add(bytes).map(|()| recording)
}

fn judged(pipeline: &ValidPipeline, recording: &Recording) -> Vec<Judged> {
    let program = policy::compile(&pipeline.policies).unwrap();
    judge::judge(&program, &pipeline.policies, 30_000, recording)
}

/// Whether each trace is kept, and by which policy.
fn said(pipeline: &ValidPipeline, recording: &Recording) -> Vec<(bool, Option<String>)> {
    let name = |place: usize| pipeline.policies[place].name.clone();
    let all = judged(pipeline, recording);
    all.iter().map(|trace| (trace.keep, trace.policy.map(name))).collect()
}

fn explained(pipeline: &ValidPipeline, output: Output, trace: Option<&str>) -> String {
    let options = ExplainOptions {
        file: PathBuf::new(),
        traces: vec![format!("{EXAMPLES}/recorded.jsonl").into()],
        trace: trace.map(str::to_owned),
        output,
    };
    explain(&options, pipeline).unwrap_or_else(|problem| problem)
}

#[test]
fn every_form_of_a_recording_says_the_same() {
    let shop = shop();
    let expected = [
        (true, Some("errors")),
        (true, Some("slow")),
        (false, Some("probes")),
        (false, None),
        (true, Some("baseline")),
    ];
    let expected: Vec<_> =
        expected.map(|(keep, policy)| (keep, policy.map(str::to_owned))).to_vec();
    let pretty: String = lines()
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            serde_json::to_string_pretty(&value).unwrap()
        })
        .collect();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let framed: Vec<u8> = wire()
        .iter()
        .flat_map(|request| {
            let length = u32::try_from(request.len()).unwrap().to_be_bytes();
            length.into_iter().chain(request.iter().copied())
        })
        .collect();
    // Messages one after the other are one message.
    let whole = wire().concat();
    let cases: [(&str, Vec<u8>); 7] = [
        ("lines", lines().into_bytes()),
        ("documents", pretty.into_bytes()),
        ("protobuf", whole.clone()),
        ("framed protobuf", framed),
        ("gzip lines", gzip(lines().as_bytes())),
        ("gzip protobuf", gzip(&whole)),
        ("zstd lines", zstd::encode_all(lines().as_bytes(), 1).unwrap()),
    ];
    for (form, bytes) in cases {
        assert_eq!(said(&shop, &recording(&bytes).unwrap()), expected, "{form}");
    }
}

#[test]
fn what_cannot_be_read_is_told_with_its_line() {
    let one = lines().lines().next().unwrap().to_owned();
    let cases = [
        (String::new(), "is empty"),
        ("[]".to_owned(), "line 1: is a list"),
        (format!("{one}\n{{\"resourceSpans\":"), "line 2: EOF"),
        (format!("{one}\n\n{{\"resourceSpans\": 3}}\n"), "line 3: not OTLP/JSON"),
        (one.replace("\"1780000000000000000\"", "\"soon\""), "line 1: a span is wrong"),
        ("\u{1}\u{2}\u{3}".to_owned(), "is neither OTLP/JSON nor protobuf"),
        ("\u{1f}\u{fffd}".to_owned(), "is neither OTLP/JSON nor protobuf"),
    ];
    for (text, expected) in cases {
        let told = recording(text.as_bytes()).unwrap_err();
        assert!(told.starts_with(expected), "{text:?}: {told}");
    }
    let told = recording(&[0x1f, 0x8b, 8, 0]).unwrap_err();
    assert!(told.starts_with("cannot be decompressed"), "{told}");
}

#[test]
fn spans_that_come_twice_count_once() {
    let twice = recording((lines() + &lines()).as_bytes()).unwrap();
    assert_eq!((twice.duplicates, twice.traces.len()), (7, 5));
    assert_eq!(twice.traces[0].spans.len(), 2);
}

#[test]
fn every_policy_says_why() {
    let text = explained(&shop(), Output::Text, None);
    for part in [
        "(POST /checkout): kept by errors\n  2 spans",
        "yes errors        StatusCode: statuses Unset, Error of Error",
        "no  slow          Latency: 120 ms; more than 500 ms",
        "yes checkout      StringAttribute (Part): http.route = /checkout at span 0000000000000001 (POST",
        "no  slowCheckout  And: slow says no, checkout says yes",
        "(GET /healthz): dropped by probes",
        "sampled away: no policy keeps it",
        "10.0000 % are kept",
        "3 of 5 traces are kept",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let id = lines().split("\"traceId\":\"").nth(2).unwrap()[..32].to_owned();
    let one: Value = serde_json::from_str(&explained(&shop(), Output::Json, Some(&id))).unwrap();
    assert_eq!(one["traces"].as_array().unwrap().len(), 1);
    let one = &one["traces"][0];
    assert_eq!((one["policy"].as_str(), one["kept"].as_bool()), (Some("slow"), Some(true)));
    assert_eq!(one["facts"]["durationMillis"], 860);
    assert_eq!(one["policies"][3]["why"], "860 ms; more than 500 ms");
    assert!(explained(&shop(), Output::Text, Some("ff")).contains("the trace ff is not recorded"));
}

#[test]
fn shadows_and_budgets_are_told() {
    let pipeline = with_policies(
        "{name: few, type: RateLimiting, rateLimiting: {spansPerSecond: 1, burstCapacity: 3}}, \
         {name: all, type: AlwaysSample, role: Shadow}",
    );
    let recorded = recording(lines().as_bytes()).unwrap();
    // Decided by the clock of the recording, within a second: three spans fit, the first trace takes two.
    let kept: Vec<bool> = said(&pipeline, &recorded).into_iter().map(|(kept, _)| kept).collect();
    assert_eq!(kept.iter().filter(|kept| **kept).count(), 2, "{kept:?}");
    assert!(kept[0], "the first decision has the whole budget");
    let text = explained(&pipeline, Output::Text, None);
    assert!(text.contains("RateLimiting: the budget had room for it"), "{text}");
    assert!(text.contains("RateLimiting: the budget had no room"), "{text}");
    assert!(text.contains("(Shadow): matches every trace; it would change the verdict"), "{text}");
}

#[test]
fn conditions_name_the_span_that_matches() {
    let pipeline = with_policies(
        "{name: bank, type: OTTLCondition, ottlCondition: {span: ['attributes[\"payment.provider\"] == \
         \"bank\"']}}, {name: others, type: StringAttribute, stringAttribute: {key: http.route, values: [/], \
         invertMatch: true}}",
    );
    let text = explained(&pipeline, Output::Text, None);
    assert!(text.contains("at span 0000000000000002 (charge)"), "{text}");
    assert!(text.contains("no  others  StringAttribute: unless http.route = / at span"), "{text}");
}

fn compared(expected: &str) -> Result<Vec<String>, String> {
    let shop = shop();
    let recorded = recording(lines().as_bytes()).unwrap();
    let expected = expected::read(expected)?;
    Ok(expected::compare(&shop.policies, &judged(&shop, &recorded), &expected))
}

#[test]
fn differences_are_told_with_their_lines() {
    let cases: [(&str, &[&str]); 6] = [
        ("traces:\n- {index: 1, keep: true, policy: errors}\n", &[]),
        ("traces:\n- {name: GET /search, keep: true}\n", &[]),
        (
            "traces:\n- {index: 2, keep: false}\n",
            &["line 2: trace", "expected to be dropped, and is kept"],
        ),
        (
            "traces:\n- {index: 1, keep: true, policy: slow}\n",
            &["kept by slow, and is kept by errors"],
        ),
        ("traces:\n- {index: 9, keep: true}\n", &["line 2: the trace number 9 is not recorded"]),
        // Both traces of the name are compared.
        ("traces:\n- {name: GET /, keep: true}\n", &["sampled away"]),
    ];
    for (text, parts) in cases {
        let told = compared(text).unwrap().join("\n");
        assert_eq!(told.is_empty(), parts.is_empty(), "{text}: {told}");
        assert!(parts.iter().all(|part| told.contains(part)), "{text}: {told}");
    }
}

#[test]
fn a_file_of_expectations_that_is_none_is_told() {
    let cases = [
        ("", "must be one document"),
        ("traces: 3", "line 1: must have a list `traces`"),
        ("traces:\n- 3", "line 2: must be a map"),
        ("traces:\n- {keep: true}", "line 2: needs a traceId, an index or a name"),
        ("traces:\n- {index: 0, keep: true}", "line 2: index must be a number from 1"),
        ("traces:\n- {index: 1}", "line 2: needs keep"),
        ("traces:\n- {index: 1, keep: true, polcy: a}", "line 2: polcy is no field"),
        ("traces: [", "is not valid YAML"),
    ];
    for (text, expected) in cases {
        let told = compared(text).unwrap_err();
        assert!(told.contains(expected), "{text:?}: {told}");
    }
}

#[test]
fn verdicts_that_were_written_are_as_expected() {
    let shop = shop();
    let directory = tempfile::tempdir().unwrap();
    let expect = directory.path().join("expected.yaml");
    let options = |write| TestOptions {
        file: PathBuf::new(),
        traces: vec![format!("{EXAMPLES}/recorded.jsonl").into()],
        expect: expect.clone(),
        write,
    };
    assert!(test(&options(false), &shop).is_err(), "there is no such file");
    assert!(test(&options(true), &shop).unwrap().passed);
    let outcome = test(&options(false), &shop).unwrap();
    assert!(outcome.passed, "{}", outcome.text);
    let other = with_policies("{name: all, type: AlwaysSample}");
    let outcome = test(&options(false), &other).unwrap();
    assert!(!outcome.passed);
    assert!(outcome.text.ends_with("5 differences in 5 expected verdicts\n"), "{}", outcome.text);
}
