//! Everything wired together: what runs side by side, in which order it starts and how it ends.
//!
//! Nothing runs detached. Each task is a branch of one `select!`; whichever ends first ends the process,
//! and a process that ends for any reason but a signal says so by its exit code.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future, stream};
use kube::{
    Client, Config,
    client::ClientBuilder,
    runtime::{
        controller::{self, Controller},
        reflector::ObjectRef,
    },
};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    admin::{self, Shown},
    backoff,
    cli::{Cli, VERSION},
    events::Events,
    gate::Gate,
    kind::Kind,
    lease::{Candidate, Leadership, Lost},
    memory::Memories,
    metrics::Metrics,
    peer_tls::Lifetimes,
    reconcile::{self, World},
    scope::Scope,
    settings::Settings,
    stats::{fetch, poll},
    stores::{Guarded, Stores},
    watches,
};

/// Pipelines that are reconciled at a time, over all namespaces. Twenty requests each are 160 in a row of
/// eight, far below what an API server gives to one client.
const CONCURRENCY: u16 = 8;
/// A child that is applied wakes its pipeline; twenty of them should do so once.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// Pipelines whose verdict changed in one poll; more wait.
const FLIPS_MAX: usize = 256;
/// How long reconciles may go on after a signal. A pod gets 30 seconds by default.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked whether optional kinds came or went.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(600);
/// Between two questions to an API server that is away.
const DISCOVERY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A request of its own to see which optional kinds there are.
const MONITORING: &str = "monitoring.coreos.com/v1";

