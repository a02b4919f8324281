//! The fleet of pipeline `shop` as it runs in a cluster: real processes, found through an API server.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::api::{Api, SERVING, Standing};
use crate::certificates::Authority;
use crate::process::{Ended, Process};

/// Its manifest; `WAIT` and `POLICIES` are to be replaced.
const MANIFEST: &str = r#"
apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {name: shop}
spec:
  sampling:
    decisionWait: WAIT
    policies: [POLICIES]
  exporters:
    - name: backend
      type: OTLP
      otlp:
        endpoint: "http://127.0.0.1:1"
        protocol: GRPC
        retry: {initialInterval: 50ms, maxInterval: 200ms}
"#;

/// Keeps traces with an error.
pub const ERRORS: &str = "{name: errors, type: StatusCode, statusCode: {statusCodes: [Error]}}";
/// Keeps every trace.
pub const ALL: &str = "{name: all, type: AlwaysSample}";

/// Agents and gateways of pipeline `shop`, with their API server.
#[derive(Debug)]
pub struct Shop {
    /// The API server.
    pub api: Api,
    /// Its agents.
    pub agents: Vec<Process>,
    /// Its gateways.
    pub gateways: Vec<Process>,
    backend: String,
    manifest: PathBuf,
    kubeconfig: PathBuf,
    /// Whether tiers have certificates, in directories of their names.
    tls: bool,
    // Removed with the fleet.
    directory: TempDir,
}

/// The manifest with this wait and these policies.
pub fn manifest(wait: &str, policies: &str) -> String {
    MANIFEST.replace("WAIT", wait).replace("POLICIES", policies)
}

// === impl Shop ===

impl Shop {
    /// A fleet without processes that exports to `backend`.
    pub fn open(manifest: &str, backend: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let api = Api::start();
        let path = directory.path().join("pipeline.yaml");
        std::fs::write(&path, manifest).expect("the manifest is written");
        api.put_manifest("shop", manifest);
        Self {
            kubeconfig: api.kubeconfig(directory.path()),
            api,
            agents: Vec::new(),
            gateways: Vec::new(),
            backend: backend.to_owned(),
            manifest: path,
            tls: false,
            directory,
        }
    }

    /// A fleet of so many agents and gateways that all agree.
    pub fn start(manifest: &str, backend: &str, agents: usize, gateways: usize) -> Self {
        let mut shop = Self::open(manifest, backend);
        for index in 0..gateways {
            shop.add_gateway(&format!("gw-{index}"), &[]);
            shop.list(index, SERVING);
        }
        for index in 0..agents {
            shop.add_agent(&format!("agent-{index}"));
        }
        shop.await_members(gateways);
        shop
    }

    /// New certificates of both tiers, by this authority; these are trusted.
    pub fn certify(&mut self, authority: &Authority, trusted: &[&Authority]) {
        for tier in ["agent", "gateway"] {
            authority.issue(self.directory.path(), tier, trusted);
        }
        self.tls = true;
    }

    /// Starts a gateway; nothing lists it yet.
    pub fn add_gateway(&mut self, id: &str, extra: &[&str]) {
        let export = format!("backend={}", self.backend);
        let mut args = vec!["gateway", "--identity", id, "--export", &export, "--threads", "1"];
        args.extend(extra);
        let gateway = self.process(&args);
        self.gateways.push(gateway);
    }

    /// Starts an agent.
    pub fn add_agent(&mut self, id: &str) {
        let agent = self.process(&["agent", "--identity", id]);
        self.agents.push(agent);
    }

    fn process(&self, args: &[&str]) -> Process {
        let [manifest, kubeconfig] =
            [&self.manifest, &self.kubeconfig].map(|path| path.to_str().expect("UTF-8"));
        let mut args = args.to_vec();
        let certificates = self.directory.path().join(args[0]);
        let certificates = certificates.to_str().expect("UTF-8");
        args.extend(["--pipeline", manifest, "--kubeconfig", kubeconfig]);
        if self.tls && args[0] == "gateway" {
            args.extend(["--peer-listen", "127.0.0.1:0"]);
        }
        if self.tls {
            args.extend(["--peer-tls", certificates]);
        }
        Process::start(&args)
    }

    /// Lists a gateway in both Services of the pipeline: those that are not ready only with the peers.
    pub fn list(&self, index: usize, standing: Standing) {
        let gateway = &self.gateways[index];
        let id = gateway.stats().identity;
        for service in ["shop-gateway-headless", "shop-gateway-peers"] {
            let listening = &gateway.listening;
            let port = match listening.peer {
                Some(peer) => ("peer", peer),
                None => ("otlp-grpc", listening.otlp_grpc),
            };
            self.api.put_endpoint(service, &id, port, standing);
        }
    }

    /// Takes a gateway out of both Services.
    pub fn unlist(&self, id: &str) {
        for service in ["shop-gateway-headless", "shop-gateway-peers"] {
            self.api.remove_endpoint(service, id);
        }
    }

    /// Everybody.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.agents.iter().chain(&self.gateways)
    }

    /// Waits until everybody has so many members and one digest, and returns it.
    pub fn await_members(&self, members: usize) -> String {
        let mut digests = Vec::new();
        for process in self.processes() {
            let stats =
                process.wait_for("a full ring", |stats| stats.ring.members.len() == members);
            digests.push(stats.ring.digest);
        }
        digests.dedup();
        assert_eq!(digests.len(), 1, "everybody sees one ring: {digests:?}");
        digests.remove(0)
    }

    /// The file that processes were started with.
    pub fn manifest_file(&self) -> &PathBuf {
        &self.manifest
    }

    /// A directory that lives as long as the fleet.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Stops agents, then gateways; checks that every ledger balances and every exit code is 0.
    pub fn stop(self) -> (Vec<Ended>, Vec<Ended>) {
        let stop = |processes: Vec<Process>| -> Vec<Ended> {
            processes.into_iter().map(Process::stop_balanced).collect()
        };
        (stop(self.agents), stop(self.gateways))
    }
}
