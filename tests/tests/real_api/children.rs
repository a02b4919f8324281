//! Children as the API server has them: what the golden files say, with the replicas that others want, and
//! none at all for a pipeline that reaches too far. Afterwards nothing is left and every right was used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use kube::api::{DeleteParams, Patch, PatchParams};
use ringtail_cluster::{AuditEvent, Level, Options, require};
use ringtail_operator::kind::Kind;
use ringtail_operator::rbac::{Place, TABLE};
use ringtail_operator::references;
use ringtail_tests::bench::{Bench, Operator, eventually, repository};
use serde_json::{Value, json};
use tokio::time::Instant;

/// The namespace of the golden files; here each has one of its own.
const GOLDEN_NAMESPACE: &str = "observability";
/// The golden file of this one shows the middle of a replacement, of which `operator/src/build/colour` has
/// the scenarios.
const MIDWAY: &str = "blue-green";
/// Held and not used here, each with the reason.
const HELD: &[(&str, &str, &str)] = &[
    ("*", "create", "an apply that creates needs it, and is written down as a patch"),
    ("tracepipelines", "get", "for the status of one that cannot be read"),
    ("configmaps", "delete", "every pipeline has one as long as it is there"),
    ("podmonitors", "delete", "the same"),
    ("prometheusrules", "delete", "the same"),
    ("endpointslices", "*", "held in order to grant it to agents and gateways"),
];

#[tokio::test]
async fn children_are_the_golden_ones_and_every_right_is_used() {
    if require(Level::ControlPlane).is_none() {
        return;
    }
    let bench = Bench::start(Options::control_plane()).await;
    let mut audit = bench.cluster.audit();
    let operator = bench.operator(&["--allow-unsafe-pod-template"]).await;
    let goldens = goldens(&bench).await;
    restored(&bench).await;
    let operator = replicas(&bench, operator).await;
    guard(&bench).await;
    pruned(&bench, &goldens).await;
    gone(&bench, &goldens).await;
    drop(operator);
    audited(&bench.requests(&mut audit));
}

// === Golden files ===

/// Applies every pipeline of the golden files, and compares. Returns their namespaces.
async fn goldens(bench: &Bench) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(repository("operator/src/build/tests/pipelines"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 11, "{names:?}");
    for name in &names {
        let namespace = format!("golden-{name}");
        bench.namespace(&namespace).await;
        let pipeline = read(&format!("tests/pipelines/{name}.yaml"), &namespace);
        secrets(bench, &namespace, &pipeline).await;
        bench.apply(&pipeline).await;
    }
    let (mut children, mut fields) = (0, 0);
    for name in names.iter().filter(|name| *name != MIDWAY) {
        let namespace = format!("golden-{name}");
        let wanted = read(&format!("snapshots/{name}.snap"), &namespace);
        for child in wanted.as_array().expect("a list of children") {
            fields += compare(bench, &namespace, child).await;
            children += 1;
        }
        // Status is written after the last child.
        let endpoints = read(&format!("snapshots/{name}-endpoints.snap"), &namespace);
        eventually(&format!("{name}: status.endpoints as written"), async || {
            bench.shop(&namespace).await["status"]["endpoints"] == endpoints
        })
        .await;
        only(bench, &namespace, &wanted).await;
    }
    println!("{children} children of {} golden files: {fields} fields as written", names.len() - 1);
    names.iter().map(|name| format!("golden-{name}")).collect()
}

/// A file of the operator's build tests, moved to a namespace.
fn read(path: &str, namespace: &str) -> Value {
    let text = fs::read_to_string(repository("operator/src/build").join(path)).unwrap();
    // A snapshot begins with a head of its own.
    let text = text.rsplit_once("\n---\n").map_or(text.as_str(), |(_, body)| body);
    serde_saphyr::from_str(&text.replace(GOLDEN_NAMESPACE, namespace)).unwrap()
}

