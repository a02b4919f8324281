//! When the owner of a cluster is killed, the cluster's processes end, and the next run clears the rest away.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringtail_cluster::{Level, require};

/// The watchdog needs milliseconds; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn nothing_outlives_a_killed_owner() {
    let nodes = require(Level::Nodes).is_some();
    if !nodes && require(Level::ControlPlane).is_none() {
        return;
    }
    // A place of its own: the runs of other tests are none of this test's business.
    let place = tempfile::tempdir().unwrap();
    let mut owner = tool(place.path());
    owner.args(["up", "--nodes", if nodes { "1" } else { "0" }]).stdout(Stdio::piped());
    let mut owner = owner.spawn().unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
    let up = lines.any(|line| line.starts_with("export KUBECONFIG="));
    assert!(up, "no cluster: {:?}", owner.wait());
    let run = runs(place.path()).pop().unwrap();
    let mark = fs::read_to_string(run.join("mark")).unwrap();
    assert!(marked(&mark) >= 4, "etcd, API server, controllers, scheduler");

    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + SOON;
    while marked(&mark) > 0 {
        assert!(Instant::now() < deadline, "{} processes outlive their owner", marked(&mark));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(run.exists(), "what is not a process is left for the next run");

    let down = tool(place.path()).arg("down").output().unwrap();
    assert!(down.status.success(), "{down:?}");
    assert_eq!(runs(place.path()), Vec::<std::path::PathBuf>::new());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(place.path().to_str().unwrap()), "{mounts}");
}

fn tool(place: &Path) -> Command {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_ringtail-cluster"));
    tool.env("TMPDIR", place);
    tool
}

/// The folders of runs.
fn runs(place: &Path) -> Vec<std::path::PathBuf> {
    let users = fs::read_dir(place).unwrap().map(|user| user.unwrap().path());
    let entries =
        users.flat_map(|user| fs::read_dir(user).unwrap()).map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// How many processes carry the mark of this run.
fn marked(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let environments = entries.filter_map(|entry| fs::read(entry.path().join("environ")).ok());
    environments.filter(|text| String::from_utf8_lossy(text).contains(mark)).count()
}
