//! A customer's way through the shop: the calls of the menu, performed in real time as spans of the SDK.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status, TraceContextExt, TraceId, Tracer};
use opentelemetry::{Context, KeyValue};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::menu::{CRAWL_MS, JOURNEYS, Kind, Step, Trouble, What};
use super::service::{ServiceName, Services};

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
    let (made, id) = enter(&services, step, trouble).await;
    Sent { id: id.to_bytes(), kind, spans: made.spans, agents: made.agents }
}

async fn enter(services: &Arc<Services>, step: &'static Step, trouble: Trouble) -> (Made, TraceId) {
    let service = ServiceName::Frontend;
    let context = start(services, service, step, step.kind_of_span(), &Context::new());
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
    let call = |step| perform(Arc::clone(services), service, step, context.clone(), trouble);
    if step.at_once {
        let calls: JoinSet<Made> = step.calls.iter().map(call).collect();
        calls.join_all().await.into_iter().for_each(|more| made.add(more));
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
    let builder =
        tracer.span_builder(step.span_name()).with_kind(kind).with_attributes(step.attributes());
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
        // Only the step that failed knows why; whoever called it says no more than that it failed.
        let why = match step.what {
            What::Outside(host) => format!("502 from {host}"),
            What::Query(system) => format!("{system}: deadlock detected"),
            What::Request(_) | What::Rpc(_) => String::new(),
        };
        span.set_status(Status::error(why));
    }
    span.end();
}

impl Services {
    fn made(&self, service: ServiceName) -> Made {
        Made { spans: 1, agents: 1 << self.agent(service), failed: false }
    }
}
