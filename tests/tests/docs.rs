//! What the documents tell people to type is run, word for word; what cannot be run here is listed with its
//! reason, and a command that is neither fails.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ringtail_tests::process::{Process, binary, wait_until};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// How a documented command is proven.
enum Proof {
    /// Run to its end in the repository; it must succeed.
    Runs,
    /// Started on free ports, and stopped once it listens; its ledger must balance.
    Serves,
    /// A command for a local fleet, which runs; they are given in the order of the documents.
    Controls,
    /// A target of the Makefile, which must know it. What it does is proven by the test that is named.
    Target,
    /// Not run here, for this reason.
    Listed(#[expect(dead_code, reason = "for whoever reads the table")] &'static str),
}

/// The first entry whose words a command starts with says how it is proven.
const PROOFS: [(&str, Proof); 27] = [
    ("make", Proof::Target),
    ("cargo run --bin ringtail -- validate", Proof::Runs),
    ("ringtail validate", Proof::Runs),
    ("ringtail convert", Proof::Runs),
    ("ringtail explain", Proof::Runs),
    ("ringtail test", Proof::Runs),
    (
        "cargo run --bin ringtail -- run",
        Proof::Listed("the same command, with flags, is tests/run.rs"),
    ),
    (
        "ringtail inject",
        Proof::Listed("the workload is the reader's; tests/inject.rs starts what it prints"),
    ),
    ("ringtail control", Proof::Controls),
    ("ringtail gateway", Proof::Serves),
    ("ringtail agent", Proof::Serves),
    (
        "cargo run --profile dist -p ringtail-bench",
        Proof::Listed("builds for minutes and measures"),
    ),
    ("cargo test -p ringtail-tests --test churn_simulation", Proof::Listed("a test itself")),
    ("RINGTAIL_SCHEDULES=100000", Proof::Listed("the same test, for half an hour")),
    ("ringtail-bench sink", Proof::Listed("loads the machine for as long as it is let")),
    ("ringtail-bench generate", Proof::Listed("loads the machine for as long as it is let")),
    ("kill -TERM %1", Proof::Listed("ends the sink of the line above")),
    ("python3 -m venv", Proof::Listed("installs packages of another language")),
    ("go install", Proof::Listed("builds a program of another project")),
    (
        "helm install",
        Proof::Listed("rendered by tests/chart.rs, run by the scenarios of the cluster"),
    ),
    ("helm template", Proof::Listed("rendered by tests/chart.rs")),
    ("helm -n", Proof::Listed("needs a cluster")),
    ("helm test", Proof::Listed("needs a cluster")),
    ("kubectl", Proof::Listed("needs a cluster")),
    ("skopeo", Proof::Listed("needs a registry")),
    ("curl -i http://127.0.0.1:4318", Proof::Listed("tests/receivers.rs posts such bodies")),
    ("telemetrygen", Proof::Listed("a program of another project")),
];

/// A fenced block of a document.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    files.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    files.sort();
    files
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for path in documents() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut open: Option<Block> = None;
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let place = format!("{name}:{}", number + 1);
                    open = Some(Block { place, language: language.into(), text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{name}: a block is not closed");
    }
    blocks
}

/// The commands of a block of shell: a session's after `$ `, a script's line by line; without comments.
fn commands(block: &Block) -> Vec<String> {
    let session = block.language == "console";
    block
        .text
        .replace("\\\n", " ")
        .lines()
        .filter_map(|line| if session { line.strip_prefix("$ ") } else { Some(line) })
        .map(|line| line.split(" #").next().unwrap_or_default())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

fn runs(command: &str, place: &str) {
    let words = command.trim_start_matches("cargo run --bin ringtail -- ");
    let args = words.trim_start_matches("ringtail ").split(' ');
    let output = Command::new(binary()).args(args).current_dir(ROOT).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{place}: `{command}`: {said}");
}

/// Listens where a test may, and looks for gateways where there are none.
fn serves(command: &str, place: &str) {
    let manifest = format!("{ROOT}/examples/shop.yaml");
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    let mut args: Vec<&str> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        args.push(match (index.checked_sub(1).map(|before| words[before]), *word) {
            (Some("--pipeline"), _) => &manifest,
            (Some("--gateway"), _) => "127.0.0.1:1",
            (Some("--otlp-grpc" | "--otlp-http" | "--admin"), _) => "127.0.0.1:0",
            (_, word) => word,
        });
    }
    let ended = Process::start(&args).stop();
    assert!(ended.status.success() && ended.ledger.balanced, "{place}: `{command}`: {ended:?}");
}

/// A local fleet on free ports.
struct Fleet {
    child: Child,
    socket: String,
    // Removed with the socket in it.
    _directory: tempfile::TempDir,
}

impl Fleet {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("fleet.sock").to_str().unwrap().to_owned();
        let mut command = Command::new(binary());
        command.args(["run", "examples/shop.yaml", "--socket", &socket]);
        command.args(["--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0"]);
        command.current_dir(ROOT).stdin(Stdio::null()).stdout(Stdio::null());
        Self { child: command.spawn().unwrap(), socket, _directory: directory }
    }

