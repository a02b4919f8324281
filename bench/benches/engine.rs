//! What a span costs on its way through an agent: check, walk, split over ten gateways, encode; and what
//! rewriting it costs, at an agent and before it is exported.

#![expect(
    clippy::expect_used,
    reason = "a benchmark of a request that does not parse is worth nothing"
)]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::key::KeySeed;
use ringtail_engine::policy::Filter;
use ringtail_engine::rewrite::attributes::{Action, Actions, Given, Home, Verb};
use ringtail_engine::rewrite::outgoing::Outgoing;
use ringtail_engine::rewrite::processing::{Processing, Processor};
use ringtail_engine::rewrite::redaction::{Hasher, Mask, Plan, Redaction};
use ringtail_engine::rewrite::sampling::{Chance, Mark as Told};
use ringtail_engine::ring::{Member, View};
use ringtail_engine::scan::{Group, ScanLimits, Shape, TraceId, Visit, check, walk};

const SPANS: usize = 1000;
const RESOURCES: usize = 8;
const TRACES: usize = 100;
const GATEWAYS: usize = 10;
const SEED: KeySeed = KeySeed::new([7; 16]);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let request = request();
    println!("{} bytes a span, resources included", request.len() / SPANS);
    divan::main();
}

// === the request ===

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

/// A span of about 450 bytes with 11 attributes.
fn span(id: [u8; 16], random: &mut fastrand::Rng) -> Span {
    let start = 1_790_000_000_000_000_000 + random.u64(..1_000_000_000);
    Span {
        trace_id: id.to_vec(),
        span_id: random.u64(..).to_be_bytes().to_vec(),
        parent_span_id: random.u64(..).to_be_bytes().to_vec(),
        name: "GET /api/v1/orders/{id}".into(),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + random.u64(..100_000_000),
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", "/api/v1/orders/{id}"),
            text("url.path", &format!("/api/v1/orders/{}", random.u32(..))),
            text("url.scheme", "https"),
            attribute("http.response.status_code", Value::IntValue(200)),
            text("server.address", "orders.shop.svc"),
            attribute("server.port", Value::IntValue(8443)),
            text("client.address", "10.42.17.203"),
            text("user_agent.original", "shop-frontend/2.14"),
            attribute("app.cart.items", Value::IntValue(random.i64(1..9))),
            attribute("app.cache.hit", Value::BoolValue(random.bool())),
        ],
        status: Some(Status::default()),
        flags: 0x101,
        ..Default::default()
    }
}

fn resource(index: usize) -> Resource {
    Resource {
        attributes: vec![
            text("service.name", &format!("orders-{index}")),
            text("service.version", "2.14.3"),
            text("k8s.namespace.name", "shop"),
            text("k8s.pod.name", &format!("orders-7d9c5b6f4-{index:05}")),
            text("k8s.node.name", "ip-10-42-17-9.eu-central-1.compute.internal"),
            text("telemetry.sdk.language", "rust"),
        ],
        ..Default::default()
    }
}

fn request() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let ids: Vec<[u8; 16]> = (0..TRACES).map(|_| random.u128(1..).to_be_bytes()).collect();
    let mut scope = |_| {
        let spans = (0..SPANS / RESOURCES)
            .map(|_| span(ids[random.usize(..TRACES)], &mut random))
            .collect();
        let scope = InstrumentationScope {
            name: "opentelemetry-instrumentation-http".into(),
            version: "0.33.1".into(),
            ..Default::default()
        };
        ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }
    };
    let resource_spans = (0..RESOURCES)
        .map(|index| ResourceSpans {
            resource: Some(resource(index)),
            scope_spans: vec![scope(index)],
            schema_url: "https://opentelemetry.io/schemas/1.37.0".into(),
        })
        .collect();
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn shape(request: &[u8]) -> Shape {
    check(request, &ScanLimits::default()).expect("the request is well formed")
}

// === the steps ===

#[divan::bench]
fn checked(bencher: Bencher<'_, '_>) {
    let request = request();
    bencher.counter(ItemsCount::new(SPANS)).bench_local(|| shape(black_box(&request)));
}

/// Sums something of every span, so that the walk is not optimised away.
struct Sum(u64);

impl Visit for Sum {
    fn group(&mut self, _: &Group<'_>) {}
    fn span(&mut self, _: &Group<'_>, id: &TraceId, span: &[u8]) {
        self.0 += u64::from(id[0]) + span.len() as u64;
    }
}

fn walked(bencher: Bencher<'_, '_>, shape: Shape) {
    let request = request();
    bencher.counter(ItemsCount::new(SPANS)).bench_local(|| {
        let mut sum = Sum(0);
        walk(black_box(&request), &shape, &mut sum).expect("it was checked");
        sum.0
    });
}

#[divan::bench]
fn walked_by_first_ids(bencher: Bencher<'_, '_>) {
    walked(bencher, shape(&request()));
}

#[divan::bench]
fn walked_through_all_fields(bencher: Bencher<'_, '_>) {
    walked(bencher, Shape::UNKNOWN);
}

/// Spans by the owner of their trace.
struct Split {
    view: View,
    batches: Vec<Batch>,
    groups: Vec<Option<GroupRef>>,
}

impl Split {
    fn new() -> Self {
        let member = |n| Member { id: format!("shop-gateway-{n}"), inst: 1 };
        Self {
            view: View::new((0..GATEWAYS).map(member).collect(), &SEED),
            batches: (0..GATEWAYS).map(|_| Batch::new()).collect(),
            groups: vec![None; GATEWAYS],
        }
    }

    fn split(&mut self, request: &[u8], shape: &Shape) {
        walk(request, shape, self).expect("it was checked");
    }

