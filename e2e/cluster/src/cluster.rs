//! A running cluster, in one value: dropping it ends and removes everything of it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::audit::Audit;
use crate::capabilities::{Capabilities, Level};
use crate::command;
use crate::control_plane::{ControlPlane, Site};
use crate::dns::Dns;
use crate::error::{Error, OnFile};
use crate::etcd;
use crate::image;
use crate::kubeconfig::{self, Proof};
use crate::network::{self, Addresses};
use crate::node::{Node, Supplies};
use crate::options::Options;
use crate::pki::Pki;
use crate::process::Process;
use crate::run::Run;
use crate::toolchain::Toolchain;
use crate::wait;

/// How long a token lasts that a test asks for: longer than any test, shorter than the API server's limit.
const TOKEN_SECONDS: i64 = 3600;

/// Three nodes take some three seconds on two idle cores.
const NODES_READY_WITHIN: Duration = Duration::from_secs(120);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: processes, then what they stand on.
    nodes: Vec<Node>,
    _dns: Option<Dns>,
    /// Archives that every node gets, also one that comes later.
    images: Mutex<Vec<PathBuf>>,
    plane: ControlPlane,
    pki: Pki,
    toolchain: Toolchain,
    options: Options,
    run: Run,
}

// === impl Cluster ===

impl Cluster {
    /// Starts a cluster and waits until it works. The programs must have been built;
    /// `ringtail_cluster::require` tells a test whether they are.
    pub async fn start(options: Options) -> Result<Self, Error> {
        Capabilities::report().check(options.level)?;
        let toolchain = Toolchain::find()?;
        let run = Run::claim()?;
        let addresses = match options.level {
            Level::ControlPlane => None,
            Level::Nodes => Some(run.make_network()?),
        };
        let pki = Pki::create(run.path("pki"))?;
        let site =
            Site { run: &run, pki: &pki, toolchain: &toolchain, options: &options, addresses };
        let plane = ControlPlane::start(&site).await?;
        let (mut images, mut dns) = (Vec::new(), None);
        if let Some(addresses) = addresses {
            images.push(image::write(&toolchain.program("pause"), &run.path("pause.tar"))?);
            dns = Some(Dns::start(addresses.host(), run.path("admin.conf"))?);
        }
        let (nodes, images, count) = (Vec::new(), Mutex::new(images), options.nodes);
        let mut cluster = Self { nodes, _dns: dns, images, plane, pki, toolchain, options, run };
        cluster.add_nodes(count).await?;
        Ok(cluster)
    }

    /// Adds nodes and waits until all are Ready.
    pub async fn add_nodes(&mut self, count: u8) -> Result<(), Error> {
        let first = u8::try_from(self.nodes.len()).unwrap_or(u8::MAX).saturating_add(1);
        let last = first.saturating_add(count).saturating_sub(1);
        if count == 0 {
            return Ok(());
        }
        if self.options.level < Level::Nodes || last > network::NODES_MAX {
            let most = network::NODES_MAX;
            let problem = format!(
                "node {last}: only a cluster of `Options::nodes` has nodes, {most} at most"
            );
            return Err(Error::Misuse(problem));
        }
        let images = self.images().clone();
        let supplies = Supplies {
            run: &self.run,
            toolchain: &self.toolchain,
            pki: &self.pki,
            server: &self.plane.server,
            addresses: Addresses::new(self.run.slot),
            images: &images,
        };
        let started = join_all((first..=last).map(|number| Node::start(&supplies, number))).await;
        for node in started {
            self.nodes.push(node?);
        }
        self.wait_until_nodes_ready(NODES_READY_WITHIN).await
    }

