//! A machine of a cluster, made of namespaces: real kubelet, kube-proxy, containerd and runc, and faults
//! for all of it.

mod files;

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup::Cgroup;
use crate::cluster::finish;
use crate::command;
use crate::error::{Error, OnFile};
use crate::network::{self, Addresses};
use crate::process::{Launch, Process};
use crate::run::Run;
use crate::toolchain::Toolchain;
use crate::wait;

/// For a step of a boot: mounts take milliseconds, containerd a second on a loaded machine.
const STEP_WITHIN: Duration = Duration::from_secs(60);

const BOOT: &str = include_str!("node/boot.sh");
const ENTER: &str = include_str!("node/enter.sh");
const INIT: &str = include_str!("node/init.sh");

/// A node of a cluster.
#[derive(Debug)]
pub struct Node {
    // Dropped in this order: init takes with it whatever is left.
    kubelet: Process,
    kube_proxy: Process,
    containerd: Process,
    init: Process,
    place: Place,
}

/// Where a node is, and what it is called.
#[derive(Debug, Clone)]
struct Place {
    /// Prefix of the cluster.
    cluster: String,
    name: String,
    number: u8,
    addresses: Addresses,
    /// What it keeps over a restart, and the files that it is made of.
    folder: PathBuf,
    group: Cgroup,
    mark: String,
    logs: PathBuf,
}

/// What all nodes of a cluster share.
pub(crate) struct Supplies<'a> {
    pub(crate) run: &'a Run,
    pub(crate) toolchain: &'a Toolchain,
    pub(crate) pki: &'a crate::pki::Pki,
    pub(crate) server: &'a str,
    pub(crate) addresses: Addresses,
    /// Image archives that every node gets.
    pub(crate) images: &'a [PathBuf],
}

// === impl Node ===

impl Node {
    /// Makes node `number` and starts everything on it; whether it becomes Ready is for the API server to
    /// say.
    pub(crate) async fn start(supplies: &Supplies<'_>, number: u8) -> Result<Self, Error> {
        let place = Place::create(supplies, number)?;
        network::add_node(&place.cluster, place.addresses, number)?;
        let init = place.boot().await?;
        let containerd = place.start("containerd", place.containerd())?;
        place.import(supplies.images, &containerd).await?;
        let kubelet = place.start("kubelet", place.kubelet(supplies.toolchain))?;
        let kube_proxy = place.start("kube-proxy", place.kube_proxy(supplies.toolchain))?;
        Ok(Self { kubelet, kube_proxy, containerd, init, place })
    }

    /// Its name, `n1`, `n2`, ...
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.place.addresses.node(self.place.number)
    }

    /// Its kubelet: killing it leaves the pods running.
    pub fn kubelet(&self) -> &Process {
        &self.kubelet
    }

    /// Its kube-proxy: frozen, it leaves the service rules as they are.
    pub fn kube_proxy(&self) -> &Process {
        &self.kube_proxy
    }

    /// Its containerd: killing it leaves the pods running.
    pub fn containerd(&self) -> &Process {
        &self.containerd
    }

    /// Stops everything on it, pods included, where it is.
    pub fn freeze(&self) -> Result<(), Error> {
        self.place.group.freeze(true)
    }

    /// Lets everything on it go on.
    pub fn thaw(&self) -> Result<(), Error> {
        self.place.group.freeze(false)
    }

    /// Pulls its network cable: pods go on, but nobody hears of them.
    pub fn disconnect(&self) -> Result<(), Error> {
        network::connect_node(&self.place.cluster, self.place.number, false)
    }

    /// Puts the cable back in.
    pub fn connect(&self) -> Result<(), Error> {
        network::connect_node(&self.place.cluster, self.place.number, true)
    }

    /// Cuts its power: everything on it is gone at once.
    pub fn kill(&self) -> Result<(), Error> {
        // What is frozen cannot die in cgroup version 1.
        self.thaw()?;
        self.init.kill()?;
        for process in [&self.kubelet, &self.kube_proxy, &self.containerd] {
            process.kill()?;
        }
        Ok(())
    }

    /// Cuts its power and starts it again, with the same disk.
    pub async fn restart(&self) -> Result<(), Error> {
        self.kill()?;
        let place = &self.place;
        network::remove_node(&place.cluster, place.number);
        network::add_node(&place.cluster, place.addresses, place.number)?;
        place.forget_addresses()?;
        self.init.restart()?;
        place.booted(&self.init).await?;
        self.containerd.restart()?;
        place.answers(&self.containerd).await?;
        self.kubelet.restart()?;
        self.kube_proxy.restart()
    }

    /// Runs a program on it, as root in its namespaces, and returns what it prints.
    pub async fn exec<A: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = A>,
    ) -> Result<String, Error> {
        self.place.exec(words).await
    }

    /// Gives its containerd the images of an archive.
    pub(crate) async fn load_image(&self, archive: &Path) -> Result<(), Error> {
        self.place.load(archive).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A frozen process of cgroup version 1 takes its death only once it is thawed; waiting for it would
        // take for ever.
        let _ = self.thaw();
    }
}