    fn clear(&mut self) {
        self.batches.iter_mut().for_each(Batch::clear);
    }
}

impl Visit for Split {
    fn group(&mut self, _: &Group<'_>) {
        self.groups.fill(None);
    }
    fn span(&mut self, group: &Group<'_>, id: &TraceId, span: &[u8]) {
        let owner = self.view.owner(SEED.key(id)).expect("there are members");
        let batch = &mut self.batches[owner];
        let intern = || batch.intern(&group.resource, &group.scope);
        let group = *self.groups[owner].get_or_insert_with(intern);
        batch.push(group, span);
    }
}

#[divan::bench]
fn split_over_ten(bencher: Bencher<'_, '_>) {
    let request = request();
    let shape = shape(&request);
    let mut split = Split::new();
    bencher.counter(ItemsCount::new(SPANS)).bench_local(|| {
        split.clear();
        split.split(black_box(&request), &shape);
    });
}

/// Copies a request in pieces of a span: what memory alone costs.
#[divan::bench]
fn copied(bencher: Bencher<'_, '_>) {
    let request = request();
    let mut out = Vec::with_capacity(request.len());
    bencher.counter(ItemsCount::new(SPANS)).bench_local(|| {
        out.clear();
        for piece in black_box(&request).chunks(request.len() / SPANS) {
            out.extend_from_slice(piece);
        }
        out.len()
    });
}

#[divan::bench]
fn encoded(bencher: Bencher<'_, '_>) {
    let request = request();
    let shape = shape(&request);
    let mut split = Split::new();
    split.split(&request, &shape);
    let mut out = Vec::with_capacity(2 * request.len());
    bencher.counter(ItemsCount::new(SPANS)).bench_local(|| {
        out.clear();
        split.batches.iter().for_each(|batch| batch.encode(&mut out));
        out.len()
    });
}

// === rewriting ===

/// All spans of the request in one batch, as a gateway has them when it has kept them.
fn kept() -> Batch {
    struct Gather(Batch, Option<GroupRef>);
    impl Visit for Gather {
        fn group(&mut self, _: &Group<'_>) {
            self.1 = None;
        }
        fn span(&mut self, group: &Group<'_>, _: &TraceId, span: &[u8]) {
            let Self(batch, known) = self;
            let group = *known.get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
            batch.push(group, span);
        }
    }
    let mut gather = Gather(Batch::new(), None);
    walk(&request(), &Shape::UNKNOWN, &mut gather).expect("the request is well formed");
    gather.0
}

fn outgoing(bencher: Bencher<'_, '_>, plan: Option<&Plan>, mark: &Told) {
    let kept = kept();
    let redaction =
        plan.map(|plan| Redaction::new(plan, Hasher::new(Some(b"key"))).expect("a plan"));
    let mut outgoing = Outgoing::default();
    bencher.counter(ItemsCount::new(SPANS)).bench_local(|| {
        outgoing.clear();
        outgoing.add(black_box(&kept), redaction.as_ref(), mark).expect("spans");
        outgoing.ready().spans()
    });
}

#[divan::bench]
fn kept_spans_by_keys_removed(bencher: Bencher<'_, '_>) {
    let remove = vec!["client.address".to_owned(), "url.path".to_owned()];
    outgoing(bencher, Some(&Plan { remove, ..Plan::default() }), &Told::default());
}

#[divan::bench]
fn kept_spans_redacted(bencher: Bencher<'_, '_>) {
    let mask = Mask {
        value_pattern: Some("[0-9]{13,16}".to_owned()),
        replacement: "****".to_owned(),
        ..Mask::default()
    };
    let plan = Plan {
        remove: vec!["user_agent.original".to_owned()],
        hash: vec!["client.address".to_owned()],
        masks: vec![mask],
        ..Plan::default()
    };
    outgoing(bencher, Some(&plan), &Told::default());
}

#[divan::bench]
fn kept_spans_told_why_and_how_likely(bencher: Bencher<'_, '_>) {
    let chance = Some(Chance::Hashed { least: 0xe6_6666_6666_6666, salt: 1 });
    let policy = Some("baseline".to_owned());
    outgoing(bencher, None, &Told { policy, chance, ..Told::default() });
}

fn processed(bencher: Bencher<'_, '_>, processing: &Processing) {
    let request = request();
    let shape = shape(&request);
    bencher.counter(ItemsCount::new(SPANS)).bench_local(|| {
        let mut sum = Sum(0);
        let mut processor = Processor::new(processing, &mut sum);
        walk(black_box(&request), &shape, &mut processor).expect("it was checked");
        sum.0
    });
}

#[divan::bench]
fn agent_detects(bencher: Bencher<'_, '_>) {
    let facts = [("host.name", "n"), ("k8s.node.name", "n"), ("os.type", "linux")];
    let facts = facts.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let detected = Actions::detected(&facts);
    processed(bencher, &Processing { detected, ..Processing::default() });
}

#[divan::bench]
fn agent_filters(bencher: Bencher<'_, '_>) {
    let texts = [r#"attributes["http.route"] == "/healthz""#, r#"name == "ping""#];
    let filter = Filter::new(&texts.map(str::to_owned)).expect("conditions");
    processed(bencher, &Processing { filter: Some(filter), ..Processing::default() });
}

#[divan::bench]
fn agent_changes_attributes(bencher: Bencher<'_, '_>) {
    let action = |key: &str, verb| Action { home: Home::Span, key: key.to_owned(), verb };
    let list = [
        action("team", Verb::Upsert(Given::Text("payments".to_owned()))),
        action("client.address", Verb::Delete),
        action("url.scheme", Verb::Update(Given::Text("http".to_owned()))),
    ];
    let attributes = Actions::new(&list, Hasher::default()).expect("actions");
    processed(bencher, &Processing { attributes, ..Processing::default() });
}
