//! From texts to what is in force.

use tokio::sync::mpsc;

use super::*;

/// How long anything may take. Generous: it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(60);

const MANIFEST: &str = r"
apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {name: shop}
spec:
  sampling:
    decisionWait: 30s
    policies: [{name: all, type: AlwaysSample}]
  exporters: [{name: tempo, type: OTLP, otlp: {endpoint: 'http://tempo:4317', protocol: GRPC}}]
";

/// Tells the wait of every manifest that is taken over.
struct Teller(mpsc::UnboundedSender<Duration>);

impl Apply for Teller {
    async fn apply(&mut self, pipeline: ValidPipeline) -> Result<(), String> {
        self.0.send(pipeline.decision_wait).map_err(|error| error.to_string())
    }
}

struct Bench {
    file: PathBuf,
    _directory: tempfile::TempDir,
    remote: watch::Sender<Option<Arc<str>>>,
    in_force: Arc<InForce>,
    applied: mpsc::UnboundedReceiver<Duration>,
}

impl Bench {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pipeline.yaml");
        std::fs::write(&file, MANIFEST).unwrap();
        let loaded = Loaded::read(&file).unwrap();
        let in_force = Arc::new(InForce::new(loaded.hash));
        let (remote, texts) = watch::channel(None);
        let health = Arc::new(Health::new("k8s"));
        let follower = Follower {
            path: file.clone(),
            name: loaded.pipeline.name,
            remote: Some(Remote { texts, health }),
            in_force: Arc::clone(&in_force),
            read_every: Duration::from_millis(5),
        };
        let (teller, applied) = mpsc::unbounded_channel();
        tokio::spawn(follower.run(Teller(teller)));
        Self { file, _directory: directory, remote, in_force, applied }
    }

    /// The next decision wait that is applied, in seconds; what should not be applied would come first.
    async fn applied(&mut self) -> u64 {
        let next = tokio::time::timeout(PATIENCE, self.applied.recv()).await;
        next.expect("something is applied").unwrap().as_secs()
    }

    /// Waits until a manifest was refused, and returns why.
    async fn refused(&self) -> String {
        let wait = async {
            loop {
                if let Some(error) = self.in_force.stats().error {
                    return error;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("it is refused")
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    fn send(&self, text: &str) {
        self.remote.send_replace(Some(Arc::from(text)));
    }
}

fn waits(wait: &str) -> String {
    MANIFEST.replace("30s", wait)
}

#[test]
fn a_hash_is_what_sha256sum_begins_with() {
    assert_eq!(hash("ringtail\n"), "95bd574c25dff1e3");
}

#[tokio::test]
async fn a_file_that_changes_is_taken_over() {
    let mut bench = Bench::start();
    bench.write(&waits("5s"));
    assert_eq!(bench.applied().await, 5, "what it started with is in force already");
    // Kubelet swaps a link.
    let other = bench.file.with_extension("new");
    std::fs::write(&other, waits("6s")).unwrap();
    std::fs::rename(&other, &bench.file).unwrap();
    assert_eq!(bench.applied().await, 6);
    std::fs::remove_file(&bench.file).unwrap();
    bench.write(&waits("7s"));
    assert_eq!(bench.applied().await, 7);
}

#[tokio::test]
async fn a_wrong_manifest_changes_nothing_and_is_shown() {
    for (wrong, why) in [
        (waits("never"), "decisionWait"),
        (MANIFEST.replace("AlwaysSample", "Sometimes"), "type"),
        (MANIFEST.replace("shop", "other"), "of pipeline other"),
    ] {
        let mut bench = Bench::start();
        bench.send(&wrong);
        let error = bench.refused().await;
        assert!(error.contains(why), "{why}: {error}");
        assert_eq!(bench.in_force.stats().hash, hash(MANIFEST), "{why}");
        bench.send(MANIFEST);
        assert_eq!(bench.applied().await, 30, "{why}");
        assert_eq!(bench.in_force.refusals.load(Relaxed), 1, "{why}");
    }
}

#[tokio::test]
async fn the_cluster_counts_whatever_the_file_says() {
    let mut bench = Bench::start();
    bench.send(&waits("5s"));
    assert_eq!(bench.applied().await, 5);
    bench.send(&waits("8s"));
    assert_eq!(bench.applied().await, 8);
    let expected = ConfigStats { hash: hash(&waits("8s")), error: None };
    let shown = async {
        while bench.in_force.stats() != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("it is shown");
}

#[test]
fn a_file_is_left_alone_while_the_cluster_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipeline.yaml");
    let (remote, texts) = watch::channel(None);
    let health = Arc::new(Health::new("k8s"));
    let follower = Follower {
        path: path.clone(),
        name: "shop".to_owned(),
        remote: Some(Remote { texts, health: Arc::clone(&health) }),
        in_force: Arc::new(InForce::new(String::new())),
        read_every: READ_EVERY,
    };
    let mut in_file = String::new();
    let mut read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        follower.read_file(&mut in_file)
    };
    // Not heard of the cluster yet; the same text again; the cluster answers; it is away.
    assert_eq!(read("1").as_deref(), Some("1"));
    assert_eq!(read("1"), None);
    remote.send_replace(Some(Arc::from("2")));
    assert_eq!(read("3"), None);
    health.fail();
    assert_eq!(read("3"), None, "that it said so before is no news");
    assert_eq!(read("4").as_deref(), Some("4"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(follower.read_file(&mut in_file), None);
}
