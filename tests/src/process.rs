//! One `ringtail` process: built by cargo, started on free ports, stopped by its own id, its ledger read at
//! the end.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ringtail::stats::{LedgerReport, Listening, Report, Stats};

use crate::http::fetch;

/// How long anything may take that a test waits for. Generous: it only turns a hang into a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running role.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// Where it listens.
    pub listening: Listening,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its last line.
    pub ledger: LedgerReport,
    /// What it printed: its log, and standard output from the second line on.
    pub printed: String,
}

/// The `ringtail` binary of this workspace, built once a test run.
///
/// # Panics
/// When cargo cannot build it; its messages are on standard error.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build("ringtail"))
}

/// The `ringtail-operator` binary of this workspace, built once a test run.
///
/// # Panics
/// As [`binary`].
pub fn operator_binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build("ringtail-operator"))
}

// Package and binary have the same name.
fn build(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells of the tests is not of what it builds: build scripts that look at it would run again,
    // and everything above them.
    let told = |key: &str| key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_");
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_str().is_some_and(told)) {
        cargo.env_remove(key);
    }
    let output = cargo
        .args(["build", "--quiet", "--package", name, "--bin", name])
        .args(["--message-format", "json"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo could not build the {name} binary");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable")
}

// === impl Process ===

impl Process {
    /// Starts `ringtail` with these arguments, on free loopback ports, and waits until it listens.
    ///
    /// # Panics
    /// With its standard error, when it ends before.
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(args, Command::new(binary()), Stdio::piped())
    }

    /// The same, with a log at `level` in a file: what is said at length would fill a pipe.
    pub fn start_logged(args: &[&str], level: &str, log: &std::path::Path) -> Self {
        let mut command = Command::new(binary());
        command.env("RINGTAIL_LOG", level).env("RUST_BACKTRACE", "1");
        let log = std::fs::File::create(log).expect("a file for the log");
        Self::spawn(args, command, log.into())
    }

    /// The same, with these variables in its environment.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        command.envs(variables.iter().copied());
        Self::spawn(args, command, Stdio::piped())
    }

    fn spawn(args: &[&str], mut command: Command, stderr: Stdio) -> Self {
        command.args(args);
        // Only a test that says so finds a cluster.
        command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
        for flag in ["--otlp-grpc", "--otlp-http", "--admin"] {
            if !args.contains(&flag) {
                command.args([flag, "127.0.0.1:0"]);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is readable");
        match serde_json::from_str(&line) {
            Ok(Report::Listening(listening)) => {
                let stderr = child.stderr.take();
                Self { child, stdout, stderr, listening }
            }
            _ => {
                let mut text = String::new();
                if let Some(mut stderr) = child.stderr.take() {
                    stderr.read_to_string(&mut text).unwrap();
                }
                panic!("ringtail {args:?} did not start: {line}{text}");
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `host:port` of its OTLP/gRPC receiver.
    pub fn grpc(&self) -> String {
        self.listening.otlp_grpc.to_string()
    }

    /// `host:port` of its OTLP/HTTP receiver.
    pub fn http(&self) -> String {
        self.listening.otlp_http.expect("roles serve OTLP/HTTP").to_string()
    }

    /// What `/stats` says now.
    pub fn stats(&self) -> Stats {
        serde_json::from_str(&self.admin("/stats")).expect("stats parse")
    }

    /// The body of a page of the admin port.
    pub fn admin(&self, path: &str) -> String {
        fetch(&self.listening.admin.to_string(), path).expect("the admin port answers")
    }

    /// The sum of the samples of a metric whose line contains `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.admin("/metrics");
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until `/stats` satisfies `wanted`.
    ///
    /// # Panics
    /// With the last stats, when that takes too long.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Stats) -> bool) -> Stats {
        let started = Instant::now();
        loop {
            let stats = self.stats();
            if wanted(&stats) {
                return stats;
            }
            assert!(started.elapsed() < PATIENCE, "waiting for {what}: {stats:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), id.as_str()]).status();
        assert!(status.expect("kill starts").success());
    }

    /// See [`resident_bytes`].
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.id())
    }

    /// Stops it with SIGTERM and returns how it ended.
    ///
    /// # Panics
    /// With its standard error, when it prints no ledger.
    pub fn stop(self) -> Ended {
        self.terminate();
        self.end()
    }

    /// Waits until it ends by itself, or because it was told to before.
    ///
    /// # Panics
    /// With its standard error, when it prints no ledger.
    pub fn end(mut self) -> Ended {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("stdout is readable");
        let status = self.child.wait().expect("it ends");
        let last = rest.lines().last().unwrap_or_default();
        let mut text = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        match serde_json::from_str(last) {
            Ok(Report::Ledger(ledger)) => Ended { status, ledger, printed: text + &rest },
            _ => panic!("no ledger at the end ({status}): {rest}{text}"),
        }
    }
}

impl Process {
    /// Stops it with SIGTERM and checks that its ledger balances, nothing is held and it exits with 0.
    pub fn stop_balanced(self) -> Ended {
        self.terminate();
        self.end_balanced()
    }

    /// As [`Self::end`], with the same checks.
    pub fn end_balanced(self) -> Ended {
        let end = self.end();
        assert!(end.ledger.balanced && end.ledger.balances(), "{end:#?}");
        assert_eq!(end.ledger.held, 0, "{end:#?}");
        assert!(end.status.success(), "{end:#?}");
        end
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only reached with a live child when a test fails half way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When that takes too long.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Pages of its file that a gateway or agent of the product has in memory. A debug build has 33 MB of them.
const CODE: u64 = 17 << 20;

/// Resident bytes of a process now, from `/proc`, as if its code were that of the product.
pub fn resident_bytes(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let bytes = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    };
    bytes("RssAnon:") + bytes("RssShmem:") + CODE
}
