//! A fleet of real agents and gateways under a real operator: certificates, policies, an old view, a missing
//! gateway, and what kubectl says of all that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use kube::api::DeleteParams;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringtail::membership::asker;
use ringtail::peer::{Identity, Role, State};
use ringtail::stats;
use ringtail::transport::{CallError, Client, ClientLimits, Keyring};
use ringtail_cluster::{AuditEvent, Level, Options, require};
use ringtail_operator::kind::Kind;
use ringtail_tests::backend::Backend;
use ringtail_tests::bench::{Bench, SOON, condition, eventually, repository};
use ringtail_tests::certificates::Authority;
use ringtail_tests::kubelet::{self, Kubelet, Pod};
use ringtail_tests::traces::Trace;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) const NAMESPACE: &str = "shop";
const QUIET: &str = "quiet";
/// Longer than two polls of the gateways.
const SETTLED: Duration = Duration::from_secs(35);
const SILENCE: Duration = Duration::from_secs(120);
/// Spans of a trace that is sent.
const SPANS: u32 = 4;
/// Traces between the first half of a trace and the second: 4 s, by another agent.
const APART: u64 = 100;
/// Between two traces.
const PAUSE: Duration = Duration::from_millis(40);

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_keeps_its_promises_and_its_status_tells_the_truth() {
    if require(Level::ControlPlane).is_none() || !has_network("a_fleet_keeps_its_promises") {
        return;
    }
    let backend = Backend::start().await;
    let bench = Arc::new(Bench::start(options()).await);
    // The shortest life: a leaf is renewed every 40 s.
    let operator = bench.operator(&["--peer-certificate-lifetime=60s"]).await;
    kubelet::register_nodes(&bench, 4).await;
    let export = backend.address.to_string();
    futures::join!(busy(&bench, &backend), quiet(&bench, &export));
    nobody_asks_for_too_much(&bench);
    drop(operator);
}

async fn busy(bench: &Arc<Bench>, backend: &Backend) {
    bench.namespace(NAMESPACE).await;
    bench.apply(&pipeline("all")).await;
    let kubelet = Kubelet::start(bench, NAMESPACE, &backend.address.to_string());
    bench.kubectl("wait -n shop --for=condition=Ready tracepipeline/shop --timeout=150s").await;
    kubelet.await_ring(7, 3).await;

    let load = Load::start(&kubelet);
    strangers(&kubelet).await;
    policies(bench, &kubelet).await;
    wrong_policies(bench, &kubelet).await;
    renewals(bench, &kubelet).await;
    let sent = load.stop().await;
    nothing_is_lost(&kubelet, backend, sent).await;
    told(bench).await;
    split(bench, &kubelet).await;
    for pod in kubelet.stop().await {
        pod.process.stop_balanced();
    }
}

/// Nodes without kubelets stay Ready, and pods on them are left alone.
pub(crate) fn options() -> Options {
    Options::control_plane().controller_flag("--node-monitor-grace-period=24h")
}

/// EndpointSlices hold no loopback addresses.
pub(crate) fn has_network(test: &str) -> bool {
    use std::io::Write as _;
    let address = kubelet::address();
    if address.is_none() {
        let reason = "this machine has no address but loopback, which no EndpointSlice may hold";
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    }
    address.is_some()
}

/// Keeps every trace by a policy of this name.
pub(crate) fn pipeline(policy: &str) -> Value {
    json!({
        "apiVersion": "ringtail.dev/v1alpha1",
        "kind": "TracePipeline",
        "metadata": {"name": "shop", "namespace": NAMESPACE},
        "spec": {
            "sampling": {
                "decisionWait": "1s", "policies": [{"name": policy, "type": "AlwaysSample"}],
            },
            "exporters": [{"name": "tempo", "type": "OTLP", "otlp": {
                "endpoint": "http://tempo:4317", "protocol": "GRPC",
                "retry": {"initialInterval": "50ms", "maxInterval": "200ms"},
            }}],
        },
    })
}

// === Rights and silence ===

