//! `ringtail run` as a user has it: the demo satisfies, a port in use is told, gateways come and go as they
//! are told to, and nothing is left behind.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use ringtail_tests::process::{PATIENCE, binary, wait_until};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

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
    socket: String,
    // Removed with the socket in it.
    _directory: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("fleet.sock").to_str().unwrap().to_owned();
        let mut command = command(&ANY_PORT);
        let mut child = command.args(["--socket", &socket]).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let addresses = Vec::new();
        let mut running = Self { child, lines, addresses, socket, _directory: directory };
        while running.addresses.len() < 5 {
            let line = running.line().unwrap();
            if let Some((_, rest)) = line.split_once("OTLP gRPC ") {
                running.addresses.push(rest.split(',').next().unwrap().parse().unwrap());
            }
        }
        running
    }

    /// `ringtail control` with this fleet: its exit code and what it says.
    fn control(&self, words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(binary());
        command.arg("control").args(words).args(["--socket", &self.socket]);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap().trim_end().to_owned())
    }

    /// The same for what must be done.
    fn done(&self, words: &[&str]) -> String {
        let (code, said) = self.control(words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    }

    /// Waits until the table says this of a gateway.
    fn await_state(&self, gateway: &str, state: &str) {
        wait_until(&format!("{gateway} {state}"), || {
            let table = self.done(&["status"]);
            let row = table.lines().find(|line| line.contains(gateway)).unwrap_or_default();
            row.contains(state)
        });
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
    let demo = ["--demo", "--decision-wait", "8s", "--duration", "27s"];
    let (output, text) = output(&[&demo[..], &ANY_PORT].concat());
    assert!(output.status.success(), "{text}");
    for part in [
        "slow traces were kept as promised, every kept trace is whole",
        "gateway-3 serves after",
        "gateway-0 left after",
        "gateway-1 is killed",
        "split 0 of",
        "gateway-1 was killed and told no ledger",
        "balances from end to end",
    ] {
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
fn gateways_come_and_go_as_they_are_told() {
    let running = Running::start();
    assert!(running.done(&["add"]).starts_with("gateway-3 serves after"));
    assert!(running.done(&["drain"]).starts_with("gateway-0 left after"));
    assert_eq!(running.done(&["kill", "gateway-2"]), "gateway-2 is killed");
    assert!(running.done(&["add", "gateway-2"]).starts_with("gateway-2 serves after"));
    assert_eq!(running.done(&["freeze", "gateway-1"]), "gateway-1 is frozen");
    running.await_state("gateway-1", "frozen");
    let refused = [
        (vec!["drain", "gateway-1"], "gateway-1 is frozen; thaw it first"),
        (vec!["kill", "gateway-0"], "gateway-0 has ended: left"),
        (vec!["add", "gateway-3"], "gateway-3 runs already"),
        (vec!["freeze", "agent-1"], "agent-1 is an agent; only gateways can be asked to freeze"),
        (
            vec!["kill", "gateway-7"],
            "no gateway is called gateway-7; there are gateway-1, gateway-3, gateway-2",
        ),
    ];
    for (words, expected) in refused {
        assert_eq!(running.control(&words), (Some(1), expected.to_owned()));
    }
    assert_eq!(running.done(&["thaw"]), "gateway-1 goes on");
    running.await_state("gateway-1", "serving");
    running.signal("-TERM");
    let (text, status) = running.end();
    assert!(status.success() && text.contains("balances from end to end"), "{text}");
}

#[test]
fn a_fleet_that_does_not_run_takes_no_commands() {
    let mut command = Command::new(binary());
    command.args(["control", "kill", "--socket", "/nonexistent/fleet.sock"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the fleet at /nonexistent/fleet.sock does not answer"), "{said}");
    let output = Command::new(binary()).args(["control", "explode"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

/// A terminal: what is typed here is read there.
fn terminal() -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let size = Winsize { ws_row: 50, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&theirs, size).unwrap();
    (ours, theirs)
}

#[test]
fn keys_do_what_the_help_line_says() {
    let (ours, theirs) = terminal();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("fleet.sock").to_str().unwrap().to_owned();
    let mut command = command(&ANY_PORT);
    command.args(["--socket", &socket]);
    command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let screen = std::fs::File::from(ours.try_clone().unwrap());
    let shown = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let seen = std::sync::Arc::clone(&shown);
    std::thread::spawn(move || read_screen(screen, &seen));
    let await_text = |text: &str| {
        wait_until(text, || shown.lock().unwrap().contains(text));
    };
    let press = |keys: &str| {
        rustix::io::write(&ours, keys.as_bytes()).unwrap();
    };
    let gathers_lines =
        || tcgetattr(&theirs).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO);
    assert!(gathers_lines());
    await_text("f freeze, thaw");
    wait_until("keys one by one", || !gathers_lines());
    press("1f");
    await_text("gateway-1 is frozen");
    press("f");
    await_text("gateway-1 goes on");
    press("2k");
    await_text("gateway-2 is killed");
    press("\td");
    await_text("gateway-0 left after");
    press("a");
    await_text("gateway-3 serves after");
    press("q");
    await_text("balances from end to end");
    assert!(child.wait().unwrap().success());
    assert!(gathers_lines(), "the terminal is as it was");
}

fn read_screen(mut screen: std::fs::File, shown: &std::sync::Mutex<String>) {
    let mut bytes = [0; 4096];
    while let Ok(count) = std::io::Read::read(&mut screen, &mut bytes) {
        shown.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

#[test]
fn a_killed_parent_leaves_no_orphans() {
    let running = Running::start();
    let addresses = running.addresses.clone();
    // One that stands still does not see that its parent is gone; the kernel tells it.
    running.done(&["freeze"]);
    running.signal("-KILL");
    running.end();
    assert_nobody_listens(&addresses);
}
