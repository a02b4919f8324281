//! An exporter: a queue bounded in bytes, a few requests under way, retry with jitter, and a ledger of its
//! own.
//!
//! A slow backend fills its own queue and no other; what does not fit is dropped and counted. Permanent
//! errors are never tried again; retryable ones are, until the manifest's `retry.maxElapsed`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringtail_crds::logs::Signal;
use ringtail_crds::resolved::{Destination, Retry};
use ringtail_engine::policy::Condition;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::backend::{Answer, Backend, Body, Failure};
pub use self::config::{Config, ConfigError};
use self::disk::RecordId;
use self::meter::Meter;
pub use self::store::DiskCounters;
use self::store::Store;
use self::way::Way;
use crate::gateway::output::{Exported, Kept};
use crate::ledger::{Dropped, ExporterCounters};
use crate::pause;
use crate::seldom::Seldom;
use crate::stats::ExporterLedger;
use crate::transport::Backoff;

mod backend; //     one attempt to give a request to a backend
mod config; //      what an exporter needs to know
pub(crate) mod credentials; // headers, tokens and certificates, from files that change
mod disk; //        a queue that survives a kill
mod file; //        to a file
mod filter; //      which spans
mod json; //        OTLP/JSON
mod meter; //       how full a queue is, and whether it moves
mod print; //       to the log
mod store; //       the thread behind a queue on disk
mod way; //         of a request to the task

/// A server may ask for a longer pause than this, and gets this one: after it nobody remembers that a retry
/// is due. It is what `retry.maxInterval` may be at most.
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// What is printed or written is not tried again, so that these say little.
const LOCAL_RETRY: Retry = Retry {
    max_elapsed: Duration::from_secs(1),
    initial_interval: Duration::from_secs(1),
    max_interval: Duration::from_secs(1),
};

/// An exporter's address.
#[derive(Clone, Debug)]
pub struct ExporterHandle {
    inner: Arc<Inner>,
    way: Way,
}

/// A request on its way to the task.
#[derive(Debug)]
struct Item {
    message: Bytes,
    spans: u64,
    /// None for what an earlier process kept.
    exported: Option<Arc<Exported>>,
    /// Where it is on disk.
    record: Option<RecordId>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    /// What logs call the place.
    place: String,
    retry: Retry,
    filter: Option<Condition>,
    signal: Signal,
    backend: Backend,
    counters: ExporterCounters,
    /// What waits with the task or is under way.
    queued: Meter,
    /// What is on its way to the disk.
    transit: Meter,
    disk: DiskCounters,
}

/// One request with its history.
struct Job {
    body: Body,
    spans: u64,
    exported: Option<Arc<Exported>>,
    record: Option<RecordId>,
    /// What it is charged with: its size before compression.
    charge: u64,
    since: Instant,
}

struct Outcome {
    job: Job,
    result: Result<Answer, Failure>,
}

/// The task behind an exporter.
pub struct Exporter {
    inner: Arc<Inner>,
    queue: mpsc::UnboundedReceiver<Item>,
    store: Option<Store>,
    pending: VecDeque<Job>,
    in_flight: JoinSet<Outcome>,
    backoff: Backoff,
    resume_at: Option<tokio::time::Instant>,
    /// What of failures is in the log.
    failures: Seldom,
}

// === impl ExporterHandle ===

impl ExporterHandle {
    /// An exporter and the task that must be spawned for it. `twin` is the same exporter for another
    /// signal, if there is one. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When an address, a condition or a file cannot be used.
    pub fn new(config: &Config, twin: Option<&Self>) -> Result<(Self, Exporter), ConfigError> {
        let exporter = &config.exporter;
        let compiled = exporter.filter.as_deref().map(Condition::compile).transpose();
        let filter =
            compiled.map_err(|why| ConfigError::of(&exporter.name, &format!("filter: {why}")))?;
        let (retry, place) = match &exporter.destination {
            Destination::Otlp(otlp) => (otlp.retry, otlp.endpoint.address.clone()),
            Destination::Debug(_) => (LOCAL_RETRY, "the log".to_owned()),
            Destination::File(file) => (LOCAL_RETRY, file.path.clone()),
        };
        // With a disk half of the memory is for what is on its way there, and half for what is sent.
        let transit = if is_persistent(&exporter.destination) { config.queue_bytes / 2 } else { 0 };
        let inner = Arc::new(Inner {
            name: exporter.name.clone(),
            place,
            retry,
            filter,
            signal: config.signal,
            backend: Backend::new(config, twin.map(|twin| &twin.inner.backend))?,
            counters: ExporterCounters::default(),
            queued: Meter::new(config.queue_bytes - transit),
            transit: Meter::new(transit),
            disk: DiskCounters::default(),
        });
        let (sender, queue) = mpsc::unbounded_channel();
        let way = Way::new(config, &inner, sender)?;
        let store = if let Way::Disk(store) = &way { Some(store.clone()) } else { None };
        let task = Exporter {
            inner: Arc::clone(&inner),
            queue,
            store,
            pending: VecDeque::new(),
            in_flight: JoinSet::new(),
            backoff: Backoff::new(retry.initial_interval, retry.max_interval),
            resume_at: None,
            failures: Seldom::default(),
        };
        Ok((Self { inner, way }, task))
    }

