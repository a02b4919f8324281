//! `ringtail run` as a user has it: the demo satisfies, a port in use is told, and nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use ringtail_tests::process::{PATIENCE, binary};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop.yaml");
const ANY_PORT: [&str; 4] = ["--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0"];

fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["run", MANIFEST]).args(flags);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(flags: &[&str]) -> (Output, String) {
    let output = command(flags).output().unwrap();
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&said).into_owned();
    (output, text)
}

/// A fleet that runs until it is told otherwise, and the OTLP/gRPC addresses of its processes.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    addresses: Vec<SocketAddr>,
}

impl Running {
    fn start() -> Self {
        let mut child = command(&ANY_PORT).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, lines, addresses: Vec::new() };
        while running.addresses.len() < 5 {
            let line = running.line().unwrap();
            if let Some((_, rest)) = line.split_once("OTLP gRPC ") {
                running.addresses.push(rest.split(',').next().unwrap().parse().unwrap());
            }
        }
        running
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.lines.read_line(&mut line).unwrap() > 0).then_some(line)
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// What it still says, and how it ends.
    fn end(mut self) -> (String, ExitStatus) {
        let mut text = String::new();
        while let Some(line) = self.line() {
            text.push_str(&line);
        }
        (text, self.child.wait().unwrap())
    }
}

fn assert_nobody_listens(addresses: &[SocketAddr]) {
    let started = Instant::now();
    while addresses.iter().any(|address| TcpStream::connect(address).is_ok()) {
        assert!(started.elapsed() < PATIENCE, "somebody still listens: {addresses:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_demo_satisfies() {
    // Longer than `make demo` waits, since other tests may keep the machine busy.
    let demo = ["--demo", "--decision-wait", "5s", "--duration", "12s"];
    let (output, text) = output(&[&demo[..], &ANY_PORT].concat());
    assert!(output.status.success(), "{text}");
    for part in
        ["slow traces were kept as promised, every kept trace is whole", "balances from end to end"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_port_in_use_is_told_and_nothing_is_left_running() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (output, text) = output(&["--otlp-grpc", &address, "--otlp-http", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    assert!(text.contains("agent-0 did not start"), "{text}");
}

#[test]
fn sigterm_drains_and_tells_the_ledger() {
    let running = Running::start();
    let addresses = running.addresses.clone();
    running.signal("-TERM");
    let (text, status) = running.end();
    assert!(status.success() && text.contains("balances from end to end"), "{text}");
    assert_nobody_listens(&addresses);
}

#[test]
fn a_killed_parent_leaves_no_orphans() {
    let running = Running::start();
    let addresses = running.addresses.clone();
    running.signal("-KILL");
    running.end();
    assert_nobody_listens(&addresses);
}
