//! The demo's backend: takes OTLP/gRPC, and keeps what arrived by trace.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span as WireSpan};
use prost::Message;
use ringtail_engine::facts::TraceFacts;
use ringtail_engine::policy::{Program, Verdict};
use ringtail_engine::scan::{self, Group, Headers, ScanLimits, TraceId, Visit};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::DemoError;
use crate::transport::{
    Admission, Call, Handler, OVERLOAD_PAUSE, Protocol, Refusal, Reply, ServerLimits, serve,
};

/// Requests that wait for the writer; more make the gateways wait, as a real backend would.
const REQUESTS_MAX: usize = 64;
/// Bytes of requests that may be in memory: each is a few hundred KiB at most, this is 64 of one MiB.
const RECEIVE_BYTES: u64 = 64 << 20;
/// Traces of the shop are six deep; a span that is its own parent would be drawn for ever.
const TREE_DEPTH_MAX: usize = 32;

/// A running backend.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    writer: JoinHandle<()>,
    arrivals: Arc<Mutex<Arrivals>>,
}

/// What arrived.
#[derive(Debug)]
pub struct Arrivals {
    /// By trace ID.
    pub traces: HashMap<[u8; 16], Arrived>,
    /// Spans without a valid trace ID, or that could not be read.
    pub unreadable: u64,
    program: Program,
}

/// A trace that arrived.
#[derive(Debug)]
pub struct Arrived {
    /// Its spans, in the order of their arrival.
    pub spans: Vec<Span>,
    /// When the first of them came.
    pub since: Instant,
    facts: TraceFacts,
}

/// What is remembered of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its ID.
    pub id: Vec<u8>,
    /// The ID of its parent; empty for a root.
    pub parent: Vec<u8>,
    /// `service.name` of its resource.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Start, in nanoseconds since 1970.
    pub start_ns: u64,
    /// End, in nanoseconds since 1970.
    pub end_ns: u64,
    /// The message of its error status.
    pub error: Option<String>,
}

#[derive(Clone, Debug)]
struct Intake(mpsc::Sender<Call>);

// === impl Sink ===

impl Sink {
    /// Listens on any port of loopback.
    pub async fn open(program: Program) -> Result<Self, DemoError> {
        let (stop, stopping) = watch::channel(false);
        let (intake, requests) = mpsc::channel(REQUESTS_MAX);
        let address = listen(Protocol::Grpc, Intake(intake), stopping).await?;
        let arrivals = Arc::new(Mutex::new(Arrivals::new(program)));
        let writer = tokio::spawn(write_down(Arc::clone(&arrivals), requests));
        Ok(Self { address, stop, writer, arrivals })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes nothing more, and tells what arrived.
    pub async fn close(self) -> Option<Arrivals> {
        self.stop.send_replace(true);
        self.writer.await.ok()?;
        Arc::into_inner(self.arrivals)?.into_inner().ok()
    }

    /// What has arrived so far.
    pub fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(
    protocol: Protocol,
    intake: Intake,
    stopping: watch::Receiver<bool>,
) -> Result<SocketAddr, DemoError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(DemoError::Listen)?;
    let address = listener.local_addr().map_err(DemoError::Listen)?;
    let (admission, limits) = (Admission::new(RECEIVE_BYTES), ServerLimits::default());
    tokio::spawn(serve(listener, protocol, limits, admission, intake, stopping));
    Ok(address)
}

async fn write_down(arrivals: Arc<Mutex<Arrivals>>, mut requests: mpsc::Receiver<Call>) {
    // Ends when the server has dropped its handlers.
    while let Some(request) = requests.recv().await {
        arrivals.lock().unwrap_or_else(PoisonError::into_inner).add(&request.message);
    }
}

// === impl Intake ===

impl Handler for Intake {
    async fn handle(&self, call: Call) -> Result<Reply, Refusal> {
        let over = |_| Refusal::Unavailable {
            message: "the demo is over".to_owned(),
            retry_after: OVERLOAD_PAUSE,
        };
        self.0.send(call).await.map_err(over)?;
        Ok(Reply::default())
    }
}

// === impl Arrivals ===

impl Arrivals {
    /// Nothing yet; `program` will say why a trace was kept.
    pub fn new(program: Program) -> Self {
        Self { traces: HashMap::new(), unreadable: 0, program }
    }

    /// How many spans arrived.
    pub fn spans(&self) -> u64 {
        self.traces.values().map(|trace| trace.spans.len() as u64).sum::<u64>() + self.unreadable
    }

