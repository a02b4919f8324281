//! etcd, API server, controllers and scheduler: their arguments, and the order in which they start.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use crate::audit;
use crate::cluster::client;
use crate::error::{Error, OnFile};
use crate::kubeconfig::{self, Proof};
use crate::network::{self, Addresses};
use crate::options::Options;
use crate::pki::{Pki, Subject};
use crate::process::{Launch, Process};
use crate::run::Run;
use crate::toolchain::Toolchain;
use crate::wait;

/// A loaded machine with two cores takes about ten seconds; this is for the day when it has much else to do.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// For one answer to one question about readiness.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The processes of a control plane.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    // Dropped in this order: whoever writes goes before what it writes to.
    pub(crate) scheduler: Process,
    pub(crate) controller_manager: Process,
    pub(crate) api_server: Process,
    pub(crate) etcd: Process,
    /// Where the API server is.
    pub(crate) server: String,
    /// Where etcd is, as the API server sees it.
    pub(crate) etcd_address: String,
}

/// Where the processes of one control plane listen.
struct Ports {
    address: Ipv4Addr,
    api: u16,
    etcd: u16,
    etcd_peer: u16,
}

/// What the steps of a start share.
pub(crate) struct Site<'a> {
    pub(crate) run: &'a Run,
    pub(crate) pki: &'a Pki,
    pub(crate) toolchain: &'a Toolchain,
    pub(crate) options: &'a Options,
    /// None on loopback.
    pub(crate) addresses: Option<Addresses>,
}

// === impl Ports ===

impl Ports {
    fn choose(addresses: Option<Addresses>) -> Result<Self, Error> {
        if let Some(addresses) = addresses {
            // Alone in a network namespace: the usual ports are free.
            let address = addresses.control_plane();
            return Ok(Self { address, api: 6443, etcd: 2379, etcd_peer: 2380 });
        }
        // Held all at once, so that the kernel cannot give the same one twice.
        let listeners = [0; 3].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let mut ports = [0; 3];
        for (port, listener) in ports.iter_mut().zip(listeners) {
            let address = listener.and_then(|listener| listener.local_addr());
            *port = address.on("find a free port on", "127.0.0.1")?.port();
        }
        let [api, etcd, etcd_peer] = ports;
        Ok(Self { address: Ipv4Addr::LOCALHOST, api, etcd, etcd_peer })
    }

    fn etcd_address(&self) -> String {
        format!("127.0.0.1:{}", self.etcd)
    }

    fn etcd_url(&self) -> String {
        format!("http://{}", self.etcd_address())
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts the four processes and waits until the API server serves and the controllers work.
    pub(crate) async fn start(site: &Site<'_>) -> Result<Self, Error> {
        let ports = Ports::choose(site.addresses)?;
        let server = format!("https://{}:{}", ports.address, ports.api);
        site.write_kubeconfigs(&server)?;
        let etcd = site.start("etcd", etcd_flags(site, &ports))?;
        let api_server = site.start("kube-apiserver", api_server_flags(site, &ports)?)?;
        let client = client(&site.run.path("admin.conf")).await?;
        let started = [&etcd, &api_server];
        wait::until(READY_WITHIN, "a ready API server", &started, async || ready(&client).await)
            .await?;
        let controllers = controller_flags(site);
        let controller_manager = site.start("kube-controller-manager", controllers)?;
        let scheduler = site.start("kube-scheduler", scheduler_flags(site))?;
        let all = [&etcd, &api_server, &controller_manager, &scheduler];
        // The last thing that a fresh cluster gets, and the first that a pod needs.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        wait::until(READY_WITHIN, "the service account `default`", &all, async || {
            accounts.get_opt("default").await.ok().flatten()
        })
        .await?;
        let etcd_address = ports.etcd_address();
        Ok(Self { scheduler, controller_manager, api_server, etcd, server, etcd_address })
    }

    pub(crate) async fn wait_until_ready(
        &self,
        client: &Client,
        within: Duration,
    ) -> Result<(), Error> {
        let both = [&self.etcd, &self.api_server];
        wait::until(within, "a ready API server", &both, async || ready(client).await).await
    }
}

/// Whether the API server serves everything.
async fn ready(client: &Client) -> Option<()> {
    let request = http::Request::get("/readyz").body(Vec::new()).ok()?;
    // A frozen server takes the connection and never answers.
    let answer = tokio::time::timeout(ANSWER_WITHIN, client.request_text(request)).await;
    answer.ok()?.ok().map(|_| ())
}

// === impl Site ===

impl Site<'_> {
    fn start(&self, name: &str, flags: Vec<OsString>) -> Result<Process, Error> {
        let program = self.toolchain.program(name).into_os_string();
        let mut launch = Launch::new(std::iter::once(program).chain(flags));
        if self.addresses.is_some() {
            let space = format!("--net={}", network::space_file(&self.run.name));
            launch = launch.behind(["nsenter", &space, "--"]);
        }
        Process::start(name, launch, &self.run.mark, &self.run.logs())
    }

    fn write_kubeconfigs(&self, server: &str) -> Result<(), Error> {
        let users = [
            ("admin", "admin", Some("system:masters")),
            ("controller-manager", "system:kube-controller-manager", None),
            ("scheduler", "system:kube-scheduler", None),
            ("kube-proxy", "system:kube-proxy", None),
        ];
        for (file, name, group) in users {
            let identity = self.pki.client(file, &Subject { name, group })?;
            let path = self.run.path(&format!("{file}.conf"));
            let proof = Proof::Certificate(&identity);
            kubeconfig::write(&path, server, &self.pki.cluster.certificate, &proof)?;
        }
        Ok(())
    }
}

/// Builds a list of `--name=value`.
#[derive(Default)]
struct Flags(Vec<OsString>);