    /// Queues what of a request this exporter is to get, or drops and counts it when the queue is full.
    pub fn push(&self, kept: Kept) {
        let counters = &self.inner.counters;
        counters.taken.fetch_add(kept.spans, Relaxed);
        let Some(condition) = &self.inner.filter else { return self.queue(kept) };
        let filtered = filter::apply(condition, kept);
        counters.dropped.add(Dropped::Filtered, filtered.left_out);
        counters.dropped.add(Dropped::FilterFailed, filtered.unanswered);
        if let Some(kept) = filtered.kept {
            self.queue(kept);
        }
    }

    /// Channels have no bounds of their own: their bytes are counted here, before anything enters.
    fn queue(&self, kept: Kept) {
        let (bytes, spans) = (kept.message.len() as u64, kept.spans);
        self.inner.counters.held.fetch_add(spans, Relaxed);
        let exported = Arc::clone(&kept.exported);
        if !self.entrance().admit(bytes, Instant::now()) {
            return self.inner.refuse(&exported, spans, Dropped::QueueFull);
        }
        if !self.way.send(kept) {
            self.entrance().leave(bytes, Instant::now());
            self.inner.refuse(&exported, spans, Dropped::Stopping);
        }
    }

    /// Where what is pushed waits first.
    fn entrance(&self) -> &Meter {
        match &self.way {
            Way::Memory(_) => &self.inner.queued,
            Way::Disk(_) => &self.inner.transit,
        }
    }

    /// So many bytes may be pushed now without being dropped; any number when that cannot be helped, because
    /// nothing leaves.
    pub fn room(&self) -> u64 {
        self.entrance().room(Instant::now())
    }

    /// Whether a request of so many bytes is not dropped now, or that cannot be helped.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.entrance().has_room(bytes, Instant::now())
    }

    /// As the manifest names it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its counters.
    pub fn counters(&self) -> &ExporterCounters {
        &self.inner.counters
    }

    /// Its line of the ledger, as it is told.
    pub fn report(&self) -> ExporterLedger {
        self.inner.counters.report(self.inner.disk.recovered.load(Relaxed))
    }

    /// Bytes in its queue, and how many fit.
    pub fn queue_size(&self) -> (u64, u64) {
        let Inner { queued, transit, .. } = &*self.inner;
        (queued.bytes() + transit.bytes(), queued.limit() + transit.limit())
    }

    /// What is told of its queue on disk, if it has one.
    pub fn disk(&self) -> Option<&DiskCounters> {
        matches!(self.way, Way::Disk(_)).then_some(&self.inner.disk)
    }

    /// How often new files of Secrets were taken into use, and how often they could not be; none without
    /// a backend to show them to.
    pub fn credentials(&self) -> Option<(u64, u64)> {
        let credentials = self.inner.backend.credentials()?;
        let renewals = &credentials.renewals;
        Some((renewals.applied.load(Relaxed), renewals.refused.load(Relaxed)))
    }

    /// Waits until nothing is held, at most until `deadline`.
    pub async fn drain(&self, deadline: tokio::time::Instant) {
        while self.inner.counters.held.load(Relaxed) > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Counts what is still held as dropped, unless it is on disk for the next process: this one ends.
    pub fn abandon(&self) {
        if let Way::Disk(store) = &self.way {
            store.flush();
        }
        let stored = self.inner.disk.spans.load(Relaxed);
        let held = self.inner.counters.held.load(Relaxed);
        let left = held.saturating_sub(stored);
        self.inner.counters.held.store(held - left, Relaxed);
        if held > left {
            tracing::warn!(
                exporter = self.name(),
                spans = held - left,
                place = self.inner.place,
                "left on disk for the next start"
            );
        }
        if left > 0 {
            tracing::error!(
                exporter = self.name(),
                spans = left,
                place = self.inner.place,
                "stopped before the backend took everything"
            );
            self.inner.counters.dropped.add(Dropped::Stopping, left);
        }
    }
}

fn is_persistent(destination: &Destination) -> bool {
    matches!(destination, Destination::Otlp(otlp) if otlp.disk_max_bytes.is_some())
}

// === impl Item ===

impl Item {
    fn of(kept: Kept, record: Option<RecordId>) -> Self {
        let Kept { message, spans, exported } = kept;
        Self { message, spans, exported: Some(exported), record }
    }
}

// === impl Inner ===

impl Inner {
    /// Drops what there is no room for.
    fn refuse(&self, exported: &Exported, spans: u64, reason: Dropped) {
        exported.fail();
        self.counters.held.fetch_sub(spans, Relaxed);
        self.counters.dropped.add(reason, spans);
    }