/// What the pipeline refers to.
async fn secrets(bench: &Bench, namespace: &str, pipeline: &Value) {
    let pipeline = serde_json::from_value(pipeline.clone()).unwrap();
    let mut secrets: BTreeMap<String, Value> = BTreeMap::new();
    for reference in references::of(&pipeline) {
        secrets.entry(reference.name).or_insert_with(|| json!({}))[reference.key] = "x".into();
    }
    for (name, data) in secrets {
        let metadata = json!({"name": name, "namespace": namespace});
        bench
            .apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}))
            .await;
    }
}

/// Every field of the golden child is in the live one. Returns how many.
async fn compare(bench: &Bench, namespace: &str, golden: &Value) -> usize {
    let kind = golden["kind"].as_str().unwrap();
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).unwrap();
    let name = golden["metadata"]["name"].as_str().unwrap();
    let mut live = None;
    eventually(&format!("{namespace}: {kind} {name}"), async || {
        live = bench.child(kind, namespace, name).await;
        live.is_some()
    })
    .await;
    let live = live.unwrap();
    let mut comparison = Comparison::default();
    comparison.value(&format!("{namespace} {kind} {name} "), golden, &live);
    let different = comparison.different;
    assert!(different.is_empty(), "{}\n{live:#}", different.join("\n"));
    comparison.same
}

/// No child that the golden file does not have, but the Secrets, which are never built twice the same.
async fn only(bench: &Bench, namespace: &str, golden: &Value) {
    let told = |child: &Value| {
        format!(
            "{}/{}",
            child["kind"].as_str().unwrap(),
            child["metadata"]["name"].as_str().unwrap()
        )
    };
    let wanted: BTreeSet<String> = golden.as_array().unwrap().iter().map(told).collect();
    let mut there = bench.names(namespace).await;
    there.retain(|name| !name.starts_with("Secret/"));
    assert_eq!(there, wanted, "{namespace}");
}

/// What is the same and what is not.
#[derive(Default)]
struct Comparison {
    same: usize,
    different: Vec<String>,
}

impl Comparison {
    fn value(&mut self, at: &str, golden: &Value, live: &Value) {
        match (golden, live) {
            (Value::Object(golden), live) if live.is_object() || live.is_null() => {
                for (field, golden) in golden {
                    self.value(&format!("{at}.{field}"), golden, &live[field]);
                }
            }
            (Value::Array(golden), Value::Array(live)) if golden.len() == live.len() => {
                for (index, (golden, live)) in golden.iter().zip(live).enumerate() {
                    self.value(&format!("{at}[{index}]"), golden, live);
                }
            }
            _ if same(at, golden, live) => self.same += 1,
            _ => self.different.push(format!("{at}: {golden} in the golden file, {live} live")),
        }
    }
}

/// Whether a value is as it was written: the API server leaves out what is empty, and a few things differ
/// from one life to the next.
fn same(at: &str, golden: &Value, live: &Value) -> bool {
    let of_this_life = [".ownerReferences[0].uid", "/config-hash", "/template-hash"];
    if of_this_life.iter().any(|end| at.ends_with(end)) {
        return live.as_str().is_some_and(|live| live.len() == golden.as_str().unwrap().len());
    }
    let empty = [json!(null), json!([]), json!({}), json!(""), json!(false), json!(0)];
    golden == live || (live.is_null() && empty.contains(golden))
}

// === What is edited or deleted ===