impl Flags {
    fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        let mut flag = OsString::from(format!("--{name}="));
        flag.push(value.into());
        self.0.push(flag);
        self
    }
}

fn etcd_flags(site: &Site<'_>, ports: &Ports) -> Vec<OsString> {
    let peer = format!("http://127.0.0.1:{}", ports.etcd_peer);
    Flags::default()
        .with("name", "ringtail")
        .with("data-dir", site.run.path("etcd"))
        // The data lives as long as the run. Waiting for the disk would only make tests slow.
        .with("unsafe-no-fsync", "true")
        .with("log-level", "warn")
        .with("listen-client-urls", ports.etcd_url())
        .with("advertise-client-urls", ports.etcd_url())
        .with("listen-peer-urls", &peer)
        .with("initial-advertise-peer-urls", &peer)
        .with("initial-cluster", format!("ringtail={peer}"))
        .0
}

fn api_server_flags(site: &Site<'_>, ports: &Ports) -> Result<Vec<OsString>, Error> {
    let (run, pki) = (site.run, site.pki);
    let policy = run.path("audit.yaml");
    fs::write(&policy, audit::POLICY).on("write", &policy)?;
    let first_service = match site.addresses {
        Some(addresses) => addresses.first_service(),
        None => LOOPBACK_FIRST_SERVICE,
    };
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let addresses = [ports.address, Ipv4Addr::LOCALHOST, first_service].map(IpAddr::V4);
    let subject = Subject { name: "kube-apiserver", group: None };
    let serving = pki.server("apiserver", &subject, &names, &addresses)?;
    let subject = Subject { name: "apiserver-kubelet-client", group: Some("system:masters") };
    let kubelet_client = pki.client("apiserver-kubelet-client", &subject)?;
    let front = pki.front_client("front-proxy-client")?;
    let mut flags = Flags::default()
        .with("etcd-servers", ports.etcd_url())
        .with("bind-address", ports.address.to_string())
        .with("secure-port", ports.api.to_string())
        .with("tls-cert-file", serving.certificate_file)
        .with("tls-private-key-file", serving.key_file)
        .with("client-ca-file", pki.path("ca.crt"))
        .with("kubelet-client-certificate", kubelet_client.certificate_file)
        .with("kubelet-client-key", kubelet_client.key_file)
        .with("kubelet-certificate-authority", pki.path("ca.crt"))
        .with("kubelet-preferred-address-types", "InternalIP")
        .with("service-account-issuer", "https://kubernetes.default.svc")
        .with("service-account-key-file", pki.path("tokens.pub"))
        .with("service-account-signing-key-file", pki.path("tokens.key"))
        .with("requestheader-client-ca-file", pki.path("front-proxy-ca.crt"))
        .with("requestheader-allowed-names", "front-proxy-client")
        .with("requestheader-username-headers", "X-Remote-User")
        .with("requestheader-group-headers", "X-Remote-Group")
        .with("requestheader-extra-headers-prefix", "X-Remote-Extra-")
        .with("proxy-client-cert-file", front.certificate_file)
        .with("proxy-client-key-file", front.key_file)
        .with("enable-aggregator-routing", "true")
        .with("authorization-mode", "Node,RBAC")
        .with("enable-admission-plugins", "NodeRestriction")
        .with("allow-privileged", "true")
        .with("anonymous-auth", "false")
        .with("profiling", "false")
        .with("audit-policy-file", policy)
        .with("audit-log-path", run.path("audit.jsonl"))
        // A test that takes a node away does not wait the five minutes of a real cluster for the pods to go.
        .with("default-not-ready-toleration-seconds", "20")
        .with("default-unreachable-toleration-seconds", "20");
    flags = match site.addresses {
        Some(addresses) => flags.with("service-cluster-ip-range", addresses.services()),
        // On loopback no pod will ever call; and a loopback address is refused as an endpoint.
        None => flags
            .with("service-cluster-ip-range", format!("{LOOPBACK_SERVICES}/24"))
            .with("endpoint-reconciler-type", "none"),
    };
    let own = site.options.api_server_flags.iter().map(OsString::from);
    Ok(flags.0.into_iter().chain(own).collect())
}

/// Service addresses of a cluster on loopback: handed out, never used.
const LOOPBACK_SERVICES: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 0);
const LOOPBACK_FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 1);

fn controller_flags(site: &Site<'_>) -> Vec<OsString> {
    let config = site.run.path("controller-manager.conf");
    let flags = Flags::default()
        .with("kubeconfig", config)
        .with("root-ca-file", site.pki.path("ca.crt"))
        .with("service-account-private-key-file", site.pki.path("tokens.key"))
        .with("cluster-signing-cert-file", site.pki.path("ca.crt"))
        .with("cluster-signing-key-file", site.pki.path("ca.key"))
        .with("use-service-account-credentials", "true")
        // The defaults (20 and 30) let the start and every garbage collection take seconds longer.
        .with("kube-api-qps", "500")
        .with("kube-api-burst", "1000")
        .with("leader-elect", "false")
        .with("secure-port", "0")
        // By default it makes this folder under /usr.
        .with("flex-volume-plugin-dir", site.run.path("volumeplugins"))
        .with("allocate-node-cidrs", "false")
        .with("node-monitor-period", "2s")
        .with("node-monitor-grace-period", "15s");
    flags.0.into_iter().chain(site.options.controller_flags.iter().map(OsString::from)).collect()
}

fn scheduler_flags(site: &Site<'_>) -> Vec<OsString> {
    Flags::default()
        .with("kubeconfig", site.run.path("scheduler.conf"))
        .with("kube-api-qps", "500")
        .with("kube-api-burst", "1000")
        .with("leader-elect", "false")
        .with("secure-port", "0")
        .0
}
