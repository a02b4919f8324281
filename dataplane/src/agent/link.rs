//! One gateway as an agent sees it: a queue bounded in bytes, a connection, and frames under way.
//!
//! A link is owned by one task. Others send it sealed batches and read its gauges. It encodes and
//! compresses a batch as soon as it gets it, since a compressed frame waits in a fifth of the memory; what
//! is sent is exactly what waited. When its gateway leaves the ring, everything that is not acknowledged
//! goes back to the splitter and from there to the next choice of each key. A link whose candidate is gone
//! ends when nothing is left in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus_client::metrics::histogram::Histogram;
use prost::Message as _;
use ringtail_crds::logs::Signal;
use ringtail_engine::Millis;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::core::Core;
use super::frame::{Encoder, Frame};
use super::keeper::News;
use super::splitter::{LinkIndex, Sealed};
use crate::ledger::Dropped;
use crate::metrics::latency_histogram;
use crate::pause;
use crate::peer::{DeliverRequest, Dialect, Origin, State};
use crate::transport::{Backoff, CallError, Client, Code, Method};

/// Frames under way to one gateway at a time. Four frames of 1 MiB cover a round trip of 40 ms at 100 MB/s.
const IN_FLIGHT_MAX: usize = 4;
/// A gateway that does not answer a frame in this time is asked again: it may have stored it, and drops
/// duplicates.
const ANSWER_WITHIN: Duration = Duration::from_millis(2500);
/// First and longest pause after a failure.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often frames of a gateway that left the ring look for a new one while none takes spans.
const REROUTE_EVERY: Duration = Duration::from_millis(250);

/// The shared face of a link.
#[derive(Debug)]
pub struct Link {
    /// Its position in the agent's list.
    pub index: LinkIndex,
    /// `host:port`.
    pub endpoint: String,
    /// Whether its gateway is a member of the published view.
    pub member: AtomicBool,
    /// Whether its candidate is gone for good: nothing is queued any more.
    pub retired: AtomicBool,
    /// Wakes the task when one of the two has changed.
    pub changed: Notify,
    /// Bytes in its queue and under way.
    pub queued_bytes: AtomicU64,
    /// Spans in its queue and under way.
    pub held_spans: AtomicU64,
    /// Batches that were queued, and those of them that the task has seen.
    pub queued: AtomicU64,
    /// See `queued`.
    pub seen: AtomicU64,
    /// When the oldest span came that the task has and that is not acknowledged; the far future for none.
    pub oldest: AtomicU64,
    /// Requests that failed, each of which is tried again or rerouted.
    pub failures: AtomicU64,
    /// Milliseconds until answers came.
    pub latency_ms: Histogram,
    /// Answered requests.
    pub answers: AtomicU64,
    /// Bytes sent, as they went out.
    pub sent_bytes: AtomicU64,
    batches: mpsc::UnboundedSender<Sealed>,
}

struct Outcome {
    frame: Frame,
    result: Result<Bytes, CallError>,
    took: Duration,
}

/// The task behind a link.
pub struct Sender {
    link: Arc<Link>,
    core: Arc<Core>,
    client: Arc<Client>,
    dialect: watch::Receiver<Dialect>,
    batches: mpsc::UnboundedReceiver<Sealed>,
    pending: VecDeque<Frame>,
    in_flight: JoinSet<Outcome>,
    /// When the first spans of the frames under way came.
    under_way: Vec<Instant>,
    backoff: Backoff,
    resume_at: Option<tokio::time::Instant>,
}

// === impl Link ===

impl Link {
    /// A link to `endpoint` and the queue that its task reads.
    ///
    /// The channel has no bound of its own: [`Core`] admits a request only while the bytes in all queues,
    /// this one included, are within their budget.
    pub fn new(index: LinkIndex, endpoint: String) -> (Self, mpsc::UnboundedReceiver<Sealed>) {
        let (batches, queue) = mpsc::unbounded_channel();
        let link = Self {
            index,
            endpoint,
            member: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            changed: Notify::new(),
            queued_bytes: AtomicU64::new(0),
            held_spans: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            oldest: AtomicU64::new(Millis::MAX),
            failures: AtomicU64::new(0),
            latency_ms: latency_histogram(),
            answers: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            batches,
        };
        (link, queue)
    }

    /// Queues a batch; false when the link has ended.
    pub fn push(&self, sealed: Sealed) -> bool {
        let (bytes, spans) = (sealed.batch.held_bytes() as u64, u64::from(sealed.batch.spans()));
        self.queued_bytes.fetch_add(bytes, Relaxed);
        self.held_spans.fetch_add(spans, Relaxed);
        self.queued.fetch_add(1, SeqCst);
        let taken = self.batches.send(sealed).is_ok();
        if !taken {
            self.queued.fetch_sub(1, SeqCst);
            self.queued_bytes.fetch_sub(bytes, Relaxed);
            self.held_spans.fetch_sub(spans, Relaxed);
        }
        taken
    }
}