/// Beside the fleet stands another one without traffic: for two minutes nothing is written for it.
async fn quiet(bench: &Arc<Bench>, backend: &str) {
    bench.namespace(QUIET).await;
    let mut pipeline = pipeline("all");
    pipeline["metadata"]["namespace"] = QUIET.into();
    // The certificates of this operator are renewed all the time.
    pipeline["spec"]["security"] = json!({"peerTLS": {"mode": "Disabled"}});
    bench.apply(&pipeline).await;
    let kubelet = Kubelet::start(bench, QUIET, backend);
    bench.wait_for_reason(QUIET, "Ready", "AllTiersReady").await;
    kubelet.await_ring(7, 3).await;
    let told = bench.condition(QUIET, "PeersUnauthenticated").await;
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("PeerTLSDisabled")));
    let mut audit = bench.cluster.audit();
    let mut writes = async |wait| -> Vec<AuditEvent> {
        audit.skip().unwrap();
        tokio::time::sleep(wait).await;
        let mut events = bench.requests(&mut audit);
        events.retain(|event| event.namespace == QUIET && event.is_write());
        events
    };
    // The first numbers are written once more when a minute is over.
    let begun = Instant::now();
    while !writes(SETTLED).await.is_empty() {
        assert!(begun.elapsed() < SOON, "it never comes to rest");
    }
    let written = writes(SILENCE).await;
    assert!(written.is_empty(), "{written:#?}");
    println!("nothing was written for a fleet without traffic in {SILENCE:?}");
    for pod in kubelet.stop().await {
        pod.process.stop_balanced();
    }
}

/// Whatever operator, agents and gateways asked for, they may.
fn nobody_asks_for_too_much(bench: &Bench) {
    let mut asked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in bench.cluster.audit().events().unwrap() {
        let Some(account) = event.user.strip_prefix("system:serviceaccount:") else { continue };
        let what = format!("{} {}", event.verb, event.resource);
        assert_ne!(event.code, 403, "{account}: {event:#?}");
        asked.entry(account.to_owned()).or_default().insert(what);
    }
    asked.retain(|account, _| account.starts_with(NAMESPACE));
    println!("without a refusal: {asked:#?}");
    assert_eq!(asked.len(), 2, "agents and gateways");
}

// === Load ===

/// Traces for all agents in turn, until it is stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Load {
    /// Whole traces.
    pub(crate) fn start(kubelet: &Kubelet) -> Self {
        Self::start_parts(kubelet, 1)
    }

    /// Traces in two halves, which go to different agents at different times.
    pub(crate) fn start_halves(kubelet: &Kubelet) -> Self {
        Self::start_parts(kubelet, 2)
    }

    fn start_parts(kubelet: &Kubelet, parts: u32) -> Self {
        let agents: Vec<String> =
            kubelet.pods("agent").iter().map(|pod| pod.process.grpc()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut senders = Vec::new();
            for agent in agents {
                senders.push(TraceServiceClient::connect(format!("http://{agent}")).await.unwrap());
            }
            let mut send = async |number: u64, part: u32| {
                let trace = Trace { number, spans: SPANS, error: false, duration_ms: 20 };
                let turn = usize::try_from(number + u64::from(part)).unwrap() % senders.len();
                senders[turn].export(trace.part(part, parts)).await.expect("spans are taken");
            };
            let (mut begun, mut ended) = (0, 0);
            while ended < begun || !stopped.load(SeqCst) {
                let more = !stopped.load(SeqCst);
                if more {
                    send(begun, 0).await;
                    begun += 1;
                }
                if parts == 1 {
                    ended = begun;
                } else if ended + APART < begun || !more {
                    send(ended, 1).await;
                    ended += 1;
                }
                tokio::time::sleep(PAUSE).await;
            }
            begun
        });
        Self { stop, task }
    }

    /// Ends it when every trace has all its parts; returns how many there are.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, SeqCst);
        self.task.await.unwrap()
    }
}

