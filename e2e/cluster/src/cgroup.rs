//! The cgroup of a node: made before its first process, frozen, thawed and removed, in version 1 and
//! version 2.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, OnFile};

const ROOT: &str = "/sys/fs/cgroup";

/// What a kubelet and runc want of version 1. `systemd` is the named hierarchy that runc keeps its place in.
const CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "devices", "freezer", "systemd"];

/// What they want of version 2.
const CONTROLLERS_UNIFIED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// A process is frozen when it next leaves the kernel or gets a processor.
const FREEZE_WAIT: Duration = Duration::from_secs(10);
const FREEZE_PAUSE: Duration = Duration::from_millis(5);

/// How this machine's kernel offers cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// Version 1: a tree per controller.
    PerController(Vec<PathBuf>),
    /// Version 2: one tree.
    Unified(PathBuf),
}

/// The cgroup of one node, `/<cluster>/<node>` in every tree. Its own processes live in a child `sys`, beside
/// the pods of the kubelet.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    hierarchy: Hierarchy,
    cluster: String,
    node: String,
}

// === impl Hierarchy ===

impl Hierarchy {
    /// What is mounted, or what to do about it.
    pub(crate) fn find() -> Result<Self, String> {
        let root = Path::new(ROOT);
        if let Ok(offered) = fs::read_to_string(root.join("cgroup.controllers")) {
            let has = |name: &&str| offered.split_whitespace().any(|word| word == *name);
            let missing: Vec<_> = CONTROLLERS_UNIFIED.iter().filter(|name| !has(name)).collect();
            return match missing.is_empty() {
                true => Ok(Self::Unified(root.to_owned())),
                false => Err(format!("cgroup v2 without {missing:?}: delegate these controllers")),
            };
        }
        let mounted = |name: &&str| root.join(name).join("cgroup.procs").is_file();
        let missing: Vec<_> = CONTROLLERS.iter().filter(|name| !mounted(name)).collect();
        match missing.is_empty() {
            true => Ok(Self::PerController(CONTROLLERS.map(|name| root.join(name)).to_vec())),
            false => {
                Err(format!("mount cgroup v2, or of v1 the controllers {missing:?}, at {ROOT}"))
            }
        }
    }

    fn trees(&self) -> Vec<PathBuf> {
        match self {
            // runc makes empty folders in the hybrid tree as well; they are removed with the rest.
            Self::PerController(trees) => {
                trees.iter().cloned().chain([Path::new(ROOT).join("unified")]).collect()
            }
            Self::Unified(tree) => vec![tree.clone()],
        }
    }
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::PerController(_) => "version 1",
            Self::Unified(_) => "version 2",
        })
    }
}

// === impl Cgroup ===

impl Cgroup {
    pub(crate) fn new(cluster: &str, node: &str) -> Result<Self, Error> {
        let hierarchy =
            Hierarchy::find().map_err(|why| Error::Lacking(format!("  cgroups: {why}")))?;
        Ok(Self { hierarchy, cluster: cluster.to_owned(), node: node.to_owned() })
    }

    /// The kubelet's `cgroupRoot`.
    pub(crate) fn root(&self) -> String {
        format!("/{}/{}", self.cluster, self.node)
    }

    /// Makes the cgroup and lets children have its controllers.
    pub(crate) fn create(&self) -> Result<(), Error> {
        match &self.hierarchy {
            Hierarchy::PerController(trees) => {
                for tree in trees {
                    self.create_in(tree)?;
                }
            }
            Hierarchy::Unified(tree) => {
                let levels = self.levels(tree);
                let leaf = &levels[2];
                fs::create_dir_all(leaf).on("create", leaf)?;
                // A controller is usable in a group once its parent hands it down, from the top.
                for parent in [tree, &levels[0], &levels[1]] {
                    let file = parent.join("cgroup.subtree_control");
                    let all = CONTROLLERS_UNIFIED.map(|name| format!("+{name}")).join(" ");
                    fs::write(&file, all).on("write", &file)?;
                }
            }
        }
        Ok(())
    }

