//! A reconcile as a list of stages. Whatever way it ends, the status says so.
//!
//! dereference (client) -> validate -> build -> apply (client) -> prune (client) -> observe -> status
//! (client)

use std::{sync::Arc, time::Duration};

use kube::{
    Client, Resource, ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef},
};
use ringtail_crds::TracePipeline;
use tokio::{sync::watch, time::Instant};

use crate::{
    backoff,
    build::{self, Child, Inputs},
    conditions::Observed,
    events::{Events, Happening, Reason},
    failure::Failure,
    kind::Kind,
    memory::{Memories, Memory},
    metrics::Metrics,
    peer_tls::Lifetimes,
    seed,
    settings::Settings,
    stats::view::Views,
    stores::{Guarded, Stores},
};

pub mod apply; //       children as they should be
pub mod dereference; // what exists
pub mod observe; //     what became of the children
pub mod prune; //       children that nobody wants
pub mod status; //      what is told
pub mod validate; //    whether the resource makes sense

use apply::{Applier, Outcome};
use dereference::Dereferenced;

/// A pipeline is looked at this often even when nothing seems to happen: an event may have been missed.
const RESYNC: Duration = Duration::from_secs(600);
/// While something is in the way that has no event of its own.
const RETRY: Duration = Duration::from_secs(30);
/// A certificate that is due at once must not make a reconcile follow itself.
const RENEWAL_PAUSE_MIN: Duration = Duration::from_secs(1);
/// A pipeline has some twenty children at 30 s an answer at worst; nobody waits that long for one pipeline.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(120);

/// What all reconciles share.
pub struct World {
    /// Behind the gate.
    pub client: Client,
    /// What is known of the cluster.
    pub stores: Stores,
    /// What the operator was started with.
    pub settings: Settings,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// What gateways say.
    pub views: watch::Receiver<Views>,
    /// What is remembered between reconciles.
    pub memories: Memories,
    /// What happened.
    pub events: Events,
    /// Counters.
    pub metrics: Metrics,
}

/// How far a reconcile came.
#[derive(Default)]
pub struct Progress {
    /// For conditions.
    pub observed: Observed,
    /// For events.
    pub happenings: Vec<Happening>,
    /// When to come back at the latest.
    pub again: Option<Duration>,
}

/// One reconcile.
pub async fn reconcile(object: Arc<Guarded>, world: Arc<World>) -> Result<Action, Failure> {
    let begun = Instant::now();
    // A candidate's reconciles wait until it leads, which may take days. What they were begun with is old
    // by then.
    let Some(object) = world.stores.pipelines.get(&ObjectRef::from_obj(object.as_ref())) else {
        return Ok(Action::await_change());
    };
    let uid = object.meta().uid.clone().unwrap_or_default();
    if object.meta().deletion_timestamp.is_some() {
        // Children go with their owner; the garbage collector needs no help.
        world.memories.take(&uid);
        return Ok(Action::await_change());
    }
    let outcome = tokio::time::timeout(RECONCILE_TIMEOUT, attempt(&object, &world, &uid)).await;
    let outcome = outcome.unwrap_or_else(|_| Err(Failure::Timeout));
    let failure = outcome.as_ref().err().map(Failure::category);
    world.metrics.reconciled(begun.elapsed(), failure);
    outcome
}

/// When to try again after a failure.
pub fn on_failure(object: Arc<Guarded>, failure: &Failure, world: Arc<World>) -> Action {
    let failures = world.memories.fail(object.meta().uid.as_deref().unwrap_or_default());
    let wait = backoff::delay(failures, fastrand::f64());
    let category = failure.category().name();
    tracing::warn!(pipeline = object.name_any(), %failure, category, ?wait, "will be tried again");
    Action::requeue(wait)
}

async fn attempt(object: &Guarded, world: &World, uid: &str) -> Result<Action, Failure> {
    let pipeline = match &object.0 {
        Ok(pipeline) => pipeline,
        Err(invalid) => {
            status::write_unreadable(world, invalid).await?;
            return Ok(Action::await_change());
        }
    };
    let mut memory = world.memories.take(uid);
    let mut progress = Progress::default();
    let result = run(pipeline, world, &mut memory, &mut progress).await;
    if let Err(failure) = &result {
        progress.observed.failure = Some((failure.category(), failure.to_string()));
    }
    let told = status::tell(pipeline, world, &mut memory, &mut progress).await;
    let outcome = result.and(told);
    if outcome.is_ok() {
        memory.failures = 0;
    }
    world.memories.put(uid, memory);
    outcome.map(|()| Action::requeue(progress.again.unwrap_or(RESYNC)))
}

// The stages. Every `return` leaves in `progress` what the status stage needs.
async fn run(
    pipeline: &TracePipeline,
    world: &World,
    memory: &mut Memory,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let valid = match validate::validate(pipeline, &world.settings) {
        Ok(valid) => valid,
        Err(problems) => {
            progress.observed.problems = problems;
            return Ok(());
        }
    };
    let found = dereference::dereference(pipeline, &valid, world, memory).await?;
    progress.observed.unresolved = Some(found.unresolved.clone());
    let inputs = Inputs { pipeline, valid: &valid, settings: &world.settings, live: &found.live };
    let mut wanted = build::build(&inputs);
    progress.observed.config_hash = build::config_hash(&wanted);
    if pipeline.spec.paused {
        return Ok(());
    }
    // Pods that lack a Secret would hang; those that run go on with what they have.
    if !found.unresolved.is_empty() {
        progress.again = Some(RETRY);
        return Ok(());
    }
    progress.again = found.renew_in.map(|due| due.clamp(RENEWAL_PAUSE_MIN, RESYNC));
    wanted.extend(found.secrets.iter().cloned());
    wanted.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    apply(pipeline, world, memory, progress, &found, &wanted).await?;
    let pruned = prune::prune(&world.client, &world.stores, pipeline, &wanted).await?;
    world.metrics.pruned(pruned.len());
    let notes = pruned.into_iter().map(|child| format!("{child} is no longer wanted"));
    progress.happenings.extend(notes.map(|note| Happening::new(Reason::ChildPruned, note)));
    Ok(())
}

async fn apply(
    pipeline: &TracePipeline,
    world: &World,
    memory: &mut Memory,
    progress: &mut Progress,
    found: &Dereferenced,
    wanted: &[Child],
) -> Result<(), Failure> {
    let applier = Applier { client: &world.client, stores: &world.stores, pipeline };
    let seed = seed::secret_name(pipeline);
    for child in wanted {
        let is_new_seed = found.seed_is_new && child.kind == Kind::Secret && child.name == seed;
        let outcome = match is_new_seed {
            true => applier.create(child, memory).await?,
            false => applier.apply(child, memory).await?,
        };
        world.metrics.applied(outcome);
        match outcome {
            Outcome::Restored => progress.happenings.push(Happening::new(
                Reason::ChildRestored,
                format!("{} {} was edited or deleted and is restored", child.kind, child.name),
            )),
            Outcome::Terminating => progress.again = Some(RETRY),
            Outcome::Unchanged | Outcome::Created | Outcome::Changed => {}
        }
    }
    let renewed = found.renewed.join(", ");
    if !renewed.is_empty() {
        let note = format!("certificates made: {renewed}");
        progress.happenings.push(Happening::new(Reason::CertificateRenewed, note));
    }
    Ok(())
}
