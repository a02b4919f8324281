//! Span metrics of a gateway: one task drains the tallies of the shards into totals, shows them to whoever
//! asks, and pushes them where the manifest says.
//!
//! Each gateway counts the spans that come into the fleet through it, and nobody else counts them again:
//! `docs/span-metrics.md` has the rule.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use ringtail_crds::resolved::SpanMetricsPush;
use ringtail_engine::span_metrics::{Limits, Plan, Shown, Tally, Totals};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use self::push::Pusher;
use super::clock::Clock;
use super::shards::{Ask as ShardAsk, ShardHandle};
use crate::export::ConfigError;
use crate::export::credentials::Credentials;

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
    /// An OTLP/gRPC receiver of metrics, when, and what it is told.
    pub settings: SpanMetricsPush,
    /// Where the files of Secrets are.
    pub secrets_dir: PathBuf,
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
    /// Whom the push trusts and what it shows.
    pub(crate) credentials: Option<Arc<Credentials>>,
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
    /// What nobody was told yet, where pushes tell only that.
    fresh: Option<Totals>,
    asks: mpsc::Receiver<Ask>,
    pusher: Option<(Arc<Pusher>, Duration)>,
    /// Pushes that are not answered; each ends with what was not taken.
    pushes: JoinSet<Option<Shown>>,
}

// === impl Config ===

impl Config {
    /// What a shard counts with.
    pub(super) fn tally(&self) -> Tally {
        Tally::new(Arc::clone(&self.plan), self.limits)
    }

    /// Whether the endpoint of the push is one, and its certificates can be used.
    ///
    /// # Errors
    /// What cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
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
        let pusher = config.push.as_ref().and_then(|push| match Pusher::new(push) {
            Ok(pusher) => Some((Arc::new(pusher), push.settings.interval)),
            Err(error) => {
                tracing::error!(%error, "span metrics are not pushed");
                None
            }
        });
        let shared = Arc::new(Self {
            plan: Arc::clone(&plan),
            instance,
            latest: ArcSwap::default(),
            pushed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            credentials: pusher.as_ref().map(|(pusher, _)| pusher.credentials()),
            asks: sender,
            clock,
        });
        let delta = config.push.as_ref().is_some_and(|push| push.settings.delta);
        let fresh = delta.then(|| Totals::new(Arc::clone(&plan), config.limits));
        let totals = Totals::new(plan, config.limits);
        let task = Task {
            shared: Arc::clone(&shared),
            shards,
            totals,
            fresh,
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
        // It ends with this task.
        let mut following = JoinSet::new();
        if let Some(credentials) = self.shared.credentials.clone() {
            following.spawn(async move { credentials.follow().await });
        }
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
                _ = tick.tick() => self.push_again().await,
                Some(ended) = self.pushes.join_next(), if !self.pushes.is_empty() => {
                    self.put_back(ended);
                }
            }
        }
    }

    /// Adds what the shards have counted since the last time.
    async fn read(&mut self) -> Arc<Shown> {
        for shard in &self.shards {
            let (done, drained) = oneshot::channel();
            shard.ask(ShardAsk::Counted(done)).await;
            if let Ok(drained) = drained.await {
                if let Some(fresh) = &mut self.fresh {
                    fresh.add(drained.clone());
                }
                self.totals.add(drained);
            }
        }
        let shown = Arc::new(self.totals.show(self.shared.clock.now()));
        self.shared.latest.store(Arc::clone(&shown));
        shown
    }

    async fn push_again(&mut self) {
        if self.fresh.is_some() && !self.pushes.is_empty() {
            // What the one before has may have been taken, or not: first its answer, or its end.
            return;
        }
        // Of totals the one before has what its receiver can take; this one has all of it and more.
        self.abandon();
        self.push().await;
    }

    /// Gives up a push that is not answered.
    fn abandon(&mut self) {
        self.shared.failed.fetch_add(self.pushes.len() as u64, Relaxed);
        self.pushes = JoinSet::new();
    }

    async fn push(&mut self) {
        let totals = self.read().await;
        let Some((pusher, _)) = &self.pusher else { return };
        let shown = match &mut self.fresh {
            None => totals,
            Some(fresh) => Arc::new(fresh.take(self.shared.clock.now())),
        };
        let (pusher, shared) = (Arc::clone(pusher), Arc::clone(&self.shared));
        self.pushes.spawn(async move {
            let rest = pusher.push(&shared, &shown).await;
            let count = if rest.is_none() { &shared.pushed } else { &shared.failed };
            count.fetch_add(1, Relaxed);
            rest
        });
    }

    /// What was not taken is told with the next push; of totals it is in it anyway.
    fn put_back(&mut self, ended: Result<Option<Shown>, JoinError>) {
        if let (Some(fresh), Ok(Some(rest))) = (&mut self.fresh, ended) {
            fresh.put_back(rest);
        }
    }

    async fn push_last(&mut self) {
        if self.fresh.is_none() {
            self.abandon();
        }
        let all = async {
            while let Some(ended) = self.pushes.join_next().await {
                self.put_back(ended);
            }
            self.push().await;
            while self.pushes.join_next().await.is_some() {}
        };
        if tokio::time::timeout(LAST_PUSH_WITHIN, all).await.is_err() {
            tracing::warn!("the last push of span metrics was not answered in time");
            self.shared.failed.fetch_add(1, Relaxed);
        }
    }
}