    /// The groups of the cluster, the node, and the node's own processes, in one tree.
    fn levels(&self, tree: &Path) -> [PathBuf; 3] {
        let cluster = tree.join(&self.cluster);
        let node = cluster.join(&self.node);
        let own = node.join("sys");
        [cluster, node, own]
    }

    fn create_in(&self, tree: &Path) -> Result<(), Error> {
        let levels = self.levels(tree);
        fs::create_dir_all(&levels[2]).on("create", &levels[2])?;
        if !tree.ends_with("cpuset") {
            return Ok(());
        }
        // A cpuset of version 1 starts empty and takes no process before it has CPUs and memory, from the
        // top.
        for level in &levels {
            for name in ["cpuset.cpus", "cpuset.mems"] {
                let (from, to) = (tree.join(name), level.join(name));
                let value = fs::read(&from).on("read", &from)?;
                fs::write(&to, value).on("write", &to)?;
            }
        }
        Ok(())
    }

    /// The files that a process writes its id into in order to be of this node.
    pub(crate) fn doors(&self) -> Vec<PathBuf> {
        let trees = match &self.hierarchy {
            Hierarchy::PerController(trees) => trees.clone(),
            Hierarchy::Unified(tree) => vec![tree.clone()],
        };
        trees.iter().map(|tree| self.levels(tree)[2].join("cgroup.procs")).collect()
    }

    /// Stops or resumes every process of the node, pods included, and returns when that is done.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let (write, word, read, done) = match (&self.hierarchy, frozen) {
            (Hierarchy::PerController(_), true) => {
                ("freezer.state", "FROZEN", "freezer.state", "FROZEN")
            }
            (Hierarchy::PerController(_), false) => {
                ("freezer.state", "THAWED", "freezer.state", "THAWED")
            }
            (Hierarchy::Unified(_), true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            (Hierarchy::Unified(_), false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
        };
        let tree = match &self.hierarchy {
            Hierarchy::PerController(_) => &Path::new(ROOT).join("freezer"),
            Hierarchy::Unified(tree) => tree,
        };
        let node = tree.join(&self.cluster).join(&self.node);
        let (write, read) = (node.join(write), node.join(read));
        fs::write(&write, word).on("write", &write)?;
        let deadline = Instant::now() + FREEZE_WAIT;
        while !fs::read_to_string(&read).on("read", &read)?.contains(done) {
            if Instant::now() > deadline {
                let seconds = FREEZE_WAIT.as_secs();
                return Err(Error::Timeout {
                    what: format!("{done} in {}", read.display()),
                    seconds,
                });
            }
            std::thread::sleep(FREEZE_PAUSE);
            // Version 1 gives up when a process was forking; asking again is how it goes on.
            fs::write(&write, word).on("write", &write)?;
        }
        Ok(())
    }

    /// Removes the node's groups; they are empty once its processes are gone.
    pub(crate) fn remove(&self) {
        for tree in self.hierarchy.trees() {
            remove_below(&tree.join(&self.cluster).join(&self.node));
            // Fails while other nodes are left, as it should.
            let _ = fs::remove_dir(tree.join(&self.cluster));
        }
    }
}

/// Thaws and lists the nodes that a cluster has groups for; what a sweep works from.
pub(crate) fn nodes_of(cluster: &str) -> Vec<String> {
    let Ok(hierarchy) = Hierarchy::find() else { return Vec::new() };
    let mut names = std::collections::BTreeSet::new();
    for tree in hierarchy.trees() {
        let entries = fs::read_dir(tree.join(cluster)).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.path().is_dir());
        names.extend(folders.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }
    names.into_iter().collect()
}

/// Control groups are removed leaf by leaf; their files vanish with them.
fn remove_below(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_below(&entry.path());
    }
    let _ = fs::remove_dir(folder);
}
