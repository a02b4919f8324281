//! What a shard's thread does, turn by turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use ringtail_engine::batch::Batch;
use ringtail_engine::key::TraceKey;
use ringtail_engine::ownership::action::Action;
use ringtail_engine::ownership::message::{Agreement, Decision};
use ringtail_engine::ownership::timers::{DECISIONS_PER_MESSAGE, TICK as OWNERSHIP_TICK};
use ringtail_engine::ownership::{Due, Stand, Traces};
use ringtail_engine::policy::Program;
use ringtail_engine::rewrite::outgoing::Outgoing as Rewriter;
use ringtail_engine::rewrite::redaction::Redaction;
use ringtail_engine::shard::{Early, PolicyCount, Shard, ShardConfig, ShardStats};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::custody::Delivered;
use super::marked::Marked;
use super::parcels::Parcels;
use super::way::Elsewhere;
use super::{Ask, Gauges, Outgoing, PolicyGauge, Sampling, ShardHandle};
use crate::gateway::clock::Clock;
use crate::gateway::logs::Verdicts;
use crate::gateway::output::{Output, ROOM_EVERY};
use crate::gateway::room::Room;
use crate::gateway::span_metrics;
use crate::ledger::Counters;

/// Requests inserted before the shard looks at its deadlines again.
const INSERTS_PER_TURN: usize = 16;
/// Traces judged before the shard looks at its queue again: at about 1 µs a trace and 10 µs a kept one, some
/// milliseconds. As many are proposed in one message.
const DECISIONS_PER_TURN: usize = DECISIONS_PER_MESSAGE;
/// How often traces are judged while next choices are to be asked, in milliseconds: what is due meanwhile
/// goes to them in one message, and greetings along with it. Traces are decided a quarter of a second later
/// for that, on average. Up to so long passes until they know what was exported, since answers say so too;
/// what they do not know when this gateway is killed is exported again: at 750 ms up to 1.2 % of what comes
/// within half a minute.
const ASK_EVERY: u64 = 500;
/// How often deadlines are looked at; half of the engine's bucket of 250 ms.
const TICK: Duration = Duration::from_millis(125);
/// A batch of kept spans is sent when it has this many bytes, under the 4 MiB that OTLP receivers take by
/// default.
pub(super) const EXPORT_BYTES: u64 = 1 << 20;
/// A batch of kept spans is sent when its first span has waited for so long.
const EXPORT_AGE: Duration = Duration::from_millis(200);
/// How long decisions are remembered to be told again, after the longest that an agent retains: with the
/// decision wait, 25 s and a minute because of a silent holder, and a while on the way.
const REMEMBER_AFTER_WAIT: u64 = 120_000;

/// What a shard needs of the process.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Where every span went.
    pub counters: Arc<Counters>,
    /// The budget of all shards.
    pub room: Arc<Room>,
    /// Where kept spans go.
    pub output: Output,
    /// What must not leave with them.
    pub redaction: Option<Arc<Redaction>>,
    /// How things stand.
    pub stands: Arc<ArcSwap<Stand>>,
    /// What goes to other gateways.
    pub outgoing: mpsc::UnboundedSender<Outgoing>,
    /// The clock.
    pub clock: Clock,
    /// So many of the last decisions a shard remembers.
    pub remember_max: usize,
    /// How spans are counted, if they are.
    pub span_metrics: Option<span_metrics::Config>,
    /// How many shards there are.
    pub shards: u64,
    /// Who waits for verdicts, if anybody does.
    pub verdicts: Option<Verdicts>,
}

/// How much of the shard's own counts is in the ledger of the process already.
#[derive(Debug, Default)]
struct Counted {
    kept: u64,
    sampled_away: u64,
    duplicates: u64,
}

/// What a shard's thread owns.
pub(super) struct Worker {
    pub(super) shard: Shard,
    pub(super) traces: Traces,
    pub(super) stand: Arc<Stand>,
    pub(super) outside: Outside,
    asks: mpsc::Receiver<Ask>,
    /// The way back into the queue, for news from exporters.
    pub(super) own: mpsc::WeakSender<Ask>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) parcels: Parcels,
    /// Deliveries whose traces have not all found their place.
    pub(super) inbound: BTreeMap<u64, Delivered>,
    pub(super) deliveries: u64,
    /// Spans that are kept, and the traces among them that were decided here.
    pub(super) kept: Batch,
    pub(super) marked: Marked,
    pub(super) rewriter: Rewriter,
    pub(super) kept_keys: Vec<TraceKey>,
    pub(super) kept_since: Option<Instant>,
    /// When kept spans were handed to exporters last.
    pub(super) flushed: Instant,
    ticked: u64,
    /// When what was due was judged last.
    asked: u64,
    /// Bytes last published to the room.
    published: u64,
    counted: Counted,
    // Used again for each request or turn, so that nothing is allocated for one.
    pub(super) elsewhere: Elsewhere,
    pub(super) actions: Vec<Action>,
    judged: Vec<Due>,
}