/// Every trace is with the backend, whole and once.
pub(crate) async fn nothing_is_lost(kubelet: &Kubelet, backend: &Backend, sent: u64) {
    eventually(&format!("{sent} traces at the backend"), async || {
        backend.traces().len() as u64 >= sent && backend.spans() as u64 >= sent * u64::from(SPANS)
    })
    .await;
    let traces = backend.traces();
    let torn = traces.values().filter(|spans| spans.len() != SPANS as usize).count();
    println!("{sent} traces of {SPANS} spans; {torn} not whole, or doubled");
    assert_eq!((traces.len() as u64, torn), (sent, 0));
    for pod in kubelet.all() {
        let ledger = pod.process.stats().ledger;
        assert_eq!(stats::total(&ledger.dropped), 0, "{ledger:#?}");
    }
}

// === Certificates ===

/// The operator's certificates open the door; those of somebody else, and none, do not.
async fn strangers(kubelet: &Kubelet) {
    let (agents, gateways) = (kubelet.pods("agent"), kubelet.pods("gateway"));
    let gateway = &gateways[0];
    let port = gateway.process.listening.peer.expect("a peer port").to_string();
    let counted = |outcome| gateway.process.metric("ringtail_peer_handshakes_total", outcome);
    let before = ["bad_certificate", "broken"].map(counted);

    let ours = agents[0].file("/etc/ringtail/peer-tls");
    let ours = Keyring::open(&ours, "shop", stats::Role::Agent).expect("the operator's");
    assert_eq!(hello(&port, Some(&ours)).await.unwrap(), gateway.process.stats().identity);

    let (folder, stranger) = (tempfile::tempdir().unwrap(), Authority::generate());
    let theirs = stranger.issue(folder.path(), "agent", &[]);
    let ca = gateway.file("/etc/ringtail/peer-tls/ca.crt");
    fs::copy(ca, theirs.join("ca.crt")).unwrap();
    let theirs = Keyring::open(&theirs, "shop", stats::Role::Agent).unwrap();
    hello(&port, Some(&theirs)).await.expect_err("a certificate of somebody else");
    hello(&port, None).await.expect_err("no certificate");
    eventually("both are counted", async || {
        counted("bad_certificate") > before[0] && counted("broken") > before[1]
    })
    .await;
}

async fn hello(address: &str, keyring: Option<&Arc<Keyring>>) -> Result<String, CallError> {
    let client = Client::with_keyring(address, &ClientLimits::default(), keyring).unwrap();
    let me = Identity { id: "stranger".to_owned(), inst: 1, role: Role::Agent };
    let answer = asker::ask(&client, me.hello(State::Serving, 0)).await?;
    Ok(answer.and_then(|answer| answer.member).map(|member| member.id).unwrap_or_default())
}

/// Certificates change under load: those that are due, and more of them, whose Secrets are deleted.
async fn renewals(bench: &Bench, kubelet: &Kubelet) {
    let secrets = ["shop-agent-peer-tls", "shop-gateway-peer-tls"];
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let applied =
        |pod: &Arc<Pod>| pod.process.metric("ringtail_peer_certificates_total", "applied");
    for round in 0..8 {
        let before: Vec<f64> = kubelet.all().iter().map(applied).collect();
        for secret in secrets {
            let api = bench.children(Kind::Secret, NAMESPACE);
            api.delete(secret, &DeleteParams::default()).await.unwrap();
        }
        eventually(&format!("certificates of round {round} in use"), async || {
            let now: Vec<f64> = kubelet.all().iter().map(applied).collect();
            now.iter().zip(&before).all(|(now, before)| now > before)
        })
        .await;
        for secret in secrets {
            let made = bench.child(Kind::Secret, NAMESPACE, secret).await.expect("made anew");
            seen.insert(made["data"]["tls.crt"].to_string());
        }
        // Whoever comes now is let in by them.
        let pods = kubelet.pods("agent");
        let port = kubelet.pods("gateway")[0].process.listening.peer.unwrap().to_string();
        let ours = pods[0].file("/etc/ringtail/peer-tls");
        let ours = Keyring::open(&ours, "shop", stats::Role::Agent).unwrap();
        hello(&port, Some(&ours)).await.expect("ours is let in");
    }
    let taken: Vec<f64> = kubelet.all().iter().map(applied).collect();
    println!("{} certificates seen in 8 rounds; each process took over {taken:?}", seen.len());
    assert!(seen.len() >= 16, "a new one a tier in each round");
}

