//! The start of the pipe: sends traces whose truth is known, as fast as they are taken or at a given rate.

pub(crate) mod journal;
mod payload;
mod summary;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::channel::{Answer, Channel};
use crate::failure::{Failure, Result};
use crate::grpc::{Encoding, code};
use crate::plan::{Plan, Step};
use crate::truth::{SPANS, World};
use journal::Journal;
use payload::Payloads;
use summary::{Bytes, Summary};

/// The first pause before a refused request is sent again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Sends load with ground truth and prints a summary as one line of JSON.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to send; with several, the fragments of a trace go to different targets.
    #[arg(long = "target", required = true)]
    pub targets: Vec<SocketAddr>,
    /// Spans a request, a multiple of 8 / fragments.
    #[arg(long, default_value_t = 1000)]
    pub spans: usize,
    /// In how many requests the spans of a trace arrive: 1, 2, 4 or 8.
    #[arg(long, default_value_t = 1)]
    pub fragments: usize,
    /// How many blocks of traces lie between two fragments of a trace.
    #[arg(long, default_value_t = 1)]
    pub lag: u64,
    /// Compress with gzip at this level; the requests are made before the clock starts.
    #[arg(long)]
    pub gzip: Option<u32>,
    /// How many blocks a gzip load compresses before it repeats them.
    #[arg(long, default_value_t = 64)]
    pub distinct: u64,
    /// Connections to each target.
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Requests in flight, over all connections.
    #[arg(long, default_value_t = 16)]
    pub in_flight: usize,
    /// Spans a second; without it the loop is closed: the next request leaves when one is answered.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Begin no new traces after this many seconds.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Send this many traces, rounded up to whole requests.
    #[arg(long)]
    pub traces: Option<u64>,
    /// The number of the first trace.
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// The seed of the load.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds during which a refused request is sent again.
    #[arg(long, default_value_t = 30.0)]
    pub retry_for: f64,
}

/// All that the senders share.
struct Driver {
    plan: RefCell<Plan>,
    payloads: Payloads,
    channels: Vec<Vec<Channel>>,
    summary: RefCell<Summary>,
    started: Instant,
    /// When new traces end.
    closing: Option<Instant>,
    /// Between two requests of a paced load.
    interval: Option<Duration>,
    retry_for: Duration,
    sent: Cell<u64>,
    journal: Option<Arc<Journal>>,
}

/// Sends the load and returns its summary.
pub async fn run(options: Options) -> Result<Value> {
    if options.seconds.is_none() && options.traces.is_none() {
        return Err(Failure::new("without --seconds or --traces the load would never end"));
    }
    let world = World::new(options.seed);
    send(options, world, None).await
}

/// Sends the load of a world; a journal is told what was taken, and may end the load.
pub(crate) async fn send(
    options: Options,
    world: World,
    journal: Option<Arc<Journal>>,
) -> Result<Value> {
    let driver = Rc::new(Driver::new(&options, world, journal)?);
    let senders: Vec<_> = (0..options.in_flight.max(1))
        .map(|_| tokio::task::spawn_local(Rc::clone(&driver).send_all()))
        .collect();
    for sender in senders {
        sender.await.map_err(|error| Failure::new(format!("a sender stopped: {error}")))?;
    }
    let traces = driver.plan.borrow().blocks() * driver.payloads.traces() as u64;
    let elapsed = driver.started.elapsed();
    Ok(driver.summary.borrow().report(options.first..options.first + traces, elapsed))
}

// === impl Driver ===

