//! The configuration of what runs on a node.

use std::fs;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{BOOT, ENTER, INIT, Place, Supplies};
use crate::capabilities::cni_plugins;
use crate::error::{Error, OnFile};
use crate::image;
use crate::kubeconfig::{self, Proof};
use crate::pki::Subject;
use crate::process::Launch;
use crate::toolchain::Toolchain;

// === impl Place ===

impl Place {
    pub(super) fn write_files(&self, supplies: &Supplies<'_>) -> Result<(), Error> {
        self.write("boot.sh", BOOT)?;
        self.write("enter.sh", ENTER)?;
        self.write("init.sh", INIT)?;
        let doors = self.group.doors();
        let doors = doors.iter().map(|door| format!("{}\n", door.display()));
        self.write("doors", &doors.collect::<String>())?;
        self.write("resolv.conf", &format!("nameserver {}\n", self.addresses.host()))?;
        self.write_identity(supplies)?;
        self.write_json("cni/10-ringtail.conflist", &self.cni())?;
        self.write("containerd.toml", &self.containerd_config()?)?;
        self.write_json("kubelet.json", &self.kubelet_config(supplies))?;
        self.write_json("kube-proxy.json", &self.kube_proxy_config(supplies))
    }

    pub(super) fn containerd(&self) -> Launch {
        self.inside(["containerd".into(), "--config".into(), self.path("containerd.toml")])
    }

    pub(super) fn kubelet(&self, toolchain: &Toolchain) -> Launch {
        let flags = [
            format!("--config={}", self.path("kubelet.json").display()),
            format!("--kubeconfig={}", self.path("kubelet.conf").display()),
            format!("--node-ip={}", self.addresses.node(self.number)),
            format!("--hostname-override={}", self.name),
        ];
        let program = toolchain.program("kubelet").display().to_string();
        self.inside(std::iter::once(program).chain(flags))
    }

    pub(super) fn kube_proxy(&self, toolchain: &Toolchain) -> Launch {
        let config = format!("--config={}", self.path("kube-proxy.json").display());
        self.inside([toolchain.program("kube-proxy").display().to_string(), config])
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path(name);
        fs::write(&path, text).on("write", &path)
    }

    fn write_json(&self, name: &str, value: &Value) -> Result<(), Error> {
        self.write(name, &format!("{value:#}\n"))
    }

    fn write_identity(&self, supplies: &Supplies<'_>) -> Result<(), Error> {
        let user = format!("system:node:{}", self.name);
        let subject = Subject { name: &user, group: Some("system:nodes") };
        let address = IpAddr::V4(self.addresses.node(self.number));
        let identity = supplies.pki.server(&self.name, &subject, &[&self.name], &[address])?;
        let authority = &supplies.pki.cluster.certificate;
        let proof = Proof::Certificate(&identity);
        kubeconfig::write(&self.path("kubelet.conf"), supplies.server, authority, &proof)
    }

    /// Each pod is on a cable of its own, and routes lead to it: no bridge, no overlay, no translation.
    fn cni(&self) -> Value {
        json!({
            "cniVersion": "0.4.0",
            "name": "ringtail",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": false,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.path("leases"),
                        "ranges": [[{ "subnet": self.addresses.pods(self.number) }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        })
    }

    fn containerd_config(&self) -> Result<String, Error> {
        let plugins =
            cni_plugins().map_err(|why| Error::Lacking(format!("  CNI plugins: {why}")))?;
        let (plugins, networks) = (plugins.display(), self.path("cni"));
        let (pause, networks) = (image::PAUSE, networks.display());
        // Raising the priority of the kubelet's helpers and AppArmor profiles are not for a container's
        // root to do.
        Ok(format!(
            r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
        ))
    }

    fn kubelet_config(&self, supplies: &Supplies<'_>) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true },
                "x509": { "clientCAFile": supplies.pki.path("ca.crt") },
            },
            "authorization": { "mode": "Webhook" },
            "tlsCertFile": supplies.pki.path(&format!("{}.crt", self.name)),
            "tlsPrivateKeyFile": supplies.pki.path(&format!("{}.key", self.name)),
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.group.root(),
            "enforceNodeAllocatable": ["pods"],
            // Refused by default since 1.35; a machine that has only version 1 is good enough for tests.
            "failCgroupV1": false,
            "failSwapOn": false,
            "maxOpenFiles": 20_000,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": false,
            "clusterDNS": [self.addresses.host()],
            "clusterDomain": "cluster.local",
            "resolvConf": self.path("resolv.conf"),
            "volumePluginDir": "/var/lib/kubelet/volumeplugins",
            "nodeStatusUpdateFrequency": "3s",
            // Nodes share the machine's disk and memory: its being full is no reason to evict all pods
            // thrice.
            "evictionHard": {
                "memory.available": "200Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
            },
        })
    }

    fn kube_proxy_config(&self, supplies: &Supplies<'_>) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": { "kubeconfig": supplies.run.path("kube-proxy.conf") },
            "clusterCIDR": self.addresses.all(),
            "hostnameOverride": self.name,
            // Limits of connection tracking are the machine's, and stay as they are.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
            "nftables": { "minSyncPeriod": "100ms" },
        })
    }
}