// === Policies ===

/// Ten changes, each measured until every gateway has it in force.
async fn policies(bench: &Bench, kubelet: &Kubelet) {
    let before = instances(kubelet);
    let mut seconds = Vec::new();
    for round in 0..10 {
        let name = format!("all-{round}");
        let spec = pipeline(&name)["spec"].clone();
        bench.change(NAMESPACE, &json!({"spec": {"sampling": spec["sampling"]}})).await;
        let begun = Instant::now();
        eventually(&name, async || {
            kubelet.pods("gateway").iter().all(|pod| {
                let policies = pod.process.stats().policies;
                policies.iter().map(|policy| policy.name.as_str()).eq([name.as_str()])
            })
        })
        .await;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!(
        "a policy is in force everywhere after {:.1} s at least, {:.1} s in the middle, {:.1} s at most",
        seconds[0], seconds[5], seconds[9]
    );
    assert!(seconds[9] < 30.0, "{seconds:?}");
    assert_eq!(instances(kubelet), before, "nobody was started again");
    let generation = bench.shop(NAMESPACE).await["metadata"]["generation"].clone();
    let programmed = bench.wait_for_reason(NAMESPACE, "Programmed", "ConfigAcknowledged").await;
    assert_eq!(programmed["observedGeneration"], generation);
}

fn instances(kubelet: &Kubelet) -> Vec<(String, u64)> {
    let stats = kubelet.all().into_iter().map(|pod| pod.process.stats());
    stats.map(|stats| (stats.identity, stats.inst)).collect()
}

/// What is wrong by the schema is refused; what only the operator finds out is told. Either way gateways go
/// on with what they have.
async fn wrong_policies(bench: &Bench, kubelet: &Kubelet) {
    let hashes = || -> BTreeSet<String> {
        kubelet.pods("gateway").iter().map(|pod| pod.process.stats().config.hash).collect()
    };
    let before = hashes();
    assert_eq!(before.len(), 1);
    let mut wrong = pipeline("all");
    wrong["spec"]["sampling"]["policies"][0]["type"] = "Sometimes".into();
    let refused = bench.try_apply(&wrong).await.unwrap_err();
    assert!(refused.contains("spec.sampling.policies[0].type"), "{refused}");

    let cycle = json!([
        {"name": "all", "type": "AlwaysSample"},
        {"name": "a", "type": "Or", "or": {"policies": ["b"]}},
        {"name": "b", "type": "Or", "or": {"policies": ["a"]}},
    ]);
    bench.change(NAMESPACE, &json!({"spec": {"sampling": {"policies": cycle}}})).await;
    let accepted = bench.wait_for_reason(NAMESPACE, "Accepted", "InvalidSpec").await;
    let shop = bench.shop(NAMESPACE).await;
    assert_eq!(accepted["status"], "False");
    assert_eq!(accepted["observedGeneration"], shop["metadata"]["generation"]);
    assert!(accepted["message"].as_str().unwrap().contains("cycle"), "{accepted}");
    assert_eq!(condition(&shop, "Ready")["status"], "False");
    assert_eq!(hashes(), before, "the old one is in force");

    let sampling = pipeline("all")["spec"]["sampling"].clone();
    bench.change(NAMESPACE, &json!({"spec": {"sampling": sampling}})).await;
    eventually("the right one", async || hashes() != before && hashes().len() == 1).await;
    bench.wait_for_reason(NAMESPACE, "Ready", "AllTiersReady").await;
}

// === What kubectl says ===

async fn told(bench: &Bench) {
    // Numbers come with the next write of the statistics.
    eventually("what was kept", async || {
        bench.shop(NAMESPACE).await["status"]["sampling"]["keptPermille"] == 1000
    })
    .await;
    let row = |text: String| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let table = row(bench.kubectl("get tp -n shop").await);
    assert_eq!(table[0], ["NAME", "READY", "REASON", "GATEWAYS", "AGENTS", "RING", "AGE"]);
    assert_eq!(table[1][..6], ["shop", "True", "AllTiersReady", "3/3", "4/4", "Converged"]);
    let wide = row(bench.kubectl("get tp -n shop -o wide").await);
    assert_eq!(wide[0][5..], ["RING", "KEPT", "VERSION", "AGE"]);
    assert_eq!(wide[1][5..8], ["Converged", "1000", env!("CARGO_PKG_VERSION")]);
    println!("{}", bench.kubectl("get tp -n shop -o wide").await);

    let explained = bench.kubectl("explain tracepipeline.spec.sampling").await;
    println!("{explained}");
    let text = fs::read_to_string(repository("crds/tracepipeline.yaml")).unwrap();
    let definition: Value = serde_saphyr::from_str(&text).unwrap();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/sampling";
    let sampling = definition.pointer(spec).unwrap();
    let mut fields = 0;
    documented("sampling", sampling, &mut fields);
    for (field, schema) in sampling["properties"].as_object().unwrap() {
        assert!(explained.contains(field.as_str()), "{field}\n{explained}");
        let words = schema["description"].as_str().unwrap().split_whitespace();
        let flat: Vec<_> = explained.split_whitespace().collect();
        let words: Vec<_> = words.collect();
        assert!(flat.windows(words.len()).any(|part| part == words), "{field}\n{explained}");
    }
    println!("{fields} fields of spec.sampling are described in sentences");
}

/// Every field below says in a sentence what it is.
fn documented(at: &str, schema: &Value, fields: &mut usize) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        let told = field["description"].as_str().unwrap_or_default();
        let sentence =
            told.len() > 10 && told.starts_with(char::is_uppercase) && told.ends_with('.');
        assert!(sentence, "{at}: {told:?}");
        *fields += 1;
        documented(&at, field, fields);
        documented(&at, &field["items"], fields);
    }
}