/// Why the operator ended.
#[derive(Debug, Error)]
pub enum Stopped {
    /// No cluster is configured.
    #[error("cannot find out how to reach the API server: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The configuration of the client does not work.
    #[error("cannot talk to the API server: {0}")]
    Client(#[from] kube::Error),
    /// The admin port is taken.
    #[error("cannot serve {address}: {source}; see --admin")]
    Admin {
        /// `--admin`.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Somebody else leads.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Something ended that runs as long as the process does.
    #[error("{0} ended, which it should not")]
    Ended(&'static str),
}

/// Two ways to the API server.
pub struct Clients {
    /// Through the gate: for everything.
    pub gated: Client,
    /// Past it: for the Lease alone.
    pub lease: Client,
}

/// What an operator consists of, before it runs.
pub struct Operator {
    cli: Cli,
    clients: Clients,
    candidate: Candidate,
    metrics: Metrics,
    // Where gateways are asked, and how often; other than the default in tests.
    stats_port: u16,
    stats_interval: Duration,
}

/// Runs the operator in the cluster that the environment names, until a signal.
///
/// # Errors
/// Whatever else ends it.
pub async fn run(cli: Cli) -> Result<(), Stopped> {
    let mut config = Config::infer().await?;
    // Behind the gate nothing may start a request again by itself; reconciles have their own backoff.
    config.default_retry = false;
    let metrics = Metrics::default();
    let (leadership, follow) = watch::channel(Leadership::Unknown);
    let clients = connect(config, &metrics, follow)?;
    Operator::new(cli, clients, leadership, metrics).run(interrupted()).await
}

fn connect(
    config: Config,
    metrics: &Metrics,
    leadership: watch::Receiver<Leadership>,
) -> Result<Clients, Stopped> {
    let gate = Gate { leadership, writes: metrics.writes.clone() };
    let lease = ClientBuilder::try_from(config.clone())?.build();
    let gated = ClientBuilder::try_from(config)?.with_layer(&gate).build();
    Ok(Clients { gated, lease })
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

// === impl Operator ===

impl Operator {
    /// Puts it together. `leadership` is what the gate of `clients` follows.
    pub fn new(
        cli: Cli,
        clients: Clients,
        leadership: watch::Sender<Leadership>,
        metrics: Metrics,
    ) -> Self {
        let candidate = Candidate::new(
            clients.lease.clone(),
            &cli.leader_election_namespace,
            &cli.leader_election_name,
            &cli.identity,
            leadership,
        );
        let (stats_port, stats_interval) = (fetch::ADMIN_PORT, poll::INTERVAL);
        Self { cli, clients, candidate, metrics, stats_port, stats_interval }
    }

    /// Asks gateways at another port and more often: for tests, whose gateways share an address.
    pub fn with_stats(mut self, port: u16, interval: Duration) -> Self {
        (self.stats_port, self.stats_interval) = (port, interval);
        self
    }

    /// Runs until `stop`, or until something ends that should not.
    ///
    /// # Errors
    /// What ended.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Stopped> {
        let listener = TcpListener::bind(self.cli.admin)
            .await
            .map_err(|source| Stopped::Admin { address: self.cli.admin, source })?;
        let (beats, beat) = watch::channel(Instant::now());
        let (synced, is_synced) = watch::channel(false);
        let (stopping, stopped) = watch::channel(false);
        let shown = Shown {
            metrics: self.metrics.clone(),
            leadership: self.candidate.subscribe(),
            synced: is_synced,
            beat,
        };
        let stop = async {
            stop.await;
            tracing::info!("stopping: reconciles that have begun go on to their end");
            stopping.send_replace(true);
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
        };
        let outcome = tokio::select! {
            lost = self.lead() => Err(lost.into()),
            served = admin::serve(listener, shown) => Err(match served {
                Ok(()) => Stopped::Ended("the admin port"),
                Err(source) => Stopped::Admin { address: self.cli.admin, source },
            }),
            () = admin::beat(beats) => Err(Stopped::Ended("the heartbeat")),
            ended = self.work(&synced, &stopped) => ended,
            () = stop => Ok(()),
        };
        if outcome.is_ok() {
            self.candidate.release().await;
        }
        outcome
    }

    // Watches and reconciles. When somebody installs or removes an optional kind it begins anew: a watch of
    // a kind that is not there fails for ever, and a kind that came later would not be used.
    async fn work(
        &self,
        synced: &watch::Sender<bool>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<(), Stopped> {
        let mut kinds = self.optional_kinds().await;
        loop {
            tracing::info!(?kinds, "optional kinds in this cluster");
            let parts = self.parts(&kinds, stopped);
            let stores: Vec<_> = parts.iter().map(|part| part.world.stores.clone()).collect();
            let fill = async {
                future::join_all(stores.iter().map(Stores::wait_until_ready)).await;
                synced.send_replace(true);
                future::pending::<()>().await;
            };
            tokio::select! {
                ended = future::try_join_all(parts.into_iter().map(Part::run)) => return ended.map(drop),
                () = fill => return Err(Stopped::Ended("the stores")),
                now = self.other_kinds(&kinds) => kinds = now,
            }
        }
    }

    async fn other_kinds(&self, known: &BTreeSet<Kind>) -> BTreeSet<Kind> {
        loop {
            tokio::time::sleep(DISCOVERY_INTERVAL).await;
            let kinds = self.optional_kinds().await;
            if kinds != *known {
                return kinds;
            }
        }
    }

    // An API server that is away is waited for: a pod that ended instead would be kept down for minutes
    // after the API server is back.
    async fn optional_kinds(&self) -> BTreeSet<Kind> {
        let mut failures = 0;
        loop {
            match optional_kinds(&self.clients.lease).await {
                Ok(kinds) => return kinds,
                Err(error) => {
                    tracing::warn!(%error, "the API server does not say which kinds it has")
                }
            }
            failures += 1;
            let wait = backoff::delay(failures, fastrand::f64()).min(DISCOVERY_PAUSE_MAX);
            tokio::time::sleep(wait).await;
        }
    }

    fn parts(&self, kinds: &BTreeSet<Kind>, stopped: &watch::Receiver<bool>) -> Vec<Part> {
        let settings = Settings {
            image: self.cli.data_plane_image.clone(),
            image_pull_policy: self.cli.image_pull_policy.clone(),
            version: VERSION.to_owned(),
            optional_kinds: kinds.clone(),
            allow_unsafe_pod_template: self.cli.allow_unsafe_pod_template,
        };
        let scopes = Scope::from_namespaces(&self.cli.watch_namespace);
        let share = (usize::from(CONCURRENCY) / scopes.len()).max(1);
        scopes.iter().map(|scope| self.part(scope, &settings, share, stopped)).collect()
    }

    async fn lead(&self) -> Lost {
        let lost = self.candidate.run(|leads| self.metrics.leads(leads)).await;
        self.metrics.leads(false);
        lost
    }

    fn part(
        &self,
        scope: &Scope,
        settings: &Settings,
        concurrency: usize,
        stopped: &watch::Receiver<bool>,
    ) -> Part {
        let (stores, triggers) = watches::open(&self.clients.gated, scope, settings, &self.metrics);
        let (views, view) = watch::channel(Arc::new(HashMap::new()));
        let (flips, flipped) = mpsc::channel(FLIPS_MAX);
        let poll = poll::Poll {
            client: self.clients.gated.clone(),
            stores: stores.clone(),
            views,
            flips,
            metrics: self.metrics.clone(),
            port: self.stats_port,
            interval: self.stats_interval,
        };
        let world = World {
            client: self.clients.gated.clone(),
            stores,
            settings: settings.clone(),
            lifetimes: Lifetimes { leaf: self.cli.peer_certificate_lifetime.0 },
            views: view,
            memories: Memories::default(),
            events: Events::new(self.clients.gated.clone(), &self.cli.identity),
            metrics: self.metrics.clone(),
        };
        let leadership = self.candidate.subscribe();
        let concurrency = u16::try_from(concurrency).unwrap_or(CONCURRENCY);
        let stopped = stopped.clone();
        Part { world: Arc::new(world), triggers, poll, flipped, leadership, concurrency, stopped }
    }
}

/// What runs for one scope.
struct Part {
    world: Arc<World>,
    triggers: watches::Triggers,
    poll: poll::Poll,
    flipped: mpsc::Receiver<ObjectRef<Guarded>>,
    leadership: watch::Receiver<Leadership>,
    concurrency: u16,
    stopped: watch::Receiver<bool>,
}

// === impl Part ===

impl Part {
    // The watches run from the start, so that a candidate that becomes leader knows the cluster already.
    // What they trigger before that is not lost: reconciles are held until this process leads.
    async fn run(self) -> Result<(), Stopped> {
        let Self { world, triggers, poll, flipped, leadership, concurrency, mut stopped } = self;
        let told = stopped.clone();
        let leads = leading(leadership).shared();
        let flipped =
            stream::unfold(flipped, async |mut flipped| Some((flipped.recv().await?, flipped)));
        let held = leads.clone();
        let reconciles = Controller::for_stream(stream::pending(), world.stores.pipelines.clone())
            .with_config(controller::Config::default().concurrency(concurrency).debounce(DEBOUNCE))
            .reconcile_on(triggers)
            .reconcile_on(flipped)
            .graceful_shutdown_on(async move {
                // An error means that the sender is gone, and with it the process.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            })
            .run(
                move |object, world| {
                    let held = held.clone();
                    async move {
                        held.await;
                        reconcile::reconcile(object, world).await
                    }
                },
                reconcile::on_failure,
                Arc::clone(&world),
            )
            .for_each(async |outcome| forget(&world, outcome.err()));
        let polls = async {
            leads.await;
            poll.run().await;
        };
        tokio::select! {
            () = reconciles => match *told.borrow() {
                true => Ok(()),
                false => Err(Stopped::Ended("a controller")),
            },
            () = polls => Err(Stopped::Ended("the statistics")),
        }
    }
}

async fn leading(mut leadership: watch::Receiver<Leadership>) {
    let leads = |state: &Leadership| matches!(state, Leadership::Leading { .. });
    // The sender goes only when the process does.
    if leadership.wait_for(leads).map(|begins| begins.is_err()).await {
        future::pending::<()>().await;
    }
}

// A pipeline that was triggered and is not in the store is gone, and what was remembered of it goes too.
fn forget(
    world: &World,
    error: Option<controller::Error<crate::failure::Failure, kube::runtime::watcher::Error>>,
) {
    let Some(controller::Error::ObjectNotFound(gone)) = error else {
        return;
    };
    world.metrics.forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
    let state = world.stores.pipelines.state();
    let uids: BTreeSet<_> =
        state.iter().filter_map(|pipeline| kube::ResourceExt::uid(pipeline.as_ref())).collect();
    world.memories.retain(|uid| uids.contains(uid));
}

// A group that is not there is no failure; one that cannot be asked for is.
async fn optional_kinds(client: &Client) -> kube::Result<BTreeSet<Kind>> {
    let listed = match client.list_api_group_resources(MONITORING).await {
        Ok(listed) => listed.resources,
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(error),
    };
    let serves = |kind: &Kind| listed.iter().any(|resource| resource.name == kind.plural());
    Ok(Kind::ALL.into_iter().filter(|kind| kind.is_optional() && serves(kind)).collect())
}
