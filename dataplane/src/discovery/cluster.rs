//! The Kubernetes source: EndpointSlices of one Service and one ConfigMap, each followed by a watch that
//! never gives up and never forgets what it last saw.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::client::ClientBuilder;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use self::pace::Pace;
use super::slices::{self, Conditions, Endpoint, PortChoice, Slice};
use super::{Candidates, Discovery, Health};
use crate::transport::Backoff;

mod pace;

/// The label by which a Service's slices are found.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The key of the manifest in its ConfigMap.
pub const MANIFEST_KEY: &str = "pipeline.yaml";
/// The pause after a failed attempt is anything up to this, doubling with each failure: 2,000 agents whose
/// API server comes back ask it 1,000 times a second at first and 67 times a second in the long run.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Connecting to an API server that is there takes milliseconds.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A request that is silent for so long is given up. Servers end a watch after 290 s.
const SILENT_MAX: Duration = Duration::from_secs(300);
/// Slices a page: the default of kubectl and the API's own clients.
const PAGE: u32 = 500;

/// The API server, as one process of one namespace uses it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    slices: Arc<Health>,
    config: Arc<Health>,
}

/// Why there is no way to the API server. A server that cannot be reached now is none of these.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Neither KUBECONFIG nor the service account does.
    #[error(
        "the cluster's configuration cannot be read: {0}; mend it, or name the addresses with --gateway \
         (agent) or --peer (gateway)"
    )]
    Infer(#[from] Box<InferConfigError>),
    /// The file that was named does not do.
    #[error("--kubeconfig: {0}")]
    File(#[from] Box<KubeconfigError>),
    /// Certificates or tokens cannot be used.
    #[error("the cluster's configuration cannot be used: {0}")]
    Client(#[from] Box<kube::Error>),
}

/// What a watch has seen: the newest state of every object, and a listing under way.
struct Mirror<T> {
    current: BTreeMap<String, T>,
    listing: BTreeMap<String, T>,
}

// === impl Cluster ===

impl Cluster {
    /// Reads the configuration: `kubeconfig`, else what kube clients infer (KUBECONFIG, the home directory,
    /// the pod's service account). `namespace` replaces the one that is configured there.
    ///
    /// Nothing is asked of the server yet.
    ///
    /// # Errors
    /// When there is no configuration, or it cannot be used.
    pub async fn configure(
        kubeconfig: Option<&Path>,
        namespace: Option<String>,
    ) -> Result<Self, ClusterError> {
        let mut config = match kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(Box::new)?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(file, &options).await.map_err(Box::new)?
            }
            None => Config::infer().await.map_err(Box::new)?,
        };
        config.connect_timeout = Some(CONNECT_WITHIN);
        config.read_timeout = Some(SILENT_MAX);
        config.reset_reader_on_write = true;
        // Pauses are ours to make: the client's own retries would hide failures for minutes.
        config.default_retry = false;
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let [slices, manifest] = [(); 2].map(|()| Arc::new(Health::new("k8s")));
        let pace = Pace::new(Arc::clone(&slices), Arc::clone(&manifest));
        let builder = ClientBuilder::try_from(config).map_err(Box::new)?;
        let client = builder.with_layer(&pace).build();
        Ok(Self { client, namespace, slices, config: manifest })
    }

    /// Follows the EndpointSlices of a Service.
    pub fn gateways(&self, service: &str, port: PortChoice<'static>) -> Discovery {
        let (list, candidates) = watch::channel::<Candidates>(None);
        let health = Arc::clone(&self.slices);
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let config = watcher::Config::default()
            .labels(&format!("{SERVICE_LABEL}={service}"))
            .page_size(PAGE);
        let service = service.to_owned();
        let bound = Arc::clone(&health);
        let note = move |slices: &BTreeMap<String, Slice>| {
            let found = slices::candidates(slices.values(), port);
            publish(&list, found, &bound, &service);
        };
        let resource = "endpointslices";
        tokio::spawn(follow(api, config, Arc::clone(&health), resource, read_slice, note));
        Discovery { candidates, health }
    }

    /// Follows the manifest in a ConfigMap; `None` until it was seen. One that is deleted stays.
    pub fn manifest(&self, name: &str) -> (watch::Receiver<Option<Arc<str>>>, Arc<Health>) {
        let (text, texts) = watch::channel(None);
        let health = Arc::clone(&self.config);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        // This selector is also what a Role with `resourceNames` allows.
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let read = |map: ConfigMap| map.data.and_then(|mut data| data.remove(MANIFEST_KEY));
        let note = move |maps: &BTreeMap<String, Option<String>>| {
            if let Some(manifest) = maps.values().next().and_then(Option::as_deref) {
                text.send_replace(Some(Arc::from(manifest)));
            }
        };
        tokio::spawn(follow(api, config, Arc::clone(&health), "configmaps", read, note));
        (texts, health)
    }
}