// === impl Counted ===

impl Counted {
    fn publish(&mut self, stats: &ShardStats, counters: &Counters) {
        let kept = stats.kept_spans + stats.late_kept;
        let sampled_away = stats.sampled_away_spans + stats.late_dropped;
        counters.kept.fetch_add(kept - self.kept, Relaxed);
        counters.sampled_away.fetch_add(sampled_away - self.sampled_away, Relaxed);
        counters.duplicate.fetch_add(stats.duplicates - self.duplicates, Relaxed);
        *self = Self { kept, sampled_away, duplicates: stats.duplicates };
    }
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(
        config: ShardConfig,
        program: &Arc<Program>,
        outside: Outside,
        asks: mpsc::Receiver<Ask>,
        handle: &ShardHandle,
    ) -> Self {
        let remember = config.decision_wait_ms + REMEMBER_AFTER_WAIT;
        let stand = outside.stands.load_full();
        let traces = Traces::new(config.shard, remember, outside.remember_max);
        let mut shard = Shard::new(config, Arc::clone(program));
        shard.set_members(stand.members());
        let mut marked = Marked::default();
        marked.adopt(program);
        if let Some(config) = &outside.span_metrics {
            shard.set_metrics(config.tally());
        }
        Self {
            traces,
            shard,
            stand,
            outside,
            asks,
            own: handle.asks.downgrade(),
            gauges: Arc::clone(&handle.gauges),
            parcels: Parcels::default(),
            inbound: BTreeMap::new(),
            deliveries: 0,
            kept: Batch::default(),
            marked,
            rewriter: Rewriter::default(),
            kept_keys: Vec::new(),
            kept_since: None,
            flushed: Instant::now(),
            ticked: 0,
            asked: 0,
            published: 0,
            counted: Counted::default(),
            elsewhere: Elsewhere::default(),
            actions: Vec::new(),
            judged: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut more = false;
        loop {
            let ask = if more {
                self.asks.try_recv().ok()
            } else {
                match tokio::time::timeout(TICK, self.asks.recv()).await {
                    Ok(None) => return self.finish(Instant::now()).await,
                    Ok(ask) => ask,
                    Err(_elapsed) => None,
                }
            };
            self.follow();
            if let Some((by, done)) = self.take(ask) {
                self.finish(by).await;
                let _ = done.send(());
                return;
            }
            more = self.turn();
            if more {
                // Lets the timer and the senders on this thread's runtime see the clock.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes over how things stand.
    fn follow(&mut self) {
        let stand = self.outside.stands.load_full();
        let before = std::mem::replace(&mut self.stand, stand);
        let another = before.me != self.stand.me;
        if before.epoch != self.stand.epoch || another {
            self.adopt(before.me.inst, another);
        }
        if before.epoch != self.stand.epoch {
            self.shard.set_members(self.stand.members());
            let now = self.outside.clock.now();
            self.traces.on_view(&before, &self.stand, now, &mut self.actions);
            self.perform(now);
            self.publish();
        }
    }

    /// Tells the state machine of all traces that leave, or of all that were taken in as another instance.
    fn adopt(&mut self, inst: u64, all: bool) {
        let Self { traces, shard, stand, .. } = self;
        shard.unsettle(
            |key| all || !stand.owns(key),
            |key, first, origin, bytes| traces.adopt(key, (first, origin), bytes, inst),
        );
    }

    /// Does what was asked; returns what a `Finish` says.
    fn take(&mut self, first: Option<Ask>) -> Option<(Instant, oneshot::Sender<()>)> {
        let mut next = first;
        for taken in 0..=INSERTS_PER_TURN {
            match next {
                Some(Ask::Finish(by, done)) => return Some((by, done)),
                Some(Ask::Reload(sampling)) => self.reload(&sampling),
                Some(ask) => self.answer(ask),
                None => return None,
            }
            next = if taken < INSERTS_PER_TURN { self.asks.try_recv().ok() } else { None };
        }
        None
    }

    fn answer(&mut self, ask: Ask) {
        let now = self.outside.clock.now();
        let Self { traces, stand, actions, .. } = self;
        match ask {
            Ask::Deliver { work, done } => return self.deliver(&work, done, now),
            Ask::Decisions(told, done) => {
                let agreement = traces.on_decisions(stand, &told, now, actions);
                if let Some(verdicts) = &self.outside.verdicts {
                    tell(&told.list, &agreement, verdicts);
                }
                self.perform(now);
                // Published first: who hears of the agreement may ask whether anything is left here.
                self.publish();
                let _ = done.send(agreement);
                return;
            }
            Ask::Reminded(decided) => traces.on_reminded(&decided, now, actions),
            Ask::Last(lately, done) => {
                let _ = done.send(traces.last_decisions(lately, now).collect());
            }
            Ask::Receipt(req, receipt) => traces.on_receipt(stand, req, &receipt, now, actions),
            Ask::Agreement(req, answer) => traces.on_agreement(stand, req, &answer, now, actions),
            Ask::News(exported) => traces.on_known(stand, &exported, now, actions),
            Ask::Failed(to, req, failure) => {
                traces.on_failed(stand, (&to, req, failure), now, actions);
            }
            Ask::Recall(keys) => {
                let Some(verdicts) = &self.outside.verdicts else { return };
                for key in keys {
                    if let Some(verdict) = traces.verdict(key) {
                        verdicts.tell(key, verdict.keep);
                    }
                }
                return;
            }
            Ask::Exported(keys) => traces.on_exported(stand, &keys),
            Ask::Counted(done) => {
                let drained = self.shard.metrics().map(|tally| tally.drain(now));
                // Who asked may have given up; then the counts are lost with the process that ends.
                let _ = done.send(drained.unwrap_or_default());
                return;
            }
            Ask::Reload(_) | Ask::Finish(..) => {}
        }
        self.perform(now);
        self.publish();
    }

    fn reload(&mut self, sampling: &Sampling) {
        self.shard.set_limits(&sampling.limits);
        self.shard.set_program(Arc::clone(&sampling.program));
        self.marked.adopt(&sampling.program);
        self.publish();
    }

    /// One bounded turn of decisions; true when there is more to do at once.
    fn turn(&mut self) -> bool {
        let before = Instant::now();
        let now = self.outside.clock.now();
        let more = self.decide(now);
        if now >= self.ticked + OWNERSHIP_TICK {
            self.ticked = now;
            self.traces.on_tick(&self.stand, now, &mut self.actions);
            self.perform(now);
            self.gauges.ownership.store(Arc::new(*self.traces.stats()));
        }
        self.shard.tidy_up();
        self.publish();
        self.flush(EXPORT_BYTES);
        if self.is_complete() {
            self.flush(0);
        }
        let took = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.gauges.turn_us.store(took, Relaxed);
        more
    }

    /// Whether what is kept goes out now: it has waited, or its round of decisions is over. Then nothing
    /// comes for a while, and the sooner the backend has it, the sooner witnesses hear of that.
    fn is_complete(&self) -> bool {
        self.kept_since.is_some_and(|since| {
            let over = self.stand.view.len() > 1 && !self.traces.asks();
            let since = if over { self.flushed } else { since };
            since.elapsed() >= EXPORT_AGE
        })
    }

    /// Judges what is due, and more when memory is short, if anything may be decided now.
    fn decide(&mut self, now: u64) -> bool {
        let alone = self.stand.is_alone().then(|| self.room());
        let Self { shard, traces, stand, outside, actions, judged, .. } = self;
        let excess = outside.room.excess(shard.held().bytes);
        let excess = if excess > 0 { shard.make_room(now, excess) } else { 0 };
        if !stand.may_decide(now) {
            return false;
        }
        if self.asked + ASK_EVERY > now && excess == 0 && stand.view.len() > 1 {
            return false;
        }
        judged.clear();
        let owns = |key| stand.owns(key);
        let more = match alone {
            // What exporters have no room for stays, as long as there is time.
            Some(room) => room > 0 && shard.judge_any(now, (room, DECISIONS_PER_TURN), judged),
            None => shard.judge_due(now, DECISIONS_PER_TURN, owns, judged),
        };
        if alone.is_none() && excess > 0 {
            shard.judge_oldest(now, (excess, DECISIONS_PER_TURN), owns, judged);
        }
        if !judged.is_empty() {
            traces.on_due(stand, judged, now, actions);
            self.perform(now);
        }
        if !more {
            self.asked = now;
        }
        more
    }

    /// Decides all that is left, whosever it is, as fast as exporters take it. What they have not taken by
    /// then is decided all the same.
    async fn finish(&mut self, by: Instant) {
        self.unpack_all();
        let mut more = true;
        while more {
            let room = if Instant::now() < by { self.room() } else { u64::MAX };
            if room == 0 {
                self.flush(0);
                tokio::time::sleep(ROOM_EVERY).await;
                continue;
            }
            let mut judged = std::mem::take(&mut self.judged);
            judged.clear();
            let (now, most) = (self.outside.clock.now(), (room, DECISIONS_PER_TURN));
            more = self.shard.judge_any(now, most, &mut judged);
            for Due { key, verdict, .. } in judged.drain(..) {
                self.conclude(key, verdict);
            }
            self.judged = judged;
        }
        self.shard.tidy_up();
        self.flush(0);
        self.publish();
    }

    pub(super) fn publish(&mut self) {
        let held = self.shard.held();
        let bytes = held.bytes
            + self.kept.held_bytes() as u64
            + (self.marked.held_bytes() + self.rewriter.held_bytes()) as u64
            + self.parcels.bytes()
            + self.sighted_bytes()
            + self.traces.footprint();
        self.outside.room.replace(self.published, bytes);
        self.published = bytes;
        let stats = self.shard.stats();
        self.counted.publish(stats, &self.outside.counters);
        let gauges = &self.gauges;
        let progress = self.stand.epoch << 2
            | u64::from(self.traces.is_complete(&self.stand)) << 1
            | u64::from(self.traces.is_idle() && held.traces == 0 && self.all_sent());
        // Seen by whoever sees what comes after it.
        gauges.progress.store(progress, std::sync::atomic::Ordering::Release);
        let pairs = [
            (&gauges.bytes, bytes),
            (&gauges.spans, held.spans + self.parcels.spans()),
            (&gauges.traces, held.traces),
            (&gauges.traces_kept, stats.traces_kept),
            (&gauges.traces_dropped, stats.traces_dropped),
            (&gauges.traces_new, stats.traces),
            (&gauges.early_pressure, stats.early(Early::MemoryPressure)),
            (&gauges.early_size, stats.early(Early::TraceTooLarge)),
            (&gauges.late_kept, stats.late_kept),
            (&gauges.late_dropped, stats.late_dropped),
            (&gauges.followed, stats.followed),
            (&gauges.evacuated, stats.segments_evacuated),
            (&gauges.condition_failures, stats.condition_failures),
        ];
        for (gauge, value) in pairs {
            gauge.store(value, Relaxed);
        }
        publish_policies(gauges, stats);
    }
}

/// Tells whoever waits for verdicts what another gateway decides: records of its traces may be here, because
/// it has the traces from here, or because a client brought them.
fn tell(list: &[Decision], agreement: &Agreement, verdicts: &Verdicts) {
    let Agreement { known, refused, .. } = agreement;
    let known = known.iter().map(|known| known.key);
    let others: BTreeSet<TraceKey> = known.chain(refused.iter().copied()).collect();
    for Decision { key, verdict, .. } in list {
        if !others.contains(key) {
            verdicts.tell(*key, verdict.keep);
        }
    }
}

fn publish_policies(gauges: &Gauges, stats: &ShardStats) {
    let decided = |policy: &PolicyCount| policy.kept + policy.dropped;
    let by_policy = gauges.by_policy.load();
    if by_policy.len() == stats.policies.len() {
        for (gauge, policy) in by_policy.iter().zip(&stats.policies) {
            gauge.decided.store(decided(policy), Relaxed);
            gauge.changed.store(policy.changed, Relaxed);
        }
    } else {
        let row = |policy: &PolicyCount| PolicyGauge {
            name: policy.name.clone(),
            decided: decided(policy).into(),
            changed: policy.changed.into(),
        };
        gauges.by_policy.store(Arc::new(stats.policies.iter().map(row).collect()));
    }
}
