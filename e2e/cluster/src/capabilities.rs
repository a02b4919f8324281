//! What this machine can carry, what it lacks, and the remedy for each.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::command;
use crate::error::Error;
use crate::toolchain::Toolchain;

/// Set to `1`, it turns skipped tests into failures: for machines that are meant to have everything.
pub const STRICT_VARIABLE: &str = "RINGTAIL_CLUSTER_REQUIRED";

/// Debian's names of what a node needs.
const PACKAGES: [&str; 8] = [
    "containerd",
    "runc",
    "containernetworking-plugins",
    "nftables",
    "iptables",
    "iproute2",
    "util-linux",
    "procps",
];

/// How much of a cluster is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// etcd, API server, controllers and scheduler on loopback, as plain processes of any user.
    ControlPlane,
    /// Also machines: kubelet, containerd and runc in namespaces, which needs root.
    Nodes,
}

/// One thing that a cluster needs.
#[derive(Debug)]
pub struct Capability {
    /// From which level on it is needed.
    pub level: Level,
    /// What it is.
    pub name: &'static str,
    /// What was found, or the remedy.
    pub state: Result<String, String>,
}

/// Everything that a cluster needs, and whether it is there.
#[derive(Debug)]
pub struct Capabilities(Vec<Capability>);

// === impl Level ===

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ControlPlane => "control plane",
            Self::Nodes => "nodes",
        })
    }
}

// === impl Capabilities ===

impl Capabilities {
    /// Looks at this machine; changes nothing.
    pub fn report() -> Self {
        let node = |name, state| Capability { level: Level::Nodes, name, state };
        let plane = |name, state| Capability { level: Level::ControlPlane, name, state };
        Self(vec![
            plane("go", go()),
            plane("programs", Toolchain::find().map(|_| "built".to_owned()).map_err(remedy)),
            node("root", root()),
            node("namespaces", namespaces()),
            node("cgroups", crate::cgroup::Hierarchy::find().map(|found| found.to_string())),
            node("ip", program("ip", "iproute2")),
            node("containerd", program("containerd", "containerd")),
            node("ctr", program("ctr", "containerd")),
            node("runc", program("runc", "runc")),
            node("nft", program("nft", "nftables")),
            node("iptables", program("iptables", "iptables")),
            node("CNI plugins", cni_plugins().map(|folder| folder.display().to_string())),
        ])
    }

    /// What is missing for this level, one line each.
    pub fn lacking(&self, level: Level) -> Vec<String> {
        let needed = self.0.iter().filter(|capability| capability.level <= level);
        needed
            .filter_map(|capability| {
                let remedy = capability.state.as_ref().err()?;
                Some(format!("{}: {}", capability.name, remedy.trim()))
            })
            .collect()
    }

    /// Fails with the list of what is missing for this level.
    pub fn check(&self, level: Level) -> Result<(), Error> {
        let lacking = self.lacking(level);
        if lacking.is_empty() {
            return Ok(());
        }
        Err(Error::Lacking(lacking.iter().map(|line| format!("  {line}\n")).collect()))
    }

    /// Installs Debian's packages for nodes if this is root on Debian and something is missing.
    pub fn install(progress: &mut dyn Write) -> Result<(), Error> {
        let missing = Self::report().lacking(Level::Nodes);
        let mendable = missing.iter().any(|line| line.contains("apt-get install"));
        if !mendable || root().is_err() || command::find("apt-get").is_none() {
            return Ok(());
        }
        let _ = writeln!(progress, "installing {} with apt-get", PACKAGES.join(" "));
        command::run("apt-get", ["-qq", "update"])?;
        let mut install = command::command("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive");
        install.args(["-qq", "install", "--yes", "--no-install-recommends"]).args(PACKAGES);
        command::finish(&mut install).map(|_| ())
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for level in [Level::ControlPlane, Level::Nodes] {
            let usable = self.lacking(level).is_empty();
            writeln!(out, "{level}: {}", if usable { "ready" } else { "not possible yet" })?;
            for capability in self.0.iter().filter(|capability| capability.level == level) {
                let (mark, text) = match &capability.state {
                    Ok(found) => ("ok ", found),
                    Err(remedy) => ("-- ", remedy),
                };
                writeln!(out, "  {mark} {:<12} {}", capability.name, text.trim())?;
            }
        }
        Ok(())
    }
}

/// What a test begins with: the built programs, or `None` after saying that the test is skipped and why.
///
/// The line `skipped: <test>: <reason>` goes to standard error past the test runner's capture; `.ci/run`
/// counts and lists these lines. With `RINGTAIL_CLUSTER_REQUIRED=1` a skip is a failure.
#[expect(clippy::panic, reason = "called by tests only, where a panic is a failure")]
pub fn require(level: Level) -> Option<Toolchain> {
    let lacking = Capabilities::report().lacking(level);
    match Toolchain::find() {
        Ok(toolchain) if lacking.is_empty() => return Some(toolchain),
        _ => (),
    }
    let reason = lacking.join("; ");
    if std::env::var_os(STRICT_VARIABLE).is_some_and(|value| value == "1") {
        panic!("{STRICT_VARIABLE}=1, but {reason}");
    }
    let thread = std::thread::current();
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
    None
}

/// The folder of the CNI plugins; distributions differ.
pub(crate) fn cni_plugins() -> Result<PathBuf, String> {
    let folders = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"].map(Path::new);
    let whole =
        |folder: &&Path| ["ptp", "host-local", "portmap"].iter().all(|p| folder.join(p).is_file());
    let found = folders.into_iter().find(whole).map(Path::to_owned);
    found.ok_or_else(|| "apt-get install containernetworking-plugins".to_owned())
}

fn go() -> Result<String, String> {
    let version = command::run("go", ["version"]);
    version.map_err(|_| {
        "install Go 1.26 or newer: the programs of a cluster are built from Go modules".to_owned()
    })
}

fn root() -> Result<String, String> {
    match rustix::process::geteuid().is_root() {
        true => Ok("yes".to_owned()),
        false => Err("run as root: nodes are made of namespaces, mounts and cgroups".to_owned()),
    }
}

fn namespaces() -> Result<String, String> {
    let tried = command::run("unshare", ["-m", "-n", "-p", "-u", "-f", "--mount-proc", "true"]);
    tried.map(|_| "mount, network, pid, uts".to_owned()).map_err(|error| {
        let first = error.to_string().lines().take(2).collect::<Vec<_>>().join(" ");
        format!("allow new namespaces (a container needs --privileged): {first}")
    })
}

fn program(name: &str, package: &str) -> Result<String, String> {
    let found = command::find(name).map(|path| path.display().to_string());
    found.ok_or_else(|| format!("apt-get install {package}"))
}

fn remedy(error: Error) -> String {
    match error {
        Error::Lacking(lines) => lines.trim().to_owned(),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