// === impl Place ===

impl Place {
    /// Folders, configuration and cgroups.
    fn create(supplies: &Supplies<'_>, number: u8) -> Result<Self, Error> {
        let run = supplies.run;
        let name = format!("n{number}");
        let place = Self {
            cluster: run.name.clone(),
            folder: run.path(&name),
            group: Cgroup::new(&run.name, &name)?,
            name,
            number,
            addresses: supplies.addresses,
            mark: run.mark.clone(),
            logs: run.logs(),
        };
        for folder in ["kubelet", "containerd", "log", "cni"] {
            let folder = place.path(folder);
            fs::create_dir_all(&folder).on("create", &folder)?;
        }
        place.group.create()?;
        place.write_files(supplies)?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts the first process and waits until the node is laid out.
    async fn boot(&self) -> Result<Process, Error> {
        let space = network::space_file(&network::node_space(&self.cluster, self.number));
        let words = [
            "env".into(),
            format!("NODE={}", self.name).into(),
            format!("FOLDER={}", self.folder.display()).into(),
            "sh".into(),
            self.path("boot.sh").into_os_string(),
            self.folder.clone().into_os_string(),
            space.into(),
            self.path("init.sh").into_os_string(),
        ];
        let launch = Launch { words: words.to_vec(), forks: true };
        let init = Process::start(&format!("{}-init", self.name), launch, &self.mark, &self.logs)?;
        self.booted(&init).await?;
        Ok(init)
    }

    async fn booted(&self, init: &Process) -> Result<(), Error> {
        let file = self.path("init.pid");
        let pid = init.pid().unwrap_or_default().to_string();
        fs::write(&file, pid).on("write", &file)?;
        let ready = self.path("ready");
        wait::until(STEP_WITHIN, "the boot of a node", &[init], async || {
            ready.exists().then_some(())
        })
        .await?;
        fs::remove_file(&ready).on("remove", &ready)
    }

    /// A program inside of the node.
    fn inside<A: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = A>) -> Launch {
        let enter = [
            "sh".into(),
            self.path("enter.sh").into_os_string(),
            self.folder.clone().into_os_string(),
        ];
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        Launch { words: enter.into_iter().chain(words).collect(), forks: true }
    }

    fn start(&self, program: &str, launch: Launch) -> Result<Process, Error> {
        Process::start(&format!("{}-{program}", self.name), launch, &self.mark, &self.logs)
    }

    async fn exec<A: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = A>,
    ) -> Result<String, Error> {
        let launch = self.inside(words);
        let mut words = launch.words.iter();
        let mut command = command::command(words.next().cloned().unwrap_or_default());
        command.args(words).env(crate::process::MARK, &self.mark);
        finish(command).await
    }

    /// Waits until containerd answers.
    async fn answers(&self, containerd: &Process) -> Result<(), Error> {
        wait::until(STEP_WITHIN, "an answer of containerd", &[containerd], async || {
            self.exec(["ctr", "version"]).await.ok().map(|_| ())
        })
        .await
    }

    async fn import(&self, archives: &[PathBuf], containerd: &Process) -> Result<(), Error> {
        self.answers(containerd).await?;
        for archive in archives {
            self.load(archive).await?;
        }
        Ok(())
    }

    async fn load(&self, archive: &Path) -> Result<(), Error> {
        let import = ["ctr", "--namespace", "k8s.io", "images", "import"].map(OsStr::new);
        self.exec(import.into_iter().chain([archive.as_os_str()])).await.map(|_| ())
    }

    /// A machine that lost power has no pods, so its pods' addresses are free.
    fn forget_addresses(&self) -> Result<(), Error> {
        let leases = self.path("leases");
        match fs::remove_dir_all(&leases) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).on("remove", &leases)
            }
            _ => Ok(()),
        }
    }
}
