//! Span metrics of a gateway: one task drains the tallies of the shards into totals, shows them to whoever
//! asks, and pushes them where the manifest says.
//!
//! Each gateway counts the spans that come into the fleet through it, and nobody else counts them again:
//! `docs/span-metrics.md` has the rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use ringtail_engine::span_metrics::{Limits, Plan, Shown, Tally, Totals};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::push::Pusher;
use super::clock::Clock;
use super::shards::{Ask as ShardAsk, ShardHandle};
use crate::transport::EndpointError;

mod message;
mod push;

/// Questions that wait for the task; each scrape is one.
const ASKS_MAX: usize = 16;
/// How long the last push of a stopping gateway may take.
const LAST_PUSH_WITHIN: Duration = Duration::from_secs(5);

/// What a gateway needs to know to count spans.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is counted, by what.
    pub plan: Arc<Plan>,
    /// What the tally of a shard may take, and the totals.
    pub limits: Limits,
    /// Where totals go by themselves.
    pub push: Option<Push>,
}

/// Where totals go by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// `host:port` of an OTLP/gRPC receiver of metrics.
    pub endpoint: String,
    /// How often.
    pub interval: Duration,
}

/// The shared face of the task.
#[derive(Debug)]
pub struct SpanMetrics {
    /// What is counted, by what.
    pub plan: Arc<Plan>,
    /// What the process calls itself.
    pub instance: String,
    /// What was shown last.
    pub latest: ArcSwap<Shown>,
    /// Pushes that were taken.
    pub pushed: AtomicU64,
    /// Pushes that were not; the next one has all that they had.
    pub failed: AtomicU64,
    asks: mpsc::Sender<Ask>,
    clock: Clock,
}

enum Ask {
    Show(oneshot::Sender<Arc<Shown>>),
    /// Push what there is, and end.
    Finish(oneshot::Sender<()>),
}

/// See the module.
struct Task {
    shared: Arc<SpanMetrics>,
    shards: Vec<ShardHandle>,
    totals: Totals,
    asks: mpsc::Receiver<Ask>,
    pusher: Option<(Arc<Pusher>, Duration)>,
    pushes: JoinSet<()>,
}

// === impl Config ===

impl Config {
    /// What a shard counts with.
    pub(super) fn tally(&self) -> Tally {
        Tally::new(Arc::clone(&self.plan), self.limits)
    }

    /// Whether the endpoint of the push is one.
    ///
    /// # Errors
    /// When it is not `host:port`.
    pub fn check(&self) -> Result<(), EndpointError> {
        self.push.as_ref().map_or(Ok(()), |push| Pusher::new(push).map(drop))
    }
}

// === impl SpanMetrics ===

impl SpanMetrics {
    /// Starts the task.
    pub(super) fn spawn(
        config: &Config,
        shards: Vec<ShardHandle>,
        instance: String,
        clock: Clock,
    ) -> Arc<Self> {
        let (sender, asks) = mpsc::channel(ASKS_MAX);
        let plan = Arc::clone(&config.plan);
        let shared = Arc::new(Self {
            plan: Arc::clone(&plan),
            instance,
            latest: ArcSwap::default(),
            pushed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            asks: sender,
            clock,
        });
        let pusher = config.push.as_ref().and_then(|push| match Pusher::new(push) {
            Ok(pusher) => Some((Arc::new(pusher), push.interval)),
            Err(error) => {
                tracing::error!(%error, "span metrics are not pushed");
                None
            }
        });
        let totals = Totals::new(plan, config.limits);
        let task = Task {
            shared: Arc::clone(&shared),
            shards,
            totals,
            asks,
            pusher,
            pushes: JoinSet::new(),
        };
        tokio::spawn(task.run());
        shared
    }

    /// All series as of now.
    pub async fn show(&self) -> Arc<Shown> {
        let (done, shown) = oneshot::channel();
        // Without the task the process ends; what was seen last is then as good as anything.
        let _ = self.asks.send(Ask::Show(done)).await;
        shown.await.unwrap_or_else(|_| self.latest.load_full())
    }

    /// Pushes for the last time. The shards must still be there, and nothing more may come in.
    pub(super) async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        if self.asks.send(Ask::Finish(done)).await.is_ok() {
            let _ = finished.await;
        }
    }

    /// Nanoseconds since 1970 of a time of the gateway's clock.
    pub fn wall_nanos(&self, at: ringtail_engine::Millis) -> u64 {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let wall = wall.map_or(0, |wall| u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX));
        let ago = self.clock.now().saturating_sub(at);
        wall.saturating_sub(ago.saturating_mul(1_000_000))
    }
}

// === impl Task ===

impl Task {
    async fn run(mut self) {
        let every = self.pusher.as_ref().map_or(Duration::MAX, |(_, interval)| *interval);
        let mut tick = tokio::time::interval(every.min(Duration::from_secs(86_400)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, when there is nothing.
        tick.tick().await;
        loop {
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(Ask::Show(done)) => {
                        let _ = done.send(self.read().await);
                    }
                    Some(Ask::Finish(done)) => {
                        self.push_last().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                _ = tick.tick() => {
                    // The one before has what its receiver can take; this one has all of it and more.
                    self.abandon();
                    let shown = self.read().await;
                    self.push(shown);
                }
                Some(_) = self.pushes.join_next(), if !self.pushes.is_empty() => {}
            }
        }
    }

    /// Adds what the shards have counted since the last time.
    async fn read(&mut self) -> Arc<Shown> {
        for shard in &self.shards {
            let (done, drained) = oneshot::channel();
            shard.ask(ShardAsk::Counted(done)).await;
            if let Ok(drained) = drained.await {
                self.totals.add(drained);
            }
        }
        let shown = Arc::new(self.totals.show(self.shared.clock.now()));
        self.shared.latest.store(Arc::clone(&shown));
        shown
    }

    /// Gives up a push that is not answered.
    fn abandon(&mut self) {
        self.shared.failed.fetch_add(self.pushes.len() as u64, Relaxed);
        self.pushes = JoinSet::new();
    }

    fn push(&mut self, shown: Arc<Shown>) {
        if let Some((pusher, _)) = &self.pusher {
            let (pusher, shared) = (Arc::clone(pusher), Arc::clone(&self.shared));
            self.pushes.spawn(async move {
                let count = if pusher.push(&shared, &shown).await {
                    &shared.pushed
                } else {
                    &shared.failed
                };
                count.fetch_add(1, Relaxed);
            });
        }
    }

    async fn push_last(&mut self) {
        self.abandon();
        let shown = self.read().await;
        self.push(shown);
        let all = async { while self.pushes.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_PUSH_WITHIN, all).await.is_err() {
            tracing::warn!("the last push of span metrics was not answered in time");
            self.shared.failed.fetch_add(1, Relaxed);
        }
    }
}