    /// What the policies say about a trace as it arrived.
    pub fn verdict(&self, trace: &Arrived) -> Verdict {
        self.program.decide(&trace.facts)
    }

    /// The names of the policies that verdicts number.
    pub fn policies(&self) -> &[String] {
        self.program.names()
    }

    /// Takes the spans of one request.
    pub fn add(&mut self, request: &[u8]) {
        let mut reader = SpanReader { arrivals: self, service: String::new(), resource_bits: 0 };
        let shape = scan::check(request, &ScanLimits::default());
        if shape.and_then(|shape| scan::walk(request, &shape, &mut reader)).is_err() {
            self.unreadable += 1;
        }
    }
}

/// Reads the spans of one request.
struct SpanReader<'a> {
    arrivals: &'a mut Arrivals,
    service: String,
    resource_bits: u64,
}

impl Visit for SpanReader<'_> {
    fn group(&mut self, group: &Group<'_>) {
        self.resource_bits = self.arrivals.program.resource_bits(&group.resource);
        self.service = service_name(&group.resource).unwrap_or_default();
    }

    fn span(&mut self, group: &Group<'_>, id: &TraceId, span: &[u8]) {
        let Ok(wire) = WireSpan::decode(span) else {
            self.arrivals.unreadable += 1;
            return;
        };
        let facts = self.arrivals.program.span_facts(span);
        let empty = || {
            let (since, facts) = (Instant::now(), TraceFacts::new(*id));
            Arrived { spans: Vec::new(), since, facts }
        };
        let trace = self.arrivals.traces.entry(*id).or_insert_with(empty);
        trace.facts.add(&facts, self.resource_bits, span.len() as u64);
        trace.facts.bits |= self.arrivals.program.ask(group, span, trace.facts.bits).bits;
        trace.spans.push(Span::of(wire, self.service.clone()));
    }

    fn invalid_span(&mut self, _: &[u8]) {
        self.arrivals.unreadable += 1;
    }
}

fn service_name(resource: &Headers<'_>) -> Option<String> {
    let bytes = resource.bytes();
    let attributes = ResourceSpans::decode(bytes).ok()?.resource?.attributes;
    let name = attributes.into_iter().find(|attribute| attribute.key == "service.name")?;
    match name.value?.value? {
        Value::StringValue(name) => Some(name),
        _ => None,
    }
}

// === impl Span ===

impl Span {
    fn of(wire: WireSpan, service: String) -> Self {
        const ERROR: i32 = 2;
        let error = wire.status.filter(|status| status.code == ERROR).map(|status| status.message);
        Self {
            id: wire.span_id,
            parent: wire.parent_span_id,
            service,
            name: wire.name,
            start_ns: wire.start_time_unix_nano,
            end_ns: wire.end_time_unix_nano,
            error,
        }
    }
}

// === impl Arrived ===

impl Arrived {
    /// How many different spans there are.
    pub fn distinct(&self) -> usize {
        self.spans.iter().map(|span| &span.id).collect::<std::collections::HashSet<_>>().len()
    }

    /// The trace as an indented tree, one line a span.
    pub fn tree(&self) -> Vec<String> {
        let mut children: BTreeMap<&[u8], Vec<&Span>> = BTreeMap::new();
        for span in &self.spans {
            children.entry(&span.parent).or_default().push(span);
        }
        for siblings in children.values_mut() {
            siblings.sort_by_key(|span| span.start_ns);
        }
        let mut lines = Vec::new();
        draw(&children, &[], 0, &mut lines);
        lines
    }
}

/// Draws the spans below `parent`.
fn draw(
    children: &BTreeMap<&[u8], Vec<&Span>>,
    parent: &[u8],
    depth: usize,
    lines: &mut Vec<String>,
) {
    if depth == TREE_DEPTH_MAX {
        return;
    }
    for span in children.get(parent).into_iter().flatten() {
        let ms = span.end_ns.saturating_sub(span.start_ns) / 1_000_000;
        let name = format!("{}{} {}", "  ".repeat(depth), span.service, span.name);
        let error = span.error.as_ref().map_or_else(String::new, |why| format!("  ERROR {why}"));
        lines.push(format!("{name:<48}{ms:>6} ms{error}").trim_end().to_owned());
        draw(children, &span.id, depth + 1, lines);
    }
}

#[cfg(test)]
mod tests;
