//! An exporter: a queue bounded in bytes, a few requests under way, retry with jitter, and a ledger of its
//! own.
//!
//! A slow backend fills its own queue and no other; what does not fit is dropped and counted. Permanent
//! errors are never tried again; retryable ones are, until the manifest's `retry.maxElapsed`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::gateway::output::{Exported, Kept};
use crate::ledger::{Dropped, ExporterCounters};
use crate::otlp;
use crate::pause;
use crate::transport::{
    Backoff, CallError, Client, ClientLimits, Encoding, EndpointError, Method, framed, framed_as,
};

/// Requests under way to one backend.
const IN_FLIGHT_MAX: usize = 4;

/// What an exporter needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// As the manifest names it.
    pub name: String,
    /// `host:port`.
    pub endpoint: String,
    /// Compression of requests.
    pub encoding: Encoding,
    /// How long one request may take.
    pub timeout: Duration,
    /// Sent with every request.
    pub headers: HeaderMap,
    /// Bytes that may wait or be under way.
    pub queue_bytes: u64,
    /// First pause after a failure.
    pub retry_first: Duration,
    /// Longest pause.
    pub retry_max: Duration,
    /// After so long a request is given up; zero means never.
    pub retry_for: Duration,
}

/// An exporter's address.
#[derive(Clone, Debug)]
pub struct ExporterHandle {
    inner: Arc<Inner>,
    queue: mpsc::UnboundedSender<Kept>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    counters: ExporterCounters,
    queued_bytes: AtomicU64,
}

/// One request with its history.
struct Job {
    frame: Bytes,
    encoding: Encoding,
    spans: u64,
    exported: Arc<Exported>,
    /// What it is charged with: its size before compression.
    charge: u64,
    since: Instant,
}

struct Outcome {
    job: Job,
    result: Result<Bytes, CallError>,
}

/// The task behind an exporter.
pub struct Exporter {
    inner: Arc<Inner>,
    client: Arc<Client>,
    queue: mpsc::UnboundedReceiver<Kept>,
    pending: VecDeque<Job>,
    in_flight: JoinSet<Outcome>,
    backoff: Backoff,
    resume_at: Option<tokio::time::Instant>,
}

// === impl ExporterHandle ===

impl ExporterHandle {
    /// An exporter and the task that must be spawned for it.
    ///
    /// # Errors
    /// When the endpoint is not `host:port`.
    pub fn new(config: Config) -> Result<(Self, Exporter), EndpointError> {
        let (sender, queue) = mpsc::unbounded_channel();
        let limits = ClientLimits {
            backoff_first: config.retry_first,
            backoff_cap: config.retry_max,
            ..ClientLimits::default()
        };
        let client = Client::new(&config.endpoint, &limits)?;
        let backoff = Backoff::new(config.retry_first, config.retry_max);
        let inner = Arc::new(Inner {
            config,
            counters: ExporterCounters::default(),
            queued_bytes: AtomicU64::new(0),
        });
        let task = Exporter {
            inner: Arc::clone(&inner),
            client: Arc::new(client),
            queue,
            pending: VecDeque::new(),
            in_flight: JoinSet::new(),
            backoff,
            resume_at: None,
        };
        Ok((Self { inner, queue: sender }, task))
    }

    /// Queues a request, or drops and counts it when the queue is full.
    ///
    /// The channel has no bound of its own: its bytes are counted here, before anything enters.
    pub fn push(&self, kept: Kept) {
        let Inner { config, counters, queued_bytes } = &*self.inner;
        let (bytes, spans) = (kept.message.len() as u64, kept.spans);
        counters.taken.fetch_add(spans, Relaxed);
        let before = queued_bytes.fetch_add(bytes, Relaxed);
        counters.held.fetch_add(spans, Relaxed);
        // An empty queue takes a request of any size: otherwise one that is larger than the queue could
        // never leave.
        let fits = before == 0 || before + bytes <= config.queue_bytes;
        let exported = Arc::clone(&kept.exported);
        if fits && self.queue.send(kept).is_ok() {
            return;
        }
        exported.fail();
        self.inner.forget(spans, bytes);
        let reason = if fits { Dropped::Stopping } else { Dropped::QueueFull };
        counters.dropped.add(reason, spans);
    }

    /// As the manifest names it.
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    /// Its line of the ledger.
    pub fn counters(&self) -> &ExporterCounters {
        &self.inner.counters
    }

    /// Bytes in its queue, and how many fit.
    pub fn queue(&self) -> (u64, u64) {
        (self.inner.queued_bytes.load(Relaxed), self.inner.config.queue_bytes)
    }