    fn forget(&self, spans: u64, bytes: u64) {
        self.queued.leave(bytes, Instant::now());
        self.counters.held.fetch_sub(spans, Relaxed);
    }

    /// A text of a backend, without the secrets that it repeats.
    fn mask(&self, text: &str) -> String {
        match self.backend.credentials() {
            Some(credentials) => credentials.mask(text),
            None => text.to_owned(),
        }
    }
}

// === impl Exporter ===

impl Exporter {
    /// Sends until every handle is gone and nothing is left.
    pub async fn run(self) {
        let credentials = self.inner.backend.credentials().cloned();
        let following = async {
            match credentials {
                Some(credentials) => credentials.follow().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.deliver() => {}
            () = following => {}
        }
    }

    async fn deliver(mut self) {
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
                item = self.queue.recv(), if open => match item {
                    Some(item) => self.enqueue(item),
                    None => open = false,
                },
                () = pause::until(resume_at) => self.resume_at = None,
            }
        }
    }

    fn enqueue(&mut self, item: Item) {
        self.pending.push_back(Job {
            spans: item.spans,
            exported: item.exported,
            record: item.record,
            charge: item.message.len() as u64,
            body: self.inner.backend.body(item.message),
            since: Instant::now(),
        });
    }

    fn fill_window(&mut self) {
        while self.resume_at.is_none() && self.in_flight.len() < self.inner.backend.in_flight_max()
        {
            let Some(job) = self.pending.pop_front() else { return };
            let (backend, signal) = (self.inner.backend.clone(), self.inner.signal);
            self.in_flight.spawn(async move {
                let result = backend.send(signal, job.body.clone(), job.spans).await;
                Outcome { job, result }
            });
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        let Outcome { job, result } = outcome;
        let error = match result {
            Ok(answer) => {
                self.backoff.succeed();
                return self.acknowledge(&job, answer);
            }
            Err(Failure::Write(why)) => {
                if let Some(untold) = self.failures.tells(Instant::now()) {
                    let exporter = &self.inner.name;
                    tracing::warn!(exporter, why, spans = job.spans, untold, "not written");
                }
                return self.give_up(&job, Dropped::WriteFailed);
            }
            Err(Failure::Call(error)) => error,
        };
        let untold = self.failures.tells(Instant::now());
        let (exporter, place) = (&self.inner.name, &self.inner.place);
        let what = self.inner.signal.items();
        let told = self.inner.mask(&error.to_string());
        let max_elapsed = self.inner.retry.max_elapsed;
        if !error.is_retryable() {
            if let Some(untold) = untold {
                tracing::warn!(
                    exporter,
                    place,
                    error = told,
                    spans = job.spans,
                    untold,
                    "the backend refused {what} for good; they are dropped"
                );
            }
            self.give_up(&job, Dropped::RefusedForGood);
        } else if job.since.elapsed() >= max_elapsed {
            if let Some(untold) = untold {
                tracing::warn!(
                    exporter,
                    place,
                    error = told,
                    spans = job.spans,
                    ?max_elapsed,
                    untold,
                    "the backend did not take {what} for as long as retry.maxElapsed; they are dropped"
                );
            }
            self.give_up(&job, Dropped::RetriesExhausted);
        } else {
            self.inner.counters.retries.fetch_add(1, Relaxed);
            // Never sooner than the server wants, and never as soon as the backoff says.
            let wanted = error.retry_after().unwrap_or_default().min(PAUSE_MAX);
            let pause = wanted.max(self.backoff.fail(fastrand::f64()));
            if let Some(untold) = untold {
                tracing::warn!(exporter, place, error = told, ?pause, untold, "export again later");
            }
            let resume_at = tokio::time::Instant::now() + pause;
            self.resume_at = self.resume_at.max(Some(resume_at));
            self.pending.push_front(job);
        }
    }

    fn acknowledge(&mut self, job: &Job, answer: Answer) {
        // `partial_success` is an answer, not a failure: the rejected spans are gone and must not be sent
        // again.
        let (left, reason) = answer.left.unwrap_or((0, Dropped::PartialSuccess));
        let left = left.min(job.spans);
        if left > 0
            && reason == Dropped::PartialSuccess
            && let Some(untold) = self.failures.tells(Instant::now())
        {
            let words = self.inner.mask(&answer.words);
            let exporter = &self.inner.name;
            tracing::warn!(exporter, rejected = left, words, untold, "partial success");
        }
        self.inner.counters.sent.fetch_add(job.spans - left, Relaxed);
        self.inner.counters.dropped.add(reason, left);
        self.finish(job);
    }

    fn give_up(&self, job: &Job, reason: Dropped) {
        if let Some(exported) = &job.exported {
            exported.fail();
        }
        self.inner.counters.dropped.add(reason, job.spans);
        self.finish(job);
    }

    fn finish(&self, job: &Job) {
        self.inner.forget(job.spans, job.charge);
        if let (Some(record), Some(store)) = (job.record, &self.store) {
            self.inner.disk.spans.fetch_sub(job.spans, Relaxed);
            store.done(record);
        }
    }
}