impl Driver {
    fn new(options: &Options, world: World, journal: Option<Arc<Journal>>) -> Result<Self> {
        let traces = traces_per_block(options)?;
        let blocks = options.traces.map_or(u64::MAX, |count| count.div_ceil(traces as u64));
        let mut payloads = Payloads::new(world, options.first, traces, options.fragments)?;
        if let Some(level) = options.gzip {
            payloads.compress(level, options.distinct.min(blocks))?;
        }
        // Everything that takes time is done: the clock starts.
        let started = Instant::now();
        let interval =
            options.rate.map(|rate| Duration::from_secs_f64(options.spans as f64 / rate));
        let targets = options.targets.iter();
        let channels = targets
            .map(|target| (0..options.connections.max(1)).map(|_| Channel::new(*target)).collect());
        Ok(Self {
            plan: Plan::new(options.fragments, options.lag, options.targets.len(), blocks).into(),
            payloads,
            channels: channels.collect::<Result<_>>()?,
            summary: RefCell::default(),
            started,
            closing: options.seconds.map(|seconds| started + Duration::from_secs_f64(seconds)),
            interval,
            retry_for: Duration::from_secs_f64(options.retry_for),
            sent: Cell::new(0),
            journal,
        })
    }

    async fn send_all(self: Rc<Self>) {
        while let Some((step, number)) = self.next().await {
            self.send(step, number).await;
        }
    }

    /// The next step and its number, when it is due.
    async fn next(&self) -> Option<(Step, u64)> {
        let closed = self.journal.as_ref().is_some_and(|journal| journal.is_closed());
        if closed || self.closing.is_some_and(|closing| Instant::now() >= closing) {
            self.plan.borrow_mut().close();
        }
        let step = self.plan.borrow_mut().next()?;
        let place = self.plan.borrow().place(&step);
        let number = self.sent.replace(self.sent.get() + 1);
        if let Some(interval) = self.interval {
            let due = self.started + interval.mul_f64(place as f64);
            self.summary.borrow_mut().note_lateness(due.elapsed());
            tokio::time::sleep_until(due).await;
        }
        Some((step, number))
    }

    /// Sends one request until it is taken, refused for good, or too old.
    async fn send(&self, step: Step, number: u64) {
        let channels = &self.channels[step.target];
        let channel = &channels[number as usize % channels.len()];
        let message = self.payloads.message(step);
        let bytes = Bytes { wire: message.len(), payload: self.payloads.payload_len(step) };
        let deadline = Instant::now() + self.retry_for;
        let mut pause = PAUSE_MIN;
        loop {
            let answer = channel.export(message.clone(), self.payloads.encoding()).await;
            if answer.code == code::OK {
                self.summary.borrow_mut().note_taken(self.payloads.spans(), &bytes, &answer);
                if let Some(journal) = &self.journal {
                    journal.note(step);
                }
                break;
            }
            let wait = answer.retry_after.unwrap_or(pause).mul_f64(0.75 + fastrand::f64() / 2.0);
            let again = retryable(&answer) && Instant::now() + wait < deadline;
            self.summary.borrow_mut().note_refused(self.payloads.spans(), &answer, again);
            if !again {
                break;
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.payloads.recycle(step, message);
    }
}

/// OTLP's rule: some codes always, RESOURCE_EXHAUSTED only if the answer says when.
fn retryable(answer: &Answer) -> bool {
    code::RETRYABLE.contains(&answer.code)
        || (answer.code == code::RESOURCE_EXHAUSTED && answer.retry_after.is_some())
}

/// How many traces one request of the load touches.
fn traces_per_block(options: &Options) -> Result<usize> {
    if options.fragments == 0 || !SPANS.is_multiple_of(options.fragments) {
        return Err(Failure::new(format!("--fragments {} must divide {SPANS}", options.fragments)));
    }
    let width = SPANS / options.fragments;
    if options.spans == 0 || !options.spans.is_multiple_of(width) {
        return Err(Failure::new(format!(
            "--spans {} must be a multiple of {width}",
            options.spans
        )));
    }
    Ok(options.spans / width)
}

impl Payloads {
    /// The encoding of every message.
    fn encoding(&self) -> Encoding {
        if self.compressed() { Encoding::Gzip } else { Encoding::Identity }
    }
}

#[cfg(test)]
mod tests;
