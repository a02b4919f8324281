//! What customers do: trees of calls between services, performed as spans of the OpenTelemetry SDK in real time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status, TraceContextExt, TraceId, Tracer};
use opentelemetry::{Context, KeyValue};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::service::{ServiceName, Services};

/// What a trace is to whoever reads traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Some span failed.
    Error,
    /// Some call crawled.
    Slow,
    /// All is well.
    Ordinary,
    /// A probe.
    Health,
}

/// A trace that was sent, as the shop knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its ID.
    pub id: [u8; 16],
    /// What it is.
    pub kind: Kind,
    /// How many spans it has.
    pub spans: u32,
    /// The agents that its services send to: bit n is agent n.
    pub agents: u8,
}

/// One call of a service to another, or to a store.
#[derive(Debug)]
struct Step {
    name: &'static str,
    what: What,
    /// The work before and after the calls, on average.
    work_ms: u64,
    calls: &'static [Step],
    /// Whether the calls go out together.
    at_once: bool,
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// A request from a customer; the route.
    Request(&'static str),
    /// A call to another service: a span on either side.
    Rpc(ServiceName),
    /// A query to a database or a cache of the service itself.
    Query(&'static str),
    /// A request to somebody outside.
    Outside(&'static str),
}

/// What goes wrong on the way, at the step of that name.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Nothing,
    Fails(&'static str),
    Crawls(&'static str),
}

/// How often customers do what, out of 100.
const JOURNEYS: [(u32, Kind, &Step, Trouble); 10] = [
    (30, Kind::Ordinary, &HOME, Trouble::Nothing),
    (27, Kind::Ordinary, &PRODUCT, Trouble::Nothing),
    (12, Kind::Ordinary, &ADD_TO_CART, Trouble::Nothing),
    (8, Kind::Ordinary, &CHECKOUT, Trouble::Nothing),
    (9, Kind::Health, &HEALTH, Trouble::Nothing),
    (4, Kind::Error, &CHECKOUT, Trouble::Fails("POST /charges")),
    (3, Kind::Error, &ADD_TO_CART, Trouble::Fails("UPDATE stock")),
    (3, Kind::Slow, &CHECKOUT, Trouble::Crawls("GET /quotes")),
    (2, Kind::Slow, &HOME, Trouble::Crawls("SELECT products")),
    (2, Kind::Slow, &PRODUCT, Trouble::Crawls("HGETALL cart")),
];

/// What a step that crawls takes on top: more than the 500 ms from which the demo's manifest calls a trace slow.
const CRAWL_MS: std::ops::Range<u64> = 700..1_100;

const HEALTH: Step = request("/healthz", 1, &[]);
const HOME: Step = request(
    "/",
    4,
    &[
        rpc(
            ServiceName::Inventory,
            "ListProducts",
            3,
            &[query("postgresql", "SELECT products", 8)],
        ),
        rpc(
            ServiceName::Cart,
            "CountItems",
            1,
            &[query("redis", "HLEN cart", 1)],
        ),
    ],
)
.at_once();
const PRODUCT: Step = request(
    "/product/{id}",
    3,
    &[
        rpc(
            ServiceName::Inventory,
            "GetProduct",
            2,
            &[query("postgresql", "SELECT product", 4)],
        ),
        rpc(
            ServiceName::Cart,
            "GetCart",
            1,
            &[query("redis", "HGETALL cart", 1)],
        ),
        rpc(ServiceName::Shipping, "EstimateDelivery", 2, &[]),
    ],
)
.at_once();
const ADD_TO_CART: Step = request(
    "/cart",
    3,
    &[rpc(
        ServiceName::Cart,
        "AddItem",
        2,
        &[
            rpc(
                ServiceName::Inventory,
                "Reserve",
                2,
                &[query("postgresql", "UPDATE stock", 5)],
            ),
            query("redis", "HSET cart", 1),
        ],
    )],
);
const CHECKOUT: Step = request(
    "/checkout",
    5,
    &[rpc(ServiceName::Checkout, "PlaceOrder", 6, &ORDER)],
);
const ORDER: [Step; 6] = [
    rpc(
        ServiceName::Cart,
        "GetCart",
        1,
        &[query("redis", "HGETALL cart", 1)],
    ),
    rpc(
        ServiceName::Inventory,
        "ReserveAll",
        2,
        &[
            query("postgresql", "UPDATE stock", 5),
            query("postgresql", "UPDATE stock", 5),
            query("postgresql", "UPDATE stock", 5),
        ],
    )
    .at_once(),
    rpc(
        ServiceName::Shipping,
        "Quote",
        2,
        &[outside("carrier.example", "GET /quotes", 20)],
    ),
    rpc(
        ServiceName::Payment,
        "Charge",
        3,
        &[outside("acquirer.example", "POST /charges", 30)],
    ),
    query("postgresql", "INSERT orders", 6),
    rpc(
        ServiceName::Shipping,
        "Ship",
        2,
        &[outside("carrier.example", "POST /parcels", 15)],
    ),
];

const fn request(route: &'static str, work_ms: u64, calls: &'static [Step]) -> Step {
    Step {
        name: route,
        what: What::Request(route),
        work_ms,
        calls,
        at_once: false,
    }
}

const fn rpc(to: ServiceName, name: &'static str, work_ms: u64, calls: &'static [Step]) -> Step {
    Step {
        name,
        what: What::Rpc(to),
        work_ms,
        calls,
        at_once: false,
    }
}

const fn query(system: &'static str, name: &'static str, work_ms: u64) -> Step {
    Step {
        name,
        what: What::Query(system),
        work_ms,
        calls: &[],
        at_once: false,
    }
}

const fn outside(host: &'static str, name: &'static str, work_ms: u64) -> Step {
    Step {
        name,
        what: What::Outside(host),
        work_ms,
        calls: &[],
        at_once: false,
    }
}

// === impl Step ===

impl Step {
    const fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    fn kind_of_span(&self) -> SpanKind {
        match self.what {
            What::Request(_) => SpanKind::Server,
            What::Rpc(_) | What::Query(_) | What::Outside(_) => SpanKind::Client,
        }
    }

    fn span_name(&self) -> String {
        match self.what {
            What::Request(route @ ("/cart" | "/checkout")) => format!("POST {route}"),
            What::Request(route) => format!("GET {route}"),
            What::Rpc(to) => format!("{}/{}", to.name(), self.name),
            What::Query(_) | What::Outside(_) => self.name.to_owned(),
        }
    }

    fn attributes(&self) -> Vec<KeyValue> {
        match self.what {
            What::Request(route) => vec![
                KeyValue::new("http.route", route),
                KeyValue::new("http.request.method", "GET"),
                KeyValue::new("url.scheme", "https"),
                KeyValue::new("server.address", "shop.example"),
                KeyValue::new(
                    "client.address",
                    format!("203.0.113.{}", fastrand::u8(1..255)),
                ),
                KeyValue::new("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
                KeyValue::new("session.id", format!("{:016x}", fastrand::u64(..))),
            ],
            What::Rpc(to) => vec![
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", self.name),
                KeyValue::new("server.address", to.name()),
                KeyValue::new("server.port", 8080),
                KeyValue::new("network.transport", "tcp"),
            ],
            What::Query(system) => vec![
                KeyValue::new("db.system.name", system),
                KeyValue::new("db.query.summary", self.name),
                KeyValue::new("db.namespace", "shop"),
                KeyValue::new("server.address", format!("{system}.shop.svc")),
            ],
            What::Outside(host) => vec![
                KeyValue::new("http.request.method", "POST"),
                KeyValue::new("server.address", host),
                KeyValue::new("server.port", 443),
                KeyValue::new("url.full", format!("https://{host}{}", self.name)),
            ],
        }
    }
}

// === Performing ===

/// What a performed step adds to its trace.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    spans: u32,
    agents: u8,
    failed: bool,
}

impl Made {
    fn add(&mut self, other: Self) {
        self.spans += other.spans;
        self.agents |= other.agents;
        self.failed |= other.failed;
    }
}

/// One customer does one thing.
pub async fn wander(services: Arc<Services>) -> Sent {
    let mut dice = fastrand::u32(0..100);
    let journey = JOURNEYS.iter().find(|(weight, ..)| {
        let found = dice < *weight;
        dice = dice.saturating_sub(*weight);
        found
    });
    let (_, kind, step, trouble) = *journey.unwrap_or(&JOURNEYS[0]);
    // The ID is drawn here, because the root span that has it is made further down.
    let (made, id) = enter(&services, step, trouble).await;
    Sent {
        id: id.to_bytes(),
        kind,
        spans: made.spans,
        agents: made.agents,
    }
}

async fn enter(services: &Arc<Services>, step: &'static Step, trouble: Trouble) -> (Made, TraceId) {
    let service = ServiceName::Frontend;
    let context = start(
        services,
        service,
        step,
        step.kind_of_span(),
        &Context::new(),
    );
    let id = context.span().span_context().trace_id();
    let mut made = services.made(service);
    made.add(work(services, service, step, &context, trouble).await);
    finish(&context, step, made.failed);
    (made, id)
}

/// Performs `step`, called by `caller` under `parent`.
///
/// Boxed, since steps call steps.
fn perform(
    services: Arc<Services>,
    caller: ServiceName,
    step: &'static Step,
    parent: Context,
    trouble: Trouble,
) -> Pin<Box<dyn Future<Output = Made> + Send>> {
    Box::pin(async move {
        let client = start(&services, caller, step, step.kind_of_span(), &parent);
        let mut made = services.made(caller);
        if let What::Rpc(callee) = step.what {
            let server = start(&services, callee, step, SpanKind::Server, &client);
            made.add(services.made(callee));
            made.add(work(&services, callee, step, &server, trouble).await);
            finish(&server, step, made.failed);
        } else {
            made.add(work(&services, caller, step, &client, trouble).await);
        }
        finish(&client, step, made.failed);
        made
    })
}

/// The inside of a step: some work, its calls, and what goes wrong.
async fn work(
    services: &Arc<Services>,
    service: ServiceName,
    step: &'static Step,
    context: &Context,
    trouble: Trouble,
) -> Made {
    let mut made = Made::default();
    sleep(Duration::from_millis(fastrand::u64(0..=step.work_ms))).await;
    let call = |step| {
        perform(
            Arc::clone(services),
            service,
            step,
            context.clone(),
            trouble,
        )
    };
    if step.at_once {
        let calls: JoinSet<Made> = step.calls.iter().map(call).collect();
        calls
            .join_all()
            .await
            .into_iter()
            .for_each(|more| made.add(more));
    } else {
        for step in step.calls {
            made.add(call(step).await);
            if made.failed {
                return made;
            }
        }
    }
    match trouble {
        Trouble::Crawls(name) if name == step.name => {
            sleep(Duration::from_millis(fastrand::u64(CRAWL_MS))).await;
        }
        Trouble::Fails(name) if name == step.name => made.failed = true,
        _ => {}
    }
    made
}

fn start(
    services: &Services,
    service: ServiceName,
    step: &Step,
    kind: SpanKind,
    parent: &Context,
) -> Context {
    let tracer = services.tracer(service);
    let builder = tracer
        .span_builder(step.span_name())
        .with_kind(kind)
        .with_attributes(step.attributes());
    let span = tracer.build_with_context(builder, parent);
    parent.with_span(span)
}

fn finish(context: &Context, step: &Step, failed: bool) {
    let span = context.span();
    if let What::Request(_) = step.what {
        span.set_attribute(KeyValue::new(
            "http.response.status_code",
            if failed { 500 } else { 200 },
        ));
    }
    if failed {
        span.set_status(Status::error(format!("{} failed", step.name)));
    }
    span.end();
}

impl Services {
    fn made(&self, service: ServiceName) -> Made {
        Made {
            spans: 1,
            agents: 1 << self.agent(service),
            failed: false,
        }
    }
}

impl Kind {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Error, Self::Slow, Self::Ordinary, Self::Health];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Slow => "slow",
            Self::Ordinary => "ordinary",
            Self::Health => "health",
        }
    }
}