    fn controls(&self, command: &str, place: &str) {
        wait_until("the fleet's socket", || Path::new(&self.socket).exists());
        let args = command.trim_start_matches("ringtail ").split(' ');
        let args: Vec<&str> = args.chain(["--socket", &self.socket]).collect();
        let output = Command::new(binary()).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{place}: `{command}`: {said}");
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Its processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_target(command: &str, place: &str) {
    let makefile = std::fs::read_to_string(Path::new(ROOT).join("Makefile")).unwrap();
    let Some(target) = command.split(' ').nth(1) else { return };
    let known = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    assert!(known, "{place}: the Makefile has no target {target}");
}

#[test]
fn every_command_is_proven_or_listed() {
    let mut proven = 0;
    let mut fleet = None;
    for block in blocks() {
        // A fence without a language is output, or the menu.
        if !matches!(block.language.as_str(), "sh" | "console" | "bash") {
            continue;
        }
        for command in commands(&block) {
            let place = &block.place;
            let proof = PROOFS.iter().find(|(start, _)| command.starts_with(start));
            match proof.map(|(_, proof)| proof) {
                Some(Proof::Runs) => runs(&command, place),
                Some(Proof::Serves) => serves(&command, place),
                Some(Proof::Controls) => {
                    fleet.get_or_insert_with(Fleet::start).controls(&command, place);
                }
                Some(Proof::Target) => is_target(&command, place),
                Some(Proof::Listed(_)) => {}
                None => panic!("{place}: `{command}` is neither run by a test nor listed"),
            }
            proven += 1;
        }
    }
    assert!(proven > 10, "only {proven} commands found: has the way of writing them changed?");
}

#[test]
fn every_manifest_is_valid() {
    let mut manifests = 0;
    for block in blocks() {
        // A policy list alone stands in a manifest of which the rest is of no interest.
        let text = match block.text.strip_prefix("sampling:\n") {
            Some(sampling) => in_a_pipeline(sampling),
            None => block.text.clone(),
        };
        if block.language != "yaml" || !text.contains("kind: TracePipeline") {
            continue;
        }
        if let Err(problems) = ringtail_crds::validate(&text) {
            panic!("{}: {problems:#?}", block.place);
        }
        manifests += 1;
    }
    assert!(manifests >= 3, "only {manifests} manifests found");
}

fn in_a_pipeline(sampling: &str) -> String {
    let indented: String = sampling.lines().map(|line| format!("  {line}\n")).collect();
    let exporter =
        r#"{name: tempo, type: OTLP, otlp: {endpoint: "http://tempo:4317", protocol: GRPC}}"#;
    format!(
        "apiVersion: ringtail.dev/v1alpha1\nkind: TracePipeline\nmetadata: {{name: docs}}\nspec:\n  \
         exporters: [{exporter}]\n  sampling:\n{indented}"
    )
}
