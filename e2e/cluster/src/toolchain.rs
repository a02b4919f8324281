//! The programs of a cluster, built from Go modules once and kept by the hash of what they are built from.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::command;
use crate::error::{Error, OnFile};

/// Where built programs are kept, instead of `target/kubernetes` of this repository.
pub const CACHE_VARIABLE: &str = "RINGTAIL_CLUSTER_CACHE";

/// A line of progress this often: a build of ten minutes must not look dead to a person or to CI.
const PROGRESS_EVERY: Duration = Duration::from_secs(20);

/// One Go module of ours and the binary that comes of it.
#[derive(Debug)]
struct Module {
    /// Folder under `modules/`.
    name: &'static str,
    /// The package with `main`.
    package: &'static str,
    /// The binary.
    binary: &'static str,
    /// Further names of the binary: it looks at the name it is called by.
    links: &'static [&'static str],
    /// What a build from nothing costs, for the person who waits.
    cpu_minutes: u32,
}

const MODULES: [Module; 4] = [
    Module { name: "pause", package: ".", binary: "pause", links: &[], cpu_minutes: 1 },
    Module {
        name: "etcd",
        package: "go.etcd.io/etcd/server/v3",
        binary: "etcd",
        links: &[],
        cpu_minutes: 2,
    },
    Module {
        name: "kubernetes",
        package: ".",
        binary: "kube",
        links: &[
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        ],
        cpu_minutes: 9,
    },
    Module {
        name: "helm",
        package: "helm.sh/helm/v4/cmd/helm",
        binary: "helm",
        links: &[],
        cpu_minutes: 4,
    },
];

/// Built programs, ready to run.
#[derive(Debug, Clone)]
pub struct Toolchain {
    folders: Vec<PathBuf>,
}

// === impl Toolchain ===

impl Toolchain {
    /// The programs if they are all in the cache, or what is missing.
    pub fn find() -> Result<Self, Error> {
        let cache = cache_folder();
        let mut missing = Vec::new();
        let mut folders = Vec::new();
        for module in &MODULES {
            let folder = cache.join(module.key()?);
            if !folder.is_dir() {
                missing.push(module.name);
            }
            folders.push(folder);
        }
        if missing.is_empty() {
            return Ok(Self { folders });
        }
        Err(Error::Lacking(format!(
            "  {} not built: run `make cluster-build` (about {} minutes of CPU the first time)",
            missing.join(", "),
            MODULES.iter().map(|module| module.cpu_minutes).sum::<u32>(),
        )))
    }

    /// Builds what the cache lacks. Only one build runs at a time; others wait for it and use its result.
    pub fn build(progress: &mut dyn Write) -> Result<Self, Error> {
        let cache = cache_folder();
        fs::create_dir_all(&cache).on("create", &cache)?;
        let lock = cache.join("build.lock");
        let held = File::create(&lock).on("create", &lock)?;
        if held.try_lock().is_err() {
            tell(progress, "another build is running; waiting for it");
            held.lock().on("lock", &lock)?;
        }
        let mut folders = Vec::new();
        for module in &MODULES {
            let folder = cache.join(module.key()?);
            if !folder.is_dir() {
                module.build(&folder, progress)?;
            }
            folders.push(folder);
        }
        Ok(Self { folders })
    }

    /// The path of a program by its name, such as `kubectl`.
    pub fn program(&self, name: &str) -> PathBuf {
        let paths = self.folders.iter().map(|folder| folder.join(name));
        paths.into_iter().find(|path| path.exists()).unwrap_or_else(|| PathBuf::from(name))
    }
}

// === impl Module ===

impl Module {
    fn source(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("modules").join(self.name)
    }

    /// Name of the cache entry: changes with the sources, the versions and the compiler.
    fn key(&self) -> Result<String, Error> {
        let source = self.source();
        let mut hash = Sha256::new();
        for name in ["go.mod", "go.sum", "main.go"] {
            // Not every module has all three; one that is absent counts as empty.
            let bytes = fs::read(source.join(name)).unwrap_or_default();
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(bytes);
        }
        // Asked for in the module's folder, because its go.mod may select a newer toolchain.
        let mut go = command::command("go");
        hash.update(command::finish(go.current_dir(&source).args(["env", "GOVERSION"]))?);
        let digest = hash.finalize();
        let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{}-{short}", self.name))
    }