    /// Waits until nothing is held, at most `within`; what is left then is counted as dropped.
    pub async fn drain(&self, within: Duration) {
        let deadline = tokio::time::Instant::now() + within;
        while self.inner.counters.held.load(Relaxed) > 0 {
            if tokio::time::Instant::now() >= deadline {
                self.abandon();
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn abandon(&self) {
        let left = self.inner.counters.held.swap(0, Relaxed);
        tracing::error!(exporter = self.name(), spans = left, endpoint = %self.inner.config.endpoint,
            "stopped before the backend took everything");
        self.inner.counters.dropped.add(Dropped::Stopping, left);
    }
}

impl Inner {
    fn forget(&self, spans: u64, bytes: u64) {
        self.queued_bytes.fetch_sub(bytes, Relaxed);
        self.counters.held.fetch_sub(spans, Relaxed);
    }
}

// === impl Exporter ===

impl Exporter {
    /// Sends until every handle is gone and nothing is left.
    pub async fn run(mut self) {
        let mut open = true;
        while open || !self.pending.is_empty() || !self.in_flight.is_empty() {
            self.fill_window();
            let resume_at = self.resume_at;
            tokio::select! {
                biased;
                Some(done) = self.in_flight.join_next(), if !self.in_flight.is_empty() => {
                    if let Ok(outcome) = done {
                        self.settle(outcome);
                    }
                }
                kept = self.queue.recv(), if open => match kept {
                    Some(kept) => self.enqueue(kept),
                    None => open = false,
                },
                () = pause::until(resume_at) => self.resume_at = None,
            }
        }
    }

    fn enqueue(&mut self, kept: Kept) {
        let encoding = self.inner.config.encoding;
        let (frame, encoding) = match framed_as(encoding, &kept.message) {
            Ok(frame) => (frame, encoding),
            // Compression is an economy: without it the spans still arrive.
            Err(error) => {
                tracing::warn!(exporter = %self.inner.config.name, %error, "uncompressed request");
                let plain = framed(kept.message.len(), |out| out.extend_from_slice(&kept.message));
                (plain, Encoding::Identity)
            }
        };
        self.pending.push_back(Job {
            frame,
            encoding,
            spans: kept.spans,
            exported: kept.exported,
            charge: kept.message.len() as u64,
            since: Instant::now(),
        });
    }

    fn fill_window(&mut self) {
        while self.resume_at.is_none() && self.in_flight.len() < IN_FLIGHT_MAX {
            let Some(job) = self.pending.pop_front() else { return };
            let (client, inner) = (Arc::clone(&self.client), Arc::clone(&self.inner));
            self.in_flight.spawn(async move {
                let Config { headers, timeout, .. } = &inner.config;
                let frame = job.frame.clone();
                let result =
                    client.call(Method::ExportTraces, frame, job.encoding, headers, *timeout).await;
                Outcome { job, result }
            });
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        let Outcome { job, result } = outcome;
        let Config { name, endpoint, retry_for, .. } = &self.inner.config;
        match result {
            Ok(response) => {
                self.backoff.succeed();
                self.acknowledge(&job, response);
            }
            Err(error) if !error.is_retryable() => {
                tracing::warn!(exporter = name, endpoint, %error, spans = job.spans,
                    "the backend refused spans for good; they are dropped");
                self.give_up(&job, Dropped::RefusedForGood);
            }
            Err(error) if !retry_for.is_zero() && job.since.elapsed() >= *retry_for => {
                tracing::warn!(exporter = name, endpoint, %error, spans = job.spans, ?retry_for,
                    "the backend did not take spans for as long as retry.maxElapsed; they are dropped");
                self.give_up(&job, Dropped::RetriesExhausted);
            }
            Err(error) => {
                self.inner.counters.retries.fetch_add(1, Relaxed);
                let pause =
                    error.retry_after().unwrap_or_else(|| self.backoff.fail(fastrand::f64()));
                if self.resume_at.is_none() {
                    tracing::warn!(exporter = name, endpoint, %error, ?pause, "export again later");
                }
                self.resume_at = Some(tokio::time::Instant::now() + pause);
                self.pending.push_front(job);
            }
        }
    }

    fn acknowledge(&self, job: &Job, response: Bytes) {
        // `partial_success` is an answer, not a failure: the rejected spans are gone and must not be sent
        // again.
        let mut rejected = 0;
        if let Some((spans, words)) = otlp::rejected_spans(response) {
            rejected = spans.min(job.spans);
            tracing::warn!(exporter = %self.inner.config.name, rejected, words, "partial success");
        }
        self.inner.counters.sent.fetch_add(job.spans - rejected, Relaxed);
        self.inner.counters.dropped.add(Dropped::PartialSuccess, rejected);
        self.inner.forget(job.spans, job.charge);
    }

    fn give_up(&self, job: &Job, reason: Dropped) {
        job.exported.fail();
        self.inner.counters.dropped.add(reason, job.spans);
        self.inner.forget(job.spans, job.charge);
    }
}
