//! Operator and data plane import nothing of each other; what passes between them is read as it was written.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringtail::stats::{
    BudgetStats, ChurnStats, ConfigStats, DecisionStats, ExporterLedger, HeldStats, LedgerReport,
    Life, ObserverStats, Received, RingStats, Role, Stats,
};
use ringtail::transport::Keyring;
use ringtail_crds::TracePipeline;
use ringtail_engine::ownership::{Conduct, FenceStats, Stats as OwnershipStats};
use ringtail_operator::build::{self, Child, Inputs};
use ringtail_operator::live::Live;
use ringtail_operator::peer_tls::{self, CERTIFICATE_LIFETIME, Lifetimes, Present};
use ringtail_operator::settings::Settings;
use ringtail_operator::stats::answer::Answer;
use serde_json::Value;

fn pipeline() -> TracePipeline {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/cluster.yaml");
    let mut pipeline: TracePipeline =
        serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    pipeline.metadata.uid = Some("uid".to_owned());
    pipeline
}

fn conduct() -> Conduct {
    let fences = [100, 200, 300].map(|millis| FenceStats { millis, ..FenceStats::default() });
    let stats = OwnershipStats { handed_over: 13, ..OwnershipStats::default() };
    Conduct { stats, fences, ..Conduct::default() }
}

#[test]
fn statistics() {
    let stats = Stats {
        role: Role::Gateway,
        identity: "shop-gateway-0".to_owned(),
        inst: 1_700_000_000_123,
        config: ConfigStats { hash: "0123456789abcdef".to_owned(), error: Some("no".to_owned()) },
        ring: RingStats {
            digest: "fedcba9876543210".to_owned(),
            members: vec!["shop-gateway-0".to_owned()],
            observers: vec![ObserverStats {
                identity: "shop-agent-x".to_owned(),
                role: Role::Agent,
                digest: "fedcba9876543210".to_owned(),
                age_millis: 300,
                unprotected_spans: 8,
            }],
            draining: 1,
            foreign: 2,
        },
        ledger: LedgerReport {
            dropped: BTreeMap::from([("stopping".to_owned(), 3)]),
            exporters: BTreeMap::from([(
                "tempo".to_owned(),
                ExporterLedger {
                    dropped: BTreeMap::from([("queue_full".to_owned(), 4)]),
                    ..ExporterLedger::default()
                },
            )]),
            received: Received { replays: 9, ..Received::default() },
            ..LedgerReport::default()
        },
        held: HeldStats::default(),
        budget: BudgetStats::default(),
        policies: Vec::new(),
        decisions: Some(DecisionStats { kept: 5, dropped: 6, early: 7 }),
        churn: ChurnStats::of_gateway(Life::Serving, &conduct(), 11, 12),
    };
    let answer: Answer = serde_json::from_str(&serde_json::to_string(&stats).unwrap()).unwrap();
    let fenced = ["peers", "agents", "minority"].map(|cause| answer.fenced_millis(cause));
    assert_eq!(fenced, [100, 200, 300]);
    assert_eq!(answer.identity, stats.identity);
    assert_eq!(answer.inst, stats.inst);
    assert_eq!((answer.config.hash, answer.config.error), (stats.config.hash, stats.config.error));
    assert_eq!(answer.ring.digest, stats.ring.digest);
    assert_eq!(answer.ring.members, stats.ring.members);
    assert_eq!(u64::from(answer.ring.draining), stats.ring.draining);
    let (read, written) = (&answer.ring.observers[0], &stats.ring.observers[0]);
    assert_eq!((&read.identity, &read.digest), (&written.identity, &written.digest));
    assert_eq!(read.age_millis, written.age_millis);
    assert_eq!(read.unprotected_spans, 8);
    assert_eq!(answer.ledger.received.replays, 9);
    assert_eq!(answer.churn.handed_over.traces, 13);
    assert_eq!(
        (answer.decisions.kept, answer.decisions.dropped, answer.decisions.early),
        (5, 6, 7)
    );
    assert_eq!(answer.ledger.dropped.values().sum::<u64>(), 3);
    assert_eq!(answer.ledger.exporters["tempo"].dropped.values().sum::<u64>(), 4);
}

#[test]
fn the_hash_of_a_manifest() {
    let pipeline = pipeline();
    let valid = ringtail_crds::validate::validate_pipeline(&pipeline).unwrap();
    let settings = Settings {
        image: "ringtail:test".to_owned(),
        image_pull_policy: None,
        version: "0.0.0".to_owned(),
        optional_kinds: Default::default(),
        allow_unsafe_pod_template: false,
    };
    let live = Live::default();
    let inputs = Inputs { pipeline: &pipeline, valid: &valid, settings: &settings, live: &live };
    let children = build::build(&inputs);
    let texts =
        children.iter().filter_map(|child| child.manifest["data"]["pipeline.yaml"].as_str());
    let hashes: Vec<_> = texts.map(|text| Some(ringtail::config::hash(text))).collect();
    assert_eq!(hashes, [build::config_hash(&children)]);
}

#[test]
fn certificates() {
    let pipeline = pipeline();
    let lifetimes = Lifetimes { leaf: CERTIFICATE_LIFETIME };
    let made =
        peer_tls::renew(&pipeline, &Present::default(), lifetimes, SystemTime::now()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let name = pipeline.metadata.name.as_deref().unwrap();
    for (tier, own, other) in
        [("agent", Role::Agent, Role::Gateway), ("gateway", Role::Gateway, Role::Agent)]
    {
        let secret = format!("{name}-{tier}-peer-tls");
        let secret = made.secrets.iter().find(|child| child.name == secret).unwrap();
        let files = folder.path().join(tier);
        unpack(secret, &files);
        Keyring::open(&files, name, own).unwrap();
        assert!(
            Keyring::open(&files, name, other).is_err(),
            "the {tier}'s is good for the other tier"
        );
        assert!(Keyring::open(&files, "other", own).is_err(), "it is good for another pipeline");
    }
}

// As a kubelet does for a volume.
fn unpack(secret: &Child, folder: &Path) {
    fs::create_dir(folder).unwrap();
    for (file, text) in secret.manifest["data"].as_object().unwrap() {
        let bytes = STANDARD.decode(text.as_str().unwrap_or_default()).unwrap();
        fs::write(folder.join(file), bytes).unwrap();
    }
    assert_ne!(secret.manifest["data"], Value::Null);
}