// === impl Sender ===

impl Sender {
    /// The task for `link`, sending through `client` in whatever dialect the membership task finds out.
    pub fn new(
        link: Arc<Link>,
        core: Arc<Core>,
        client: Arc<Client>,
        dialect: watch::Receiver<Dialect>,
        batches: mpsc::UnboundedReceiver<Sealed>,
    ) -> Self {
        Self {
            link,
            core,
            client,
            dialect,
            batches,
            pending: VecDeque::new(),
            in_flight: JoinSet::new(),
            under_way: Vec::new(),
            backoff: Backoff::new(PAUSE_FIRST, PAUSE_MAX),
            resume_at: None,
        }
    }

    /// Runs until its candidate is gone and nothing is left, or until the task is aborted; what is left then
    /// is counted by the caller from the link's gauges.
    pub async fn run(mut self) {
        loop {
            self.fill_window();
            self.publish_oldest();
            if self.is_done() {
                return;
            }
            let resume_at = self.resume_at;
            tokio::select! {
                biased;
                Some(done) = self.in_flight.join_next(), if !self.in_flight.is_empty() => {
                    if let Ok(outcome) = done {
                        self.settle(outcome);
                    }
                }
                batch = self.batches.recv() => match batch {
                    Some(sealed) => self.enqueue(sealed),
                    None => return,
                },
                () = pause::until(resume_at) => self.resume_at = None,
                () = self.link.changed.notified() => {}
                () = tokio::time::sleep(REROUTE_EVERY), if self.stranded() => self.reroute_pending(),
            }
        }
    }

    /// Whether nothing is left and nothing can come; the agent then knows the link no more.
    fn is_done(&self) -> bool {
        self.link.retired.load(Relaxed)
            && self.pending.is_empty()
            && self.in_flight.is_empty()
            && self.core.forget_link(&self.link)
    }

    /// Whether frames wait for a gateway that is no longer in the ring.
    fn stranded(&self) -> bool {
        !self.pending.is_empty() && !self.link.member.load(Relaxed)
    }

    /// Says how old the oldest is of what is not acknowledged.
    fn publish_oldest(&self) {
        let pending = self.pending.iter().map(|frame| frame.born);
        let oldest = pending.chain(self.under_way.iter().copied()).min();
        self.link.oldest.store(oldest.map_or(Millis::MAX, |born| self.core.at(born)), SeqCst);
    }

    fn enqueue(&mut self, sealed: Sealed) {
        let mut batch = sealed.batch;
        let was = batch.held_bytes() as u64;
        let encoder = Encoder {
            dialect: *self.dialect.borrow(),
            encoding: self.core.hop_encoding,
            buffers: &self.core.buffers,
        };
        let mut frame = encoder.encode(&mut batch, sealed.traces, sealed.born);
        frame.counted = sealed.counted;
        self.link.queued_bytes.fetch_add(frame.held, Relaxed);
        self.link.queued_bytes.fetch_sub(was, Relaxed);
        self.core.recycle(batch);
        self.pending.push_back(frame);
        // In this order: what is seen is among the pending when somebody looks.
        self.publish_oldest();
        self.link.seen.fetch_add(1, SeqCst);
    }

    fn fill_window(&mut self) {
        if !self.link.member.load(Relaxed) || self.resume_at.is_some() {
            return;
        }
        while self.in_flight.len() < IN_FLIGHT_MAX {
            let Some(frame) = self.pending.pop_front() else { return };
            if frame.dialect != *self.dialect.borrow() {
                self.reroute(frame);
                continue;
            }
            self.send(frame);
        }
    }

    fn send(&mut self, frame: Frame) {
        let client = Arc::clone(&self.client);
        self.under_way.push(frame.born);
        let (pieces, signal) = (frame.message(&self.head(&frame)), self.core.signal);
        self.in_flight.spawn(async move {
            let started = Instant::now();
            let method = match frame.dialect {
                Dialect::Ringtail => Method::Deliver,
                Dialect::Otlp if signal == Signal::Logs => Method::ExportLogs,
                Dialect::Otlp => Method::ExportTraces,
            };
            let none = http::HeaderMap::new();
            let result = client.call(method, pieces, frame.encoding, &none, ANSWER_WITHIN).await;
            Outcome { frame, result, took: started.elapsed() }
        });
    }

    /// What a gateway of ours is to know beside the spans.
    fn head(&self, frame: &Frame) -> Vec<u8> {
        if frame.dialect != Dialect::Ringtail {
            return Vec::new();
        }
        let origin = if self.core.keeps() { Origin::Agent } else { Origin::Client };
        let head = DeliverRequest {
            from: Some(self.core.identity.member(State::Serving)),
            digest: self.core.digest(),
            origin: origin.into(),
            age: u64::try_from(frame.born.elapsed().as_millis()).unwrap_or(0),
            wants_outcomes: self.core.keeps(),
            counted: frame.counted,
            ..DeliverRequest::default()
        };
        head.encode_to_vec()
    }