/// Every child is deleted once, and those that one can spoil are edited: how long until they are back.
async fn restored(bench: &Bench) {
    let namespace = "golden-minimal";
    let mut longest = 0.0_f64;
    for name in bench.names(namespace).await {
        let (kind, name) = name.split_once('/').unwrap();
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).unwrap();
        let uid = |child: Option<Value>| child.map(|child| child["metadata"]["uid"].clone());
        let before = uid(bench.child(kind, namespace, name).await);
        let begun = Instant::now();
        bench.children(kind, namespace).delete(name, &DeleteParams::default()).await.unwrap();
        eventually(&format!("{kind} {name} again"), async || {
            let now = uid(bench.child(kind, namespace, name).await);
            now.is_some() && now != before
        })
        .await;
        longest = longest.max(begun.elapsed().as_secs_f64());
    }
    for (kind, name, spoilt) in [
        (Kind::ConfigMap, "shop-pipeline", json!({"data": {"pipeline.yaml": "spoilt"}})),
        (Kind::Deployment, "shop-gateway", json!({"spec": {"replicas": 1}})),
        (Kind::Service, "shop-gateway", json!({"spec": {"selector": {"spoilt": "yes"}}})),
        (Kind::Role, "shop-agent", json!({"rules": []})),
    ] {
        let golden = bench.child(kind, namespace, name).await.unwrap();
        let begun = Instant::now();
        let params = PatchParams::default();
        let api = bench.children(kind, namespace);
        api.patch(name, &params, &Patch::Merge(&spoilt)).await.unwrap();
        eventually(&format!("{kind} {name} as it was"), async || {
            let now = bench.child(kind, namespace, name).await.unwrap();
            spoilt.as_object().unwrap().keys().all(|field| {
                let mut comparison = Comparison::default();
                comparison.value(field, &golden[field], &now[field]);
                comparison.different.is_empty()
            })
        })
        .await;
        longest = longest.max(begun.elapsed().as_secs_f64());
    }
    println!("what is deleted or edited by hand is restored within {longest:.1} s");
}

// === Who owns replicas ===

/// `kubectl scale`, an autoscaler and an owner of the field each say how many gateways there are, whatever
/// else changes, and over a restart of the operator.
async fn replicas(bench: &Bench, operator: Operator) -> Operator {
    for namespace in ["by-hand", "by-hpa", "by-owner"] {
        bench.namespace(namespace).await;
        bench.apply(&read("tests/pipelines/minimal.yaml", namespace)).await;
        bench.wait_for_reason(namespace, "Accepted", "Valid").await;
    }
    // The autoscaler has no metrics here; what it does without is to keep within its bounds.
    let autoscaling =
        json!({"minReplicas": 6, "maxReplicas": 9, "targetCPUUtilizationPercentage": 70});
    bench.change("by-hpa", &json!({"spec": {"gateway": {"autoscaling": autoscaling}}})).await;
    bench.kubectl("scale -n by-hand --replicas=5 tp/shop").await;
    let owned = json!({
        "apiVersion": "ringtail.dev/v1alpha1", "kind": "TracePipeline",
        "metadata": {"name": "shop"}, "spec": {"gateway": {"replicas": 7}},
    });
    let params = PatchParams::apply("keda-operator").force();
    bench.pipelines("by-owner").patch("shop", &params, &Patch::Apply(&owned)).await.unwrap();
    let wanted = [
        ("by-hand", 5, "kubectl"),
        ("by-hpa", 6, "kube-controller-manager"),
        ("by-owner", 7, "keda-operator"),
    ];
    for (namespace, count, _) in wanted {
        eventually(&format!("{count} replicas {namespace}"), async || {
            deployed(bench, namespace).await == count
        })
        .await;
    }

    // Something else changes, and everything is looked at by another process.
    operator.stop().await;
    let operator = bench.operator(&[]).await;
    for (namespace, ..) in wanted {
        let wait = json!({"spec": {"sampling": {"decisionWait": "31s"}}});
        bench.change(namespace, &wait).await;
    }
    for (namespace, count, manager) in wanted {
        let generation = bench.shop(namespace).await["metadata"]["generation"].clone();
        eventually(&format!("{namespace} is reconciled"), async || {
            bench.shop(namespace).await["status"]["observedGeneration"] == generation
        })
        .await;
        let config = bench.child(Kind::ConfigMap, namespace, "shop-pipeline").await.unwrap();
        assert!(config["data"]["pipeline.yaml"].as_str().unwrap().contains("31s"), "{config:#}");
        assert_eq!(deployed(bench, namespace).await, count, "{namespace}");
        let shop = bench.shop(namespace).await;
        assert_eq!(shop["spec"]["gateway"]["replicas"], count, "{namespace}");
        let owners = owners_of_replicas(&shop);
        assert!(owners.contains(manager), "{namespace}: {owners:?}");
        assert!(!owners.iter().any(|owner| owner.contains("ringtail")), "{namespace}: {owners:?}");
        println!("{namespace}: {count} replicas, of {owners:?}");
    }
    operator
}