/// An empty list is not believed when there was another: whoever is really gone does not answer either, and
/// a list may be empty because a Service was deleted by mistake.
fn publish(
    list: &watch::Sender<Candidates>,
    found: Vec<super::Candidate>,
    health: &Health,
    service: &str,
) {
    let found = health.bounded(found);
    let known = list.borrow().clone();
    if found.is_empty() && known.as_ref().is_some_and(|known| !known.is_empty()) {
        tracing::warn!(service, "the Service lists no gateway any more; the last list stays");
        return;
    }
    if known.as_ref() != Some(&found) {
        tracing::info!(service, candidates = found.len(), "discovery");
        list.send_replace(Some(found));
    }
}

/// Watches for as long as the process runs; `note` gets the whole state after every change of it.
async fn follow<K, T>(
    api: Api<K>,
    config: watcher::Config,
    health: Arc<Health>,
    resource: &'static str,
    read: impl Fn(K) -> T,
    mut note: impl FnMut(&BTreeMap<String, T>),
) where
    K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, config));
    let mut mirror = Mirror { current: BTreeMap::new(), listing: BTreeMap::new() };
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    while let Some(event) = events.next().await {
        match event {
            // The watcher says so before it asks; nothing has worked yet.
            Ok(watcher::Event::Init) => mirror.listing.clear(),
            Ok(event) => {
                if mirror.take(event, &read) {
                    backoff.succeed();
                    health.succeed();
                    note(&mirror.current);
                }
            }
            Err(error) => {
                health.fail();
                let pause = backoff.fail(fastrand::f64());
                tracing::warn!(resource, %error, ?pause, "the watch failed; what was last known stays");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn read_slice(slice: EndpointSlice) -> Slice {
    let port = |port: k8s_openapi::api::discovery::v1::EndpointPort| {
        let number = port.port.and_then(|number| u16::try_from(number).ok())?;
        Some((port.name.unwrap_or_default(), number))
    };
    let endpoint = |endpoint: k8s_openapi::api::discovery::v1::Endpoint| {
        let conditions = endpoint.conditions.unwrap_or_default();
        let pod = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod"));
        Endpoint {
            addresses: endpoint.addresses,
            pod: pod.and_then(|pod| pod.name),
            conditions: Conditions {
                ready: conditions.ready,
                serving: conditions.serving,
                terminating: conditions.terminating,
            },
        }
    };
    Slice {
        ports: slice.ports.unwrap_or_default().into_iter().filter_map(port).collect(),
        endpoints: slice.endpoints.into_iter().map(endpoint).collect(),
    }
}

// === impl Mirror ===

impl<T> Mirror<T> {
    /// Applies an event; true when `current` is complete and may have changed.
    fn take<K: ResourceExt>(&mut self, event: watcher::Event<K>, read: impl Fn(K) -> T) -> bool {
        match event {
            watcher::Event::Init => {
                self.listing.clear();
                return false;
            }
            watcher::Event::InitApply(object) => {
                self.listing.insert(object.name_any(), read(object));
                return false;
            }
            watcher::Event::InitDone => self.current = std::mem::take(&mut self.listing),
            watcher::Event::Apply(object) => {
                self.current.insert(object.name_any(), read(object));
            }
            watcher::Event::Delete(object) => {
                self.current.remove(&object.name_any());
            }
        }
        true
    }
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