    fn settle(&mut self, outcome: Outcome) {
        let Outcome { mut frame, result, took } = outcome;
        if let Some(place) = self.under_way.iter().position(|born| *born == frame.born) {
            self.under_way.swap_remove(place);
        }
        match result {
            Ok(answer) => {
                self.backoff.succeed();
                self.link.sent_bytes.fetch_add(frame.len() as u64, Relaxed);
                self.link.answers.fetch_add(1, Relaxed);
                self.link.latency_ms.observe(took.as_secs_f64() * 1e3);
                self.core.counters.out.fetch_add(frame.spans, Relaxed);
                self.forget(&frame);
                if frame.dialect == Dialect::Ringtail {
                    self.core.keep(|| News::Delivered(Box::new(frame), answer));
                }
            }
            Err(error) if error.is_retryable() || is_early(&error, self.core.signal) => {
                self.link.failures.fetch_add(1, Relaxed);
                let pause =
                    error.retry_after().unwrap_or_else(|| self.backoff.fail(fastrand::f64()));
                tracing::debug!(endpoint = %self.link.endpoint, %error, ?pause, "deliver again");
                self.resume_at = Some(tokio::time::Instant::now() + pause);
                frame.counted |= may_have_counted(&error, self.core.keeps());
                self.pending.push_front(frame);
            }
            Err(error) => {
                self.link.failures.fetch_add(1, Relaxed);
                let what = self.core.signal.items();
                tracing::warn!(endpoint = %self.link.endpoint, %error, spans = frame.spans,
                    "the gateway refused {what} for good; they are dropped");
                self.core.counters.dropped.add(Dropped::RefusedForGood, frame.spans);
                self.forget(&frame);
            }
        }
    }

    fn forget(&self, frame: &Frame) {
        self.link.queued_bytes.fetch_sub(frame.held, Relaxed);
        self.link.held_spans.fetch_sub(frame.spans, Relaxed);
        self.core.room_freed();
    }

    fn reroute_pending(&mut self) {
        if !self.core.has_members() {
            return;
        }
        for frame in std::mem::take(&mut self.pending) {
            self.reroute(frame);
        }
    }

    /// Splits a frame anew by the present view. Nothing is lost when no gateway takes it: it comes back here.
    fn reroute(&mut self, frame: Frame) {
        let Some(spans) = frame.open() else {
            // A frame that we wrote ourselves opens again; this is for a bug, which must not go uncounted.
            self.core.counters.dropped.add(Dropped::RefusedForGood, frame.spans);
            self.forget(&frame);
            return;
        };
        if self.core.reroute(&spans, frame.born, frame.counted) {
            self.forget(&frame);
        } else {
            self.pending.push_back(frame);
        }
    }
}

/// Whether a gateway takes no log records yet: agents and gateways learn one after the other that a pipeline
/// has them. What waits for it meanwhile is bounded, as for one that does not answer.
fn is_early(error: &CallError, signal: Signal) -> bool {
    let unserved = matches!(error, CallError::Status { code: Code::Unimplemented, .. });
    unserved && signal == Signal::Logs
}

/// Whether a gateway may have counted spans that it did not say it took. Rather a span that no span metrics
/// have than one that two have. `told`: it names what became of single traces.
fn may_have_counted(error: &CallError, told: bool) -> bool {
    match error {
        CallError::Connect(_) => false,
        // Who names outcomes refuses all or nothing.
        CallError::Status { code: Code::Unavailable | Code::ResourceExhausted, .. } => !told,
        CallError::Transport(_)
        | CallError::Timeout(_)
        | CallError::Status { .. }
        | CallError::Http { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_takes_no_records_yet_is_waited_for() {
        let status = |code| CallError::Status { code, message: String::new(), retry_after: None };
        assert!(is_early(&status(Code::Unimplemented), Signal::Logs));
        assert!(!is_early(&status(Code::Unimplemented), Signal::Traces));
        assert!(!is_early(&status(Code::InvalidArgument), Signal::Logs));
    }

    #[test]
    fn only_what_surely_was_not_counted_is_counted_elsewhere() {
        let status = |code| CallError::Status { code, message: String::new(), retry_after: None };
        let cases = [
            (CallError::Timeout(ANSWER_WITHIN), true, true),
            (CallError::Transport("broken".to_owned()), true, true),
            (status(Code::Unavailable), true, false),
            (status(Code::Unavailable), false, true),
            (status(Code::ResourceExhausted), true, false),
            (status(Code::Cancelled), true, true),
            (status(Code::DeadlineExceeded), true, true),
        ];
        for (error, told, expected) in cases {
            assert_eq!(may_have_counted(&error, told), expected, "{error:?} {told}");
        }
    }
}
