//! What policies cost: facts of a realistic span under several programs, tests of a resource, a decision.

use divan::Bencher;
use divan::counter::ItemsCount;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, Status as SpanStatus};
use prost::Message;
use ringtail_engine::facts::TraceFacts;
use ringtail_engine::policy::{Policy, Program, Role, Rule, Status, compile};
use ringtail_engine::scan::Headers;

/// Enough different spans that neither branch predictor nor cache knows them by heart: 0.5 MB.
const SPANS: usize = 1_000;

fn main() {
    let spans = spans();
    let bytes: usize = spans.iter().map(Vec::len).sum();
    println!("{} spans of {} bytes and 11 attributes", spans.len(), bytes / spans.len());
    divan::main();
}

/// The lists of policies that are measured.
#[derive(Debug, Clone, Copy)]
enum List {
    /// Errors, slow traces and a percentage: no attribute is looked at.
    Plain,
    /// Plain, one exact string and one number.
    TwoAttributes,
    /// Plain and a regular expression.
    Pattern,
    /// Thirty attribute policies of as many keys.
    Thirty,
}

const LISTS: [List; 4] = [List::Plain, List::TwoAttributes, List::Pattern, List::Thirty];

impl List {
    #[expect(
        clippy::expect_used,
        reason = "a list of this file that does not compile is a bug in it"
    )]
    fn program(self) -> Program {
        let mut rules = vec![
            Rule::StatusCode { codes: vec![Status::Error] },
            Rule::Latency { threshold_ms: 1_000, upper_threshold_ms: None },
            Rule::Probabilistic { sampling_percentage: 1.0, hash_salt: String::new() },
        ];
        match self {
            Self::Plain => {}
            Self::TwoAttributes => {
                rules.push(string("http.route", &["/checkout", "/pay/{id}"], false));
                rules.push(number("http.response.status_code", 500));
            }
            Self::Pattern => rules.push(string("url.path", &["^/v[0-9]+/checkout", "admin"], true)),
            Self::Thirty => {
                rules.extend((0..15).map(|n| string(&format!("app.option.{n}"), &["on"], false)));
                rules.extend((0..15).map(|n| number(&format!("app.count.{n:02}"), 100)));
            }
        }
        let name = |(n, rule)| Policy { name: format!("p{n}"), role: Role::Vote, rule };
        let list: Vec<Policy> = rules.into_iter().enumerate().map(name).collect();
        compile(&list).expect("the lists above compile")
    }
}

fn string(key: &str, values: &[&str], regex: bool) -> Rule {
    let values = values.iter().map(|&value| value.to_owned()).collect();
    Rule::StringAttribute { key: key.to_owned(), values, regex, invert_match: false }
}

fn number(key: &str, min: i64) -> Rule {
    let (key, min_value) = (key.to_owned(), Some(min));
    Rule::NumericAttribute { key, min_value, max_value: None, invert_match: false }
}

fn attribute(key: &str, value: Any) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn text(value: impl Into<String>) -> Any {
    Any::StringValue(value.into())
}

/// An HTTP server span as the semantic conventions ask for it.
fn span(random: &mut fastrand::Rng) -> Span {
    let start = 1_763_712_000_000_000_000 + random.u64(..1_000_000_000);
    let order = random.u32(10_000..99_999);
    let status = if random.u8(..20) == 0 { 503 } else { 200 };
    Span {
        trace_id: (0..16).map(|_| random.u8(..)).collect(),
        span_id: (0..8).map(|_| random.u8(..)).collect(),
        parent_span_id: (0..8).map(|_| random.u8(..)).collect(),
        name: "GET /orders/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + random.u64(..2_000_000_000),
        attributes: vec![
            attribute("http.request.method", text("GET")),
            attribute("http.response.status_code", Any::IntValue(status)),
            attribute("http.route", text("/orders/{id}")),
            attribute("url.path", text(format!("/v2/orders/{order}"))),
            attribute("url.scheme", text("https")),
            attribute("server.address", text("orders.shop.svc")),
            attribute("server.port", Any::IntValue(8443)),
            attribute("client.address", text(format!("10.1.{}.{}", order % 250, order % 199))),
            attribute("user_agent.original", text("okhttp/4.12.0")),
            attribute("network.protocol.version", text("2")),
            attribute("thread.id", Any::IntValue(random.i64(1..400))),
        ],
        status: (status == 503).then(|| SpanStatus { code: 2, ..SpanStatus::default() }),
        flags: 0x101,
        ..Span::default()
    }
}

fn spans() -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..SPANS).map(|_| span(&mut random).encode_to_vec()).collect()
}

#[divan::bench(args = LISTS)]
fn span_facts(bencher: Bencher<'_, '_>, list: List) {
    let (program, spans) = (list.program(), spans());
    bencher.counter(ItemsCount::new(spans.len())).bench_local(|| {
        let mut facts = TraceFacts::new([0; 16]);
        for span in &spans {
            facts.add(&program.span_facts(span), 0, span.len() as u64);
        }
        facts
    });
}

#[divan::bench(args = LISTS)]
fn resource_bits(bencher: Bencher<'_, '_>, list: List) {
    let program = list.program();
    let keys =
        ["service.name", "service.version", "host.name", "k8s.pod.name", "k8s.namespace.name"];
    let attributes =
        keys.iter().map(|key| attribute(key, text("a value of some length"))).collect();
    let resource = Some(Resource { attributes, ..Resource::default() });
    let bytes = ResourceSpans { resource, ..ResourceSpans::default() }.encode_to_vec();
    let headers = Headers::whole(&bytes);
    bencher.bench_local(|| program.resource_bits(divan::black_box(&headers)));
}

#[divan::bench(args = LISTS)]
fn decide(bencher: Bencher<'_, '_>, list: List) {
    let (program, spans) = (list.program(), spans());
    let traces: Vec<TraceFacts> = spans
        .iter()
        .enumerate()
        .map(|(number, span)| {
            let mut facts = TraceFacts::new((number as u128).to_be_bytes());
            facts.add(&program.span_facts(span), 0, span.len() as u64);
            facts
        })
        .collect();
    bencher
        .counter(ItemsCount::new(traces.len()))
        .bench_local(|| traces.iter().filter(|facts| program.decide(facts).keep).count());
}