async fn deployed(bench: &Bench, namespace: &str) -> i64 {
    let deployment = bench.child(Kind::Deployment, namespace, "shop-gateway").await;
    deployment.and_then(|deployment| deployment["spec"]["replicas"].as_i64()).unwrap_or_default()
}

fn owners_of_replicas(shop: &Value) -> BTreeSet<String> {
    let entries = shop["metadata"]["managedFields"].as_array().unwrap().iter();
    let owning =
        entries.filter(|entry| !entry["fieldsV1"]["f:spec"]["f:gateway"]["f:replicas"].is_null());
    owning.map(|entry| entry["manager"].as_str().unwrap().to_owned()).collect()
}

// === What is refused ===

/// Pods that reach for more than their author has, as the chart runs the operator.
async fn guard(bench: &Bench) {
    let mut cases = Vec::new();
    for entry in fs::read_dir(repository("crds/tests/manifests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let Some(name) = name.strip_prefix("refused-unsafe-") else { continue };
        let text = fs::read_to_string(&path).unwrap();
        let field = text.lines().find_map(|line| line.strip_prefix("# field: ")).unwrap();
        let mut pipeline: Value = serde_saphyr::from_str(&text).unwrap();
        let namespace = format!("unsafe-{name}");
        pipeline["metadata"] = json!({"name": "shop", "namespace": namespace});
        bench.namespace(&namespace).await;
        bench.apply(&pipeline).await;
        cases.push((namespace, field.to_owned()));
    }
    assert!(cases.len() >= 9, "{cases:?}");
    for (namespace, field) in &cases {
        let accepted = bench.wait_for_reason(namespace, "Accepted", "UnsafePod").await;
        let message = accepted["message"].as_str().unwrap();
        assert_eq!(accepted["status"], "False", "{namespace}");
        assert!(message.contains(&format!("{field}: ")), "{namespace}: {message}");
        assert!(message.contains("--allow-unsafe-pod-template"), "{namespace}: {message}");
        assert_eq!(bench.condition(namespace, "Ready").await["reason"], "UnsafePod");
        assert_eq!(bench.names(namespace).await, BTreeSet::new(), "{namespace}");
        let events = format!("get events.events.k8s.io -n {namespace} -o json");
        eventually(&format!("an event in {namespace}"), async || {
            let events: Value = serde_json::from_str(&bench.kubectl(&events).await).unwrap();
            events["items"].as_array().unwrap().iter().any(|event| {
                event["regarding"]["name"] == "shop"
                    && event["type"] == "Warning"
                    && event["reason"] == "InvalidSpec"
                    && event["note"].as_str().unwrap().contains(field.as_str())
            })
        })
        .await;
        println!("{namespace}: {message}");
    }
    // A Secret of another namespace cannot even be named.
    let path = repository("crds/tests/manifests/refused-secret-of-another-namespace.yaml");
    let text = fs::read_to_string(path).unwrap();
    let refused = bench.try_apply(&serde_saphyr::from_str(&text).unwrap()).await.unwrap_err();
    assert!(refused.contains("secretKeyRef.namespace"), "{refused}");
    // What ran before the flag was taken away is told, and goes on.
    bench.wait_for_reason("golden-unsafe", "Accepted", "UnsafePod").await;
    let agents = bench.child(Kind::DaemonSet, "golden-unsafe", "shop-agent").await;
    assert_eq!(agents.unwrap()["spec"]["template"]["spec"]["hostNetwork"], true);
}

// === The end ===

/// Of every kind something is no longer wanted.
async fn pruned(bench: &Bench, goldens: &[String]) {
    assert!(goldens.iter().any(|name| name == "golden-everything"));
    let before = bench.names("golden-everything").await;
    let kinds: BTreeSet<_> = before.iter().map(|name| name.split('/').next().unwrap()).collect();
    for kind in ["HorizontalPodAutoscaler", "PodMonitor", "PrometheusRule"] {
        assert!(kinds.contains(kind), "{before:?}");
    }
    // No agents and no certificates; certificates instead of a fence; gateways of somebody else.
    let peers = |mode: &str| json!({"peerTLS": {"mode": mode}});
    let spec = json!({"spec": {"agent": {"mode": "None"}, "security": peers("Disabled")}});
    bench.change("golden-minimal", &spec).await;
    bench.change("golden-open-peers", &json!({"spec": {"security": peers("Managed")}})).await;
    let replace = read("tests/pipelines/external.yaml", "golden-everything");
    let params = kube::api::PostParams::default();
    let mut live = bench.pipelines("golden-everything").get("shop").await.unwrap();
    live.data["spec"] = replace["spec"].clone();
    bench.pipelines("golden-everything").replace("shop", &params, &live).await.unwrap();
    for (namespace, gone) in [
        ("golden-minimal", "DaemonSet/shop-agent"),
        ("golden-minimal", "Secret/shop-peer-ca"),
        ("golden-open-peers", "NetworkPolicy/shop-gateway"),
        ("golden-everything", "Deployment/shop-gateway"),
        ("golden-everything", "HorizontalPodAutoscaler/shop"),
    ] {
        eventually(&format!("no {gone} in {namespace}"), async || {
            !bench.names(namespace).await.contains(gone)
        })
        .await;
    }
}

/// Every pipeline is deleted, and the garbage collector takes what was made for it.
async fn gone(bench: &Bench, goldens: &[String]) {
    let others = ["by-hand", "by-hpa", "by-owner"].map(str::to_owned);
    let namespaces: Vec<_> = goldens.iter().chain(&others).collect();
    for namespace in &namespaces {
        bench.pipelines(namespace).delete("shop", &DeleteParams::default()).await.unwrap();
    }
    for namespace in &namespaces {
        eventually(&format!("nothing of {namespace}"), async || {
            bench.names(namespace).await.is_empty()
        })
        .await;
        let all = format!("get all,secrets,configmaps,roles,rolebindings -n {namespace} -o name");
        // Pods go after what owns them.
        eventually(&format!("nothing at all in {namespace}"), async || {
            let left = bench.kubectl(&all).await;
            !left.lines().any(|name| name.contains("/shop-"))
        })
        .await;
    }
}

/// Nothing was forbidden; what is granted is used, or held for a reason, and no reason is for nothing.
fn audited(requests: &[AuditEvent]) {
    let forbidden: Vec<_> = requests.iter().filter(|event| event.code == 403).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
    let used: BTreeSet<(&str, &str)> =
        requests.iter().map(|event| (event.resource.as_str(), event.verb.as_str())).collect();
    let mut reasons: BTreeSet<_> = HELD.iter().collect();
    let mut unused = Vec::new();
    for rule in TABLE.iter().filter(|rule| rule.place != Place::Lease) {
        for verb in rule.verbs.iter().filter(|verb| !used.contains(&(rule.resource, **verb))) {
            let held = HELD.iter().find(|(resource, held, _)| {
                [rule.resource, "*"].contains(resource) && [*verb, "*"].contains(held)
            });
            match held {
                Some(reason) => drop(reasons.remove(reason)),
                None => unused.push(format!("{} {verb}", rule.resource)),
            }
        }
    }
    assert!(unused.is_empty(), "granted and not used: {unused:#?}");
    assert!(reasons.is_empty(), "used after all: {reasons:#?}");
    println!(
        "{} requests, none forbidden, {} pairs of resource and verb",
        requests.len(),
        used.len()
    );
}
