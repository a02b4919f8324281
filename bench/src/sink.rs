//! The end of the pipe: counts what arrives, and with `--check` holds every span against the truth.

use std::cell::RefCell;
use std::io::BufRead;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use ringtail_engine::scan::{self, Group, Shape, Visit};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::check::Check;
use crate::failure::{Doing, Failure, Result};
use crate::grpc::{Encoding, code};
use crate::server::{Received, Refusal, serve};
use crate::truth::{Policies, TraceId, World};

/// What the sink can be told on its standard input, one a line; each answer is one line of JSON.
const COMMANDS: &str = "expect FIRST..END | count | report";

/// Serves OTLP/gRPC on every address until SIGTERM or Ctrl-C, then prints what arrived as one line of JSON.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to listen; may be given several times, port 0 takes a free one.
    #[arg(long = "listen", default_value = "127.0.0.1:0")]
    pub listen: Vec<SocketAddr>,
    /// Check every span against the truth of this seed's load.
    #[arg(long)]
    pub check: bool,
    /// The seed of the load.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Traces that were sent, as FIRST..END; may also be told on standard input.
    #[arg(long = "expect", value_parser = parse_range)]
    pub expect: Vec<Range<u64>>,
    /// Expect only traces with an ERROR span (and those that the next two options keep).
    #[arg(long)]
    pub errors: bool,
    /// Expect only traces slower than this many milliseconds (or kept by another option).
    #[arg(long)]
    pub slower_than_ms: Option<u64>,
    /// Expect only this percentage of trace IDs (or those kept by another option).
    #[arg(long)]
    pub percent: Option<f64>,
}

/// What one address received.
#[derive(Clone, Copy, Debug, Default)]
struct Port {
    requests: u64,
    spans: u64,
    wire_bytes: u64,
    payload_bytes: u64,
    compressed: u64,
}

struct Sink {
    addresses: Vec<SocketAddr>,
    ports: Vec<Port>,
    check: Option<Check>,
    expect: Vec<Range<u64>>,
    policies: Policies,
}

/// Runs the sink to its end.
pub async fn run(options: Options) -> Result<()> {
    let mut listeners = Vec::new();
    for address in &options.listen {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.doing(|| format!("listening on {address}"))?);
    }
    let sink = Rc::new(RefCell::new(Sink::new(&options, &listeners)?));
    println!("{}", json!({"listening": sink.borrow().addresses}));
    for (port, listener) in listeners.into_iter().enumerate() {
        let sink = Rc::clone(&sink);
        let take = move |received| sink.borrow_mut().take(port, received);
        tokio::task::spawn_local(serve(listener, Rc::new(take)));
    }
    obey(&sink).await?;
    println!("{}", sink.borrow().report());
    Ok(())
}

/// Answers commands until a signal ends the sink.
async fn obey(sink: &RefCell<Sink>) -> Result<()> {
    let installing = || "installing a signal handler".into();
    let mut terminate = signal(SignalKind::terminate()).doing(installing)?;
    let mut interrupt = signal(SignalKind::interrupt()).doing(installing)?;
    let mut commands = commands();
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            Some(command) = commands.recv() => println!("{}", sink.borrow_mut().obey(&command)),
        }
    }
}

/// The lines of standard input, read by a thread because a terminal cannot be polled.
fn commands() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

// === impl Sink ===

impl Sink {
    fn new(options: &Options, listeners: &[TcpListener]) -> Result<Self> {
        let addresses: std::io::Result<Vec<SocketAddr>> =
            listeners.iter().map(TcpListener::local_addr).collect();
        let world = World::new(options.seed);
        Ok(Self {
            addresses: addresses.doing(|| "asking for an address".into())?,
            ports: vec![Port::default(); listeners.len()],
            check: options.check.then(|| Check::new(world)).transpose()?,
            expect: options.expect.clone(),
            policies: options.policies(),
        })
    }

    fn take(&mut self, port: usize, received: Received) -> std::result::Result<(), Refusal> {
        let spans = self.note(&received.payload)?;
        let port = &mut self.ports[port];
        port.requests += 1;
        port.spans += spans;
        port.wire_bytes += received.wire_len as u64;
        port.payload_bytes += received.payload.len() as u64;
        port.compressed += u64::from(received.encoding != Encoding::Identity);
        Ok(())
    }

    fn note(&mut self, payload: &Bytes) -> std::result::Result<u64, Refusal> {
        let mut seen = Seen { spans: 0, check: self.check.as_mut() };
        scan::walk(payload, &Shape::UNKNOWN, &mut seen)
            .map_err(|error| Refusal(code::INVALID_ARGUMENT, error.to_string()))?;
        Ok(seen.spans)
    }

    fn obey(&mut self, command: &str) -> Value {
        match command.split_once(' ') {
            None if command == "count" => self.count(),
            None if command == "report" => self.report(),
            Some(("expect", range)) => match parse_range(range) {
                Ok(range) => {
                    self.expect.push(range);
                    json!({"expect": self.expect.len()})
                }
                Err(error) => json!({"error": error.to_string()}),
            },
            _ => json!({"error": format!("the sink understands: {COMMANDS}")}),
        }
    }

    fn count(&self) -> Value {
        let total = self.ports.iter().fold(Port::default(), Port::plus);
        total.json()
    }

    fn report(&self) -> Value {
        let mut report = self.count();
        let ports = self.addresses.iter().zip(&self.ports).map(|(address, port)| {
            let mut port = port.json();
            port["address"] = json!(address);
            port
        });
        report["ports"] = ports.collect();
        let check = self.check.as_ref().map(|check| check.report(&self.expect, &self.policies));
        report["check"] = json!(check);
        report
    }
}

/// Counts the spans of one request on their way into the check.
struct Seen<'a> {
    spans: u64,
    check: Option<&'a mut Check>,
}

impl Visit for Seen<'_> {
    fn group(&mut self, _: &Group<'_>) {}

    fn span(&mut self, _: &Group<'_>, id: &TraceId, span: &[u8]) {
        self.spans += 1;
        if let Some(check) = &mut self.check {
            check.note(id, span);
        }
    }

    fn invalid_span(&mut self, _: &[u8]) {
        self.spans += 1;
        if let Some(check) = &mut self.check {
            check.note_foreign();
        }
    }
}

impl Port {
    fn plus(self, other: &Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            spans: self.spans + other.spans,
            wire_bytes: self.wire_bytes + other.wire_bytes,
            payload_bytes: self.payload_bytes + other.payload_bytes,
            compressed: self.compressed + other.compressed,
        }
    }

    fn json(&self) -> Value {
        json!({
            "requests": self.requests,
            "spans": self.spans,
            "wireBytes": self.wire_bytes,
            "payloadBytes": self.payload_bytes,
            "compressedRequests": self.compressed,
        })
    }
}

// === impl Options ===

impl Options {
    fn policies(&self) -> Policies {
        let some = self.errors || self.slower_than_ms.is_some() || self.percent.is_some();
        Policies {
            everything: !some,
            errors: self.errors,
            slower_than_ms: self.slower_than_ms,
            percent: self.percent,
        }
    }
}

fn parse_range(text: &str) -> Result<Range<u64>> {
    let wrong = || Failure::new(format!("{text:?} is not FIRST..END"));
    let (first, end) = text.trim().split_once("..").ok_or_else(wrong)?;
    let first = first.parse().map_err(|_| wrong())?;
    let end = end.parse().map_err(|_| wrong())?;
    Ok(first..end)
}