    /// Waits until every node is Ready.
    pub async fn wait_until_nodes_ready(&self, within: Duration) -> Result<(), Error> {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client().await?);
        let kubelets: Vec<_> = self.nodes.iter().map(Node::kubelet).collect();
        wait::until(within, "the readiness of every node", &kubelets, async || {
            let list = nodes.list(&ListParams::default()).await.ok()?;
            let ready = list.iter().filter(|node| is_ready(node)).count();
            (ready >= self.nodes.len()).then_some(())
        })
        .await
    }

    /// Gives every node the images of an archive, also nodes that are added later.
    pub async fn load_image(&self, archive: &Path) -> Result<(), Error> {
        for loaded in join_all(self.nodes.iter().map(|node| node.load_image(archive))).await {
            loaded?;
        }
        self.images().push(archive.to_owned());
        Ok(())
    }

    /// The nodes: `n1`, `n2`, ...
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn images(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client with all rights, which lives on the runtime that calls.
    pub async fn client(&self) -> Result<Client, Error> {
        client(&self.kubeconfig()).await
    }

    /// A client that is this service account: what it may do is what RBAC lets it.
    pub async fn client_for_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Client, Error> {
        client(&self.kubeconfig_for_service_account(namespace, name).await?).await
    }

    /// The kubeconfig with all rights. It needs no other file.
    pub fn kubeconfig(&self) -> PathBuf {
        self.run.path("admin.conf")
    }

    /// A kubeconfig with a fresh token of this service account, for a program that is to run as it.
    pub async fn kubeconfig_for_service_account(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<PathBuf, Error> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let spec =
            TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..Default::default() };
        let request = TokenRequest { spec, ..Default::default() };
        let params = PostParams::default();
        let granted = accounts.create_token_request(name, &params, &request).await?;
        let token = granted.status.map(|status| status.token).unwrap_or_default();
        let path = self.run.path(&format!("account-{namespace}-{name}.conf"));
        let authority = &self.pki.cluster.certificate;
        kubeconfig::write(&path, &self.plane.server, authority, &Proof::Token(&token))?;
        Ok(path)
    }

    /// The URL of the API server.
    pub fn server(&self) -> &str {
        &self.plane.server
    }

    /// Makes etcd forget all history. Only on loopback: with nodes, etcd is out of this process's reach.
    ///
    /// The API server answers most watches from memory; `--watch-cache=false` sends all of them to etcd.
    pub async fn compact(&self) -> Result<(), Error> {
        if self.options.level > Level::ControlPlane {
            return Err(Error::Misuse(
                "only a cluster of `Options::control_plane` compacts".to_owned(),
            ));
        }
        etcd::compact(&self.plane.etcd_address).await
    }

    /// Runs kubectl with all rights and returns what it prints.
    pub async fn kubectl<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<String, Error> {
        finish(self.command("kubectl", args)).await
    }

    /// Runs kubectl on a manifest, such as `cluster.kubectl_with(&["apply", "-f", "-"], manifest)`.
    pub async fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String, Error> {
        let path = self.run.path("input");
        let file = tempfile::NamedTempFile::new_in(&self.run.folder).on("create", &path)?;
        std::fs::write(file.path(), input).on("write", file.path())?;
        let mut kubectl = self.command("kubectl", args);
        kubectl.stdin(std::fs::File::open(file.path()).on("open", file.path())?);
        finish(kubectl).await
    }

    /// Runs helm with all rights and returns what it prints.
    pub async fn helm<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<String, Error> {
        finish(self.command("helm", args)).await
    }

    /// One of the programs, prepared to speak to this cluster with all rights.
    pub fn command<A: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = command::command(self.toolchain.program(program));
        command.args(args).env("KUBECONFIG", self.kubeconfig());
        // Clusters come and go at the same address; what a person's home remembers of one is wrong for the
        // next.
        command.env("KUBECACHEDIR", self.run.path("kubecache"));
        for (variable, folder) in [
            ("HELM_CACHE_HOME", "helm/cache"),
            ("HELM_CONFIG_HOME", "helm/config"),
            ("HELM_DATA_HOME", "helm/data"),
        ] {
            command.env(variable, self.run.path(folder));
        }
        command
    }

    /// The API server: freeze it and clients hang, kill it and they are refused.
    pub fn api_server(&self) -> &Process {
        &self.plane.api_server
    }

    /// The store behind the API server.
    pub fn etcd(&self) -> &Process {
        &self.plane.etcd
    }

    /// The controllers: garbage collector, Deployments, DaemonSets, EndpointSlices, HPA, ...
    pub fn controller_manager(&self) -> &Process {
        &self.plane.controller_manager
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &Process {
        &self.plane.scheduler
    }

    /// Waits until the API server says that it is ready, for example after a restart.
    pub async fn wait_until_ready(&self, within: Duration) -> Result<(), Error> {
        self.plane.wait_until_ready(&self.client().await?, within).await
    }

    /// A reader of the audit log, from its beginning.
    pub fn audit(&self) -> Audit {
        Audit::new(self.run.path("audit.jsonl"))
    }

    /// The folder of logs, one file a process.
    pub fn logs(&self) -> PathBuf {
        self.run.logs()
    }

    /// What was asked for at the start.
    pub fn options(&self) -> &Options {
        &self.options
    }
}

fn is_ready(node: &k8s_openapi::api::core::v1::Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A client by a kubeconfig file.
pub(crate) async fn client(path: &Path) -> Result<Client, Error> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(Client::try_from(config)?)
}

/// Runs a command without holding up the runtime's other tasks.
pub(crate) async fn finish(command: Command) -> Result<String, Error> {
    let mut running = tokio::process::Command::from(command);
    let output = running.kill_on_drop(true).output().await;
    command::outcome(running.as_std(), output)
}
