//! What the operator watches, and which pipeline each change concerns.
//!
//! Metadata is enough for most children: a change of it says that somebody meant something, and what the
//! child looks like is then asked for. Workloads and pods come whole, because their status is the
//! pipeline's status; what nobody reads of them is dropped before it is stored.

use std::{collections::HashMap, fmt::Debug, hash::Hash, sync::Arc};

use futures::{Stream, StreamExt, future, stream, stream::BoxStream};
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, ObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};

use crate::{
    changes::{Changes, Touched},
    fingerprint,
    kind::Kind,
    labels,
    metrics::Metrics,
    references,
    scope::Scope,
    settings::Settings,
    stores::{ChildMeta, Guarded, Stores},
    trim,
};

/// Pipelines to look at. The stores are kept up to date while it is polled.
pub type Triggers = BoxStream<'static, ObjectRef<Guarded>>;

/// Opens the watches of a scope. Nothing is asked before they are polled.
pub fn open(
    client: &Client,
    scope: &Scope,
    settings: &Settings,
    metrics: &Metrics,
) -> (Stores, Triggers) {
    let opening = Opening { client, scope, metrics };
    let (pipelines, main) = opening.pipelines();
    let (pods, stream) = opening.pods();
    let mut triggers = vec![main, stream];
    let mut children = HashMap::new();
    let mut workloads = HashMap::new();
    let missing = |kind: &Kind| kind.is_optional() && !settings.optional_kinds.contains(kind);
    for kind in Kind::ALL.into_iter().filter(|kind| !missing(kind)) {
        let stream = match kind {
            Kind::Deployment | Kind::DaemonSet => {
                let (store, stream) = opening.workload(kind);
                workloads.insert(kind, store);
                stream
            }
            Kind::Secret => {
                let (store, stream) = opening.secrets(pipelines.clone());
                children.insert(kind, store);
                stream
            }
            _ => {
                let (store, stream) = opening.child(kind);
                children.insert(kind, store);
                stream
            }
        };
        triggers.push(stream);
    }
    let (children, workloads) = (Arc::new(children), Arc::new(workloads));
    (Stores { pipelines, children, workloads, pods }, stream::select_all(triggers).boxed())
}

struct Opening<'a> {
    client: &'a Client,
    scope: &'a Scope,
    metrics: &'a Metrics,
}

// === impl Opening ===

impl Opening<'_> {
    fn pipelines(&self) -> (Store<Guarded>, Triggers) {
        let api = self.scope.pipelines(self.client);
        let writer = Writer::<Guarded>::default();
        let store = writer.as_reader();
        let events = self.observed(watcher(api, watcher::Config::default()), "TracePipeline");
        let changes = Changes::new(|p: &Guarded| fingerprint::of_intent(p.meta()), itself);
        (store, owners(reflected(events, writer, |_| true, changes)))
    }

    fn child(&self, kind: Kind) -> (Store<ChildMeta>, Triggers) {
        let api: Api<ChildMeta> = self.scope.objects(self.client, &kind.resource());
        let writer = Writer::new(kind.resource());
        let store = writer.as_reader();
        let events = self.observed(watcher(api, of_ours()), kind.name());
        let changes = Changes::new(|c: &ChildMeta| fingerprint::of(&c.metadata), pipeline_of);
        (store, owners(reflected(events, writer, |_| true, changes)))
    }

    fn workload(&self, kind: Kind) -> (Store<DynamicObject>, Triggers) {
        let api: Api<DynamicObject> = self.scope.objects(self.client, &kind.resource());
        let writer = Writer::new(kind.resource());
        let store = writer.as_reader();
        let events = self.observed(watcher(api, of_ours()).modify(trim::workload), kind.name());
        let changes = Changes::new(trim::workload_print, pipeline_of);
        (store, owners(reflected(events, writer, |_| true, changes)))
    }

    fn pods(&self) -> (Store<DynamicObject>, Triggers) {
        let resource = trim::pod_resource();
        let api: Api<DynamicObject> = self.scope.objects(self.client, &resource);
        let writer = Writer::new(resource);
        let store = writer.as_reader();
        let events = self.observed(watcher(api, of_ours()).modify(trim::pod), "Pod");
        let changes = Changes::new(trim::pod_print, pipeline_of);
        (store, owners(reflected(events, writer, |_| true, changes)))
    }

    // All Secrets of the scope, because a pipeline may refer to any of its namespace; only ours are stored.
    // Of the others a number each is remembered.
    fn secrets(&self, pipelines: Store<Guarded>) -> (Store<ChildMeta>, Triggers) {
        let api: Api<ChildMeta> = self.scope.objects(self.client, &Kind::Secret.resource());
        let writer = Writer::new(Kind::Secret.resource());
        let store = writer.as_reader();
        let events = self.observed(watcher(api, watcher::Config::default()), Kind::Secret.name());
        let changes = Changes::new(|c: &ChildMeta| fingerprint::of(&c.metadata), pipeline_of);
        let touched = reflected(events, writer, is_ours, changes);
        let concerned = touched.flat_map(move |secret| {
            let referring = references::referring(&pipelines, &secret.namespace, &secret.name);
            stream::iter(secret.owner.into_iter().chain(referring))
        });
        (store, concerned.boxed())
    }

    // Failures of a watch are counted and told, and the stream goes on after a pause.
    fn observed<K: Send + 'static>(
        &self,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        kind: &'static str,
    ) -> BoxStream<'static, Event<K>> {
        let metrics = self.metrics.clone();
        let told = events.inspect(move |event| match event {
            Ok(_) => metrics.watch_works(kind),
            Err(error) => {
                metrics.watch_failed(kind);
                tracing::warn!(kind, %error, "a watch failed and is opened again");
            }
        });
        told.default_backoff().filter_map(|event| future::ready(event.ok())).boxed()
    }
}

// Stores what `keep` lets through, and yields what changed. An object is in the store before it is yielded.
fn reflected<K>(
    events: BoxStream<'static, Event<K>>,
    mut writer: Writer<K>,
    keep: fn(&K) -> bool,
    mut changes: Changes<K>,
) -> impl Stream<Item = Touched> + Send + 'static
where
    K: Resource + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq + Clone + Send + Sync,
{
    events.flat_map(move |event| {
        let touched = changes.observe(&event);
        match &event {
            Event::Apply(object) | Event::InitApply(object) if !keep(object) => {}
            _ => writer.apply_watcher_event(&event),
        }
        stream::iter(touched)
    })
}

fn owners(touched: impl Stream<Item = Touched> + Send + 'static) -> Triggers {
    touched.filter_map(|touched| future::ready(touched.owner)).boxed()
}

fn of_ours() -> watcher::Config {
    watcher::Config::default().labels(labels::SELECTOR)
}

fn is_ours(child: &ChildMeta) -> bool {
    let managed_by =
        child.metadata.labels.as_ref().and_then(|labels| labels.get(labels::MANAGED_BY));
    managed_by.is_some_and(|by| by == labels::OPERATOR)
}

fn itself(meta: &ObjectMeta) -> Option<ObjectRef<Guarded>> {
    Some(ObjectRef::new(meta.name.as_deref()?).within(meta.namespace.as_deref()?))
}

fn pipeline_of(meta: &ObjectMeta) -> Option<ObjectRef<Guarded>> {
    let name = meta.labels.as_ref()?.get(labels::PIPELINE)?;
    Some(ObjectRef::new(name).within(meta.namespace.as_deref()?))
}