// === The ring ===

/// An agent that hears nothing from the API server keeps its old view while a gateway joins: the status says
/// so. A gateway that does not answer is missing there, not zero.
async fn split(bench: &Bench, kubelet: &Kubelet) {
    let agents = kubelet.pods("agent");
    // Not the newcomer: without it all would have the ring that the cut off agent has.
    let gateways = kubelet.pods("gateway");
    let old = agents[0].process.stats().ring;
    agents[0].wire.set_here(false);
    bench.kubectl("scale -n shop --replicas=4 tp/shop").await;
    eventually("a fourth member in the rings of the others", async || {
        let pods = kubelet.all();
        let others = pods.iter().filter(|pod| !Arc::ptr_eq(pod, &agents[0]));
        pods.len() == 8 && others.into_iter().all(|pod| pod.process.stats().ring.members.len() == 4)
    })
    .await;
    gateways[0].process.signal("STOP");
    let begun = Instant::now();
    let split = bench.wait_for_reason(NAMESPACE, "RingConverged", "SplitView").await;
    println!("SplitView after {:.1} s: {}", begun.elapsed().as_secs_f64(), split["message"]);
    assert_eq!(split["status"], "False");
    let identity = agents[0].process.stats().identity;
    assert!(split["message"].as_str().unwrap().contains(&identity), "{split}");
    let members = agents[0].process.stats().ring.members;
    assert!(members.iter().all(|member| old.members.contains(member)), "it knows no newcomer");
    // The change of the condition has the numbers written at once.
    eventually("a missing gateway and one who dissents", async || {
        let status = bench.shop(NAMESPACE).await["status"].clone();
        let ring = ["observers", "agreeing"].map(|field| status["ring"][field].as_u64());
        status["sampling"]["reportingPods"] == "3/4" && ring == [Some(7), Some(6)]
    })
    .await;
    println!("one dissents, 3/4 gateways report after {:.1} s", begun.elapsed().as_secs_f64());
    let shop = bench.shop(NAMESPACE).await;
    assert_eq!(condition(&shop, "Programmed")["reason"], "ConfigPropagating");
    assert!(shop["status"]["sampling"]["tracesDecided"].as_u64().unwrap() > 0, "{shop:#}");
    gateways[0].process.signal("CONT");
    agents[0].wire.set_here(true);
    drop((agents, gateways));
    kubelet.await_ring(8, 4).await;
    bench.wait_for_reason(NAMESPACE, "RingConverged", "Converged").await;
}