    fn build(&self, folder: &Path, progress: &mut dyn Write) -> Result<(), Error> {
        let started = Instant::now();
        tell(progress, &format!("{}: building, about {} CPU min", self.name, self.cpu_minutes));
        let parent = folder.parent().unwrap_or(folder);
        let unfinished = tempfile::Builder::new().prefix(".building-").tempdir_in(parent);
        let unfinished = unfinished.on("create a folder in", parent)?;
        self.compile(&unfinished.path().join(self.binary), progress, started)?;
        for link in self.links {
            let path = unfinished.path().join(link);
            symlink(self.binary, &path).on("link", &path)?;
        }
        // The rename makes the entry appear whole or not at all.
        let unfinished = unfinished.keep();
        fs::rename(&unfinished, folder).on("create", folder)?;
        let seconds = started.elapsed().as_secs();
        tell(progress, &format!("{}: built in {seconds} s", self.name));
        Ok(())
    }

    fn compile(
        &self,
        binary: &Path,
        progress: &mut dyn Write,
        started: Instant,
    ) -> Result<(), Error> {
        let mut go = command::command("go");
        go.current_dir(self.source()).env("CGO_ENABLED", "0").arg("build").arg("-v");
        // The same bytes on every machine: no paths, no profile, no commit of ours in the binary.
        go.args(["-mod=readonly", "-trimpath", "-pgo=off", "-buildvcs=false"]);
        go.arg("-ldflags").arg(self.linker_flags()?).arg("-o").arg(binary).arg(self.package);
        go.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = go.spawn().on("run", "go")?;
        let (mut packages, mut told, mut rest) = (0_u32, Instant::now(), Vec::new());
        for line in child.stderr.take().into_iter().flat_map(|pipe| BufReader::new(pipe).lines()) {
            // With -v Go names each package when it is done; everything else is about something wrong.
            let line = line.on("read the output of", "go build")?;
            if line.contains(' ') {
                rest.push(line);
            } else {
                packages += 1;
            }
            if told.elapsed() > PROGRESS_EVERY {
                told = Instant::now();
                let seconds = started.elapsed().as_secs();
                tell(progress, &format!("{}: {packages} packages, {seconds} s", self.name));
            }
        }
        let status = child.wait().on("wait for", "go build")?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Command {
            command: format!("go build {} (in {})", self.package, self.source().display()),
            outcome: format!("ended with {status}; it needs the Go module proxy or a warm cache"),
            output: rest.join("\n"),
        })
    }

    /// Strips symbols and, for Kubernetes, stamps the version that a release build would carry.
    fn linker_flags(&self) -> Result<String, Error> {
        let path = self.source().join("go.mod");
        let manifest = fs::read_to_string(&path).on("read", &path)?;
        let required = |line: &str| {
            let version = line.trim().strip_prefix("k8s.io/kubernetes v")?;
            version.split_whitespace().next().map(str::to_owned)
        };
        let Some(version) =
            manifest.lines().find_map(required).filter(|_| self.name == "kubernetes")
        else {
            return Ok("-s -w".to_owned());
        };
        let mut numbers = version.split('.');
        let (major, minor) = (numbers.next().unwrap_or("0"), numbers.next().unwrap_or("0"));
        let stamps = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"].map(|at| {
            format!(
                " -X {at}.gitVersion=v{version} -X {at}.gitMajor={major} -X {at}.gitMinor={minor} \
                 -X {at}.gitTreeState=clean -X {at}.gitCommit=unknown \
                 -X {at}.buildDate=1970-01-01T00:00:00Z"
            )
        });
        Ok(format!("-s -w{}", stamps.concat()))
    }
}

/// The folder of built programs.
pub(crate) fn cache_folder() -> PathBuf {
    match std::env::var_os(CACHE_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/kubernetes"),
    }
}

/// A line of progress; nobody listening is no reason to stop.
fn tell(progress: &mut dyn Write, line: &str) {
    let _ = writeln!(progress, "{line}");
}
