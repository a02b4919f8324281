//! The whole operator against an API server in memory, on a virtual clock.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop where it cannot go on"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use kube::client::ClientBuilder;
use ringtail_operator::{
    cli::Cli,
    gate::Gate,
    lease::Leadership,
    metrics::Metrics,
    runtime::{Clients, Operator, Stopped},
};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

mod api;

use api::Api;

const NAMESPACE: &str = "observability";

// === The operator ===

/// A running operator; it is killed when it is dropped.
struct Running(JoinHandle<Result<(), Stopped>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn start(api: &Api) -> Running {
    start_as(api, "operator-0", &[])
}

fn start_as(api: &Api, identity: &str, flags: &[&str]) -> Running {
    start_with_stats(api, identity, flags, None)
}

fn start_with_stats(api: &Api, identity: &str, flags: &[&str], port: Option<u16>) -> Running {
    let mut args = vec![
        "ringtail-operator",
        "--data-plane-image=ringtail:test",
        "--admin=127.0.0.1:0",
        "--leader-election-namespace=ringtail-system",
    ];
    let identity = format!("--identity={identity}");
    args.push(&identity);
    args.extend(flags);
    let cli = Cli::parse_from(args);
    let api = api.clone();
    Running(tokio::spawn(async move {
        let metrics = Metrics::default();
        let (leadership, follow) = watch::channel(Leadership::Unknown);
        let gate = Gate { leadership: follow, writes: metrics.writes.clone() };
        let served = api.clone();
        let service = tower::service_fn(move |request| served.clone().serve(request));
        let gated = ClientBuilder::new(service.clone(), "default").with_layer(&gate).build();
        let lease = ClientBuilder::new(service, "default").build();
        let clients = Clients { gated, lease };
        let mut operator = Operator::new(cli, clients, leadership, metrics);
        if let Some(port) = port {
            operator = operator.with_stats(port, Duration::from_millis(200));
        }
        operator.run(std::future::pending()).await
    }))
}

// === Pipelines ===

fn pipeline() -> Value {
    json!({
        "apiVersion": "ringtail.dev/v1alpha1",
        "kind": "TracePipeline",
        "metadata": {},
        "spec": {
            "sampling": {"policies": [{
                "name": "errors", "type": "StatusCode", "statusCode": {"statusCodes": ["Error"]},
            }]},
            "exporters": [{"name": "tempo", "type": "OTLP", "otlp": {"endpoint": "http://tempo:4317"}}],
        },
    })
}

fn condition<'a>(pipeline: Option<&'a Value>, type_: &str) -> &'a Value {
    let conditions = pipeline.and_then(|pipeline| pipeline["status"]["conditions"].as_array());
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    found.unwrap_or(&Value::Null)
}

async fn wait_for_condition(api: &Api, type_: &str, status: &str, reason: &str) {
    let holds = |pipeline: Option<&Value>| {
        let condition = condition(pipeline, type_);
        condition["status"] == status && condition["reason"] == reason
    };
    api.wait_for("tracepipelines", NAMESPACE, "shop", holds).await;
}

async fn created(api: &Api) -> Running {
    api.put("tracepipelines", NAMESPACE, "shop", pipeline());
    let running = start(api);
    wait_for_condition(api, "Accepted", "True", "Valid").await;
    quiet().await;
    running
}

/// Long enough for whatever is still to come.
async fn quiet() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

// === Scenarios ===

#[tokio::test(start_paused = true)]
async fn makes_children_once_and_then_writes_nothing() {
    let api = Api::default();
    let _running = created(&api).await;
    let names = api.names(NAMESPACE);
    for child in ["configmaps/shop-pipeline", "secrets/shop-ring-seed", "secrets/shop-peer-ca"] {
        assert!(names.contains(&child.to_owned()), "{child} is not among {names:?}");
    }
    let writes = api.writes();
    // Longer than the longest pause between two looks at a pipeline.
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(api.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_operator_writes_nothing() {
    let api = Api::default();
    drop(created(&api).await);
    let writes = api.writes();
    let _running = start_as(&api, "operator-1", &[]);
    quiet().await;
    assert_eq!(api.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn what_is_edited_or_deleted_by_hand_is_restored_and_what_others_add_is_kept() {
    let api = Api::default();
    let _running = created(&api).await;
    let before = api.get("configmaps", NAMESPACE, "shop-pipeline").unwrap();
    api.edit("configmaps", NAMESPACE, "shop-pipeline", |config_map| {
        config_map["data"]["pipeline.yaml"] = "edited".into();
        config_map["metadata"]["labels"]["team"] = "checkout".into();
        config_map["metadata"]["annotations"]["note"] = "ours".into();
    });
    let restored = |config_map: Option<&Value>| {
        config_map.is_some_and(|config_map| config_map["data"] == before["data"])
    };
    api.wait_for("configmaps", NAMESPACE, "shop-pipeline", restored).await;
    let after = api.get("configmaps", NAMESPACE, "shop-pipeline").unwrap();
    assert_eq!(after["metadata"]["labels"]["team"], "checkout");
    assert_eq!(after["metadata"]["annotations"]["note"], "ours");
    api.delete("configmaps", NAMESPACE, "shop-pipeline");
    api.wait_for("configmaps", NAMESPACE, "shop-pipeline", restored).await;
    // Without the label by which it is watched it is out of sight, but not forgotten.
    api.edit("configmaps", NAMESPACE, "shop-pipeline", |config_map| {
        config_map["metadata"]["labels"]
            .as_object_mut()
            .unwrap()
            .remove("app.kubernetes.io/managed-by");
    });
    let labelled = |config_map: Option<&Value>| {
        config_map
            .is_some_and(|c| c["metadata"]["labels"]["app.kubernetes.io/managed-by"].is_string())
    };
    api.wait_for("configmaps", NAMESPACE, "shop-pipeline", labelled).await;
}

#[tokio::test(start_paused = true)]
async fn killed_after_any_write_a_restart_comes_to_the_same_end() {
    let whole = Api::default();
    drop(created(&whole).await);
    let names = whole.names(NAMESPACE);
    let total = whole.writes().len();
    assert!(total > 4, "{:?}", whole.writes());
    for k in 1..=total {
        let api = Api::default();
        api.put("tracepipelines", NAMESPACE, "shop", pipeline());
        let running = start(&api);
        // What is written after the k-th write never arrives, as when the process is gone.
        let written = AtomicUsize::new(0);
        api.set_fault(Some(Box::new(move |method, path| {
            let counts = method != "GET" && !path.contains("/leases") && !path.contains("/events");
            (counts && written.fetch_add(1, Ordering::Relaxed) >= k).then_some(503)
        })));
        quiet().await;
        drop(running);
        api.set_fault(None);
        let _running = start(&api);
        wait_for_condition(&api, "Accepted", "True", "Valid").await;
        quiet().await;
        assert_eq!(api.names(NAMESPACE), names, "killed after write {k}");
        let seed = api.get("secrets", NAMESPACE, "shop-ring-seed").unwrap();
        assert_eq!(seed["metadata"]["generation"], Value::Null, "the seed was rewritten: {seed:#}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_is_left_alone() {
    let api = Api::default();
    let theirs =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": "b"}});
    api.put("configmaps", NAMESPACE, "shop-pipeline", theirs);
    api.put("tracepipelines", NAMESPACE, "shop", pipeline());
    let _running = start(&api);
    wait_for_condition(&api, "Programmed", "False", "NameTaken").await;
    wait_for_condition(&api, "Stalled", "True", "NameTaken").await;
    let config_map = api.get("configmaps", NAMESPACE, "shop-pipeline").unwrap();
    assert_eq!(config_map["data"], json!({"a": "b"}));
    api.delete("configmaps", NAMESPACE, "shop-pipeline");
    let ours = |config_map: Option<&Value>| config_map.is_some_and(|c| c["data"]["a"].is_null());
    api.wait_for("configmaps", NAMESPACE, "shop-pipeline", ours).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_pipeline_is_observed_and_not_touched() {
    let api = Api::default();
    let _running = created(&api).await;
    api.edit("tracepipelines", NAMESPACE, "shop", |shop| shop["spec"]["paused"] = true.into());
    wait_for_condition(&api, "Paused", "True", "SpecPaused").await;
    api.delete("configmaps", NAMESPACE, "shop-pipeline");
    quiet().await;
    assert_eq!(api.get("configmaps", NAMESPACE, "shop-pipeline"), None);
    api.edit("tracepipelines", NAMESPACE, "shop", |shop| shop["spec"]["paused"] = false.into());
    api.wait_for("configmaps", NAMESPACE, "shop-pipeline", |found| found.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_pipeline_says_so_and_keeps_what_runs() {
    let api = Api::default();
    let _running = created(&api).await;
    let before = api.get("configmaps", NAMESPACE, "shop-pipeline").unwrap();
    api.edit("tracepipelines", NAMESPACE, "shop", |shop| {
        shop["spec"]["sampling"]["decisionWait"] = "never".into();
    });
    wait_for_condition(&api, "Accepted", "False", "InvalidSpec").await;
    wait_for_condition(&api, "Stalled", "True", "InvalidSpec").await;
    assert_eq!(api.get("configmaps", NAMESPACE, "shop-pipeline").unwrap(), before);
    let shop = api.get("tracepipelines", NAMESPACE, "shop");
    let message = condition(shop.as_ref(), "Accepted")["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("spec.sampling.decisionWait: "), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_poisonous_object_harms_nobody_else() {
    let api = Api::default();
    let mut poison = pipeline();
    poison["spec"]["gateway"] = "three of them, please".into();
    api.put("tracepipelines", NAMESPACE, "poison", poison);
    let _running = created(&api).await;
    let told = |poison: Option<&Value>| {
        let accepted = condition(poison, "Accepted");
        accepted["status"] == "False" && accepted["reason"] == "InvalidSpec"
    };
    api.wait_for("tracepipelines", NAMESPACE, "poison", told).await;
    let writes = api.writes();
    quiet().await;
    assert_eq!(api.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_api_server_are_outlived_without_a_burst() {
    for code in [409, 429, 500, 503] {
        let api = Api::default();
        api.put("tracepipelines", NAMESPACE, "shop", pipeline());
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tries);
        api.set_fault(Some(Box::new(move |method, path| {
            let hit = method == "PATCH" && path.contains("/configmaps/");
            hit.then(|| counted.fetch_add(1, Ordering::Relaxed));
            hit.then_some(code)
        })));
        let _running = start(&api);
        tokio::time::sleep(Duration::from_secs(600)).await;
        // After 1, 2, 4 … 256 s, or half of each.
        let tries = tries.load(Ordering::Relaxed);
        assert!((8..14).contains(&tries), "{code}: {tries} tries in ten minutes");
        api.set_fault(None);
        api.wait_for("configmaps", NAMESPACE, "shop-pipeline", |found| found.is_some()).await;
        wait_for_condition(&api, "Accepted", "True", "Valid").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_goes_takes_everything_with_it() {
    let api = Api::default();
    let _running = created(&api).await;
    api.delete("tracepipelines", NAMESPACE, "shop");
    quiet().await;
    assert_eq!(api.names(NAMESPACE), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn of_two_operators_one_writes_and_the_other_takes_over() {
    let api = Api::default();
    let first = created(&api).await;
    let _second = start_as(&api, "operator-1", &[]);
    quiet().await;
    let holder = || {
        let lease = api.get("leases", "ringtail-system", "ringtail-operator").unwrap();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(holder(), "operator-0");
    api.edit("tracepipelines", NAMESPACE, "shop", |shop| {
        shop["spec"]["sampling"]["decisionWait"] = "31s".into();
    });
    quiet().await;
    let writes = api.writes();
    drop(first);
    api.wait_for("leases", "ringtail-system", "ringtail-operator", |lease| {
        lease.is_some_and(|lease| lease["spec"]["holderIdentity"] == "operator-1")
    })
    .await;
    quiet().await;
    assert_eq!(api.writes(), writes, "what it knew when it stood by is old");
    api.delete("configmaps", NAMESPACE, "shop-pipeline");
    api.wait_for("configmaps", NAMESPACE, "shop-pipeline", |found| found.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_cannot_renew_ends() {
    let api = Api::default();
    let running = created(&api).await;
    api.set_fault(Some(Box::new(|_, path| path.contains("/leases").then_some(500))));
    let mut running = std::mem::ManuallyDrop::new(running);
    let ended = (&mut running.0).await.unwrap();
    assert!(matches!(ended, Err(Stopped::Lost(_))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_is_told_and_found_when_it_comes() {
    let api = Api::default();
    let _running = created(&api).await;
    api.edit("tracepipelines", NAMESPACE, "shop", |shop| {
        shop["spec"]["exporters"][0]["otlp"]["headers"] =
            json!([{"name": "x-org", "secretKeyRef": {"name": "tempo", "key": "org"}}]);
    });
    wait_for_condition(&api, "ResolvedRefs", "False", "SecretNotFound").await;
    let secret = |data| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": data});
    api.put("secrets", NAMESPACE, "tempo", secret(json!({"other": "eA=="})));
    wait_for_condition(&api, "ResolvedRefs", "False", "KeyMissing").await;
    api.put("secrets", NAMESPACE, "tempo", secret(json!({"org": "eA=="})));
    wait_for_condition(&api, "ResolvedRefs", "True", "Resolved").await;
}

#[tokio::test(start_paused = true)]
async fn what_reaches_for_the_node_is_refused_unless_the_operator_allows_it() {
    for (flags, status, reason) in
        [(&[][..], "False", "UnsafePod"), (&["--allow-unsafe-pod-template"][..], "True", "Valid")]
    {
        let api = Api::default();
        let mut shop = pipeline();
        shop["spec"]["gateway"]["podTemplate"] = json!({"spec": {"hostNetwork": true}});
        api.put("tracepipelines", NAMESPACE, "shop", shop);
        let _running = start_as(&api, "operator-0", flags);
        wait_for_condition(&api, "Accepted", status, reason).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_namespaces_each_is_cared_for_and_no_other() {
    let api = Api::default();
    for namespace in ["one", "two", "three"] {
        api.put("tracepipelines", namespace, "shop", pipeline());
    }
    let _running = start_as(&api, "operator-0", &["--watch-namespace=one,two"]);
    for namespace in ["one", "two"] {
        api.wait_for("configmaps", namespace, "shop-pipeline", |found| found.is_some()).await;
    }
    quiet().await;
    assert_eq!(api.names("three"), ["tracepipelines/shop"]);
    let everywhere = |path: &String| !path.contains("/namespaces/") && !path.contains("monitoring");
    let reads: Vec<_> = api.reads().into_iter().filter(everywhere).collect();
    assert_eq!(reads, Vec::<String>::new(), "a Role does not allow them");
}

// === What gateways say ===

/// Gateways that answer at `/stats` with what is in the channel.
async fn gateways(answer: watch::Receiver<Value>) -> u16 {
    use axum::{Json, Router, extract::State, routing::get};
    let stats = async |State(answer): State<watch::Receiver<Value>>| Json(answer.borrow().clone());
    let mut port = 0;
    for number in 1..=GATEWAYS {
        // Every address of 127/8 is this machine.
        let listener =
            tokio::net::TcpListener::bind(format!("127.0.0.{number}:{port}")).await.unwrap();
        port = listener.local_addr().unwrap().port();
        let router = Router::new().route("/stats", get(stats)).with_state(answer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    port
}

const GATEWAYS: i64 = 3;

fn stats(config_hash: &str, observer: &str) -> Value {
    json!({
        "identity": "shop-gateway-1", "inst": 1, "somethingNew": [],
        "config": {"hash": config_hash},
        "ring": {
            "digest": "aaaa", "members": ["g1", "g2", "g3"], "draining": 0,
            "observers": [{"identity": "agent-1", "role": "agent", "digest": observer, "ageMillis": 300}],
        },
        "decisions": {"kept": 10, "dropped": 90, "early": 0},
    })
}

/// What Kubernetes' controllers would say of a fleet that works.
fn works(api: &Api) {
    for number in 1..=GATEWAYS {
        let labels = json!({
            "app.kubernetes.io/managed-by": "ringtail-operator",
            "app.kubernetes.io/component": "gateway",
            "ringtail.dev/pipeline": "shop",
        });
        let status = json!({"phase": "Running", "podIP": format!("127.0.0.{number}")});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"labels": labels}, "status": status,
        });
        api.put("pods", NAMESPACE, &format!("shop-gateway-{number}"), pod);
    }
    let gateways = json!({
        "observedGeneration": 1, "replicas": 3, "readyReplicas": 3,
        "updatedReplicas": 3, "availableReplicas": 3,
    });
    api.set_status("deployments", NAMESPACE, "shop-gateway", gateways);
    let agents = json!({
        "observedGeneration": 1, "desiredNumberScheduled": 12, "currentNumberScheduled": 12,
        "numberReady": 12, "updatedNumberScheduled": 12, "numberAvailable": 12,
    });
    api.set_status("daemonsets", NAMESPACE, "shop-agent", agents);
}

// On the real clock, because gateways are asked over real sockets.
#[tokio::test]
async fn a_fleet_becomes_ready_and_a_split_of_its_ring_is_told() {
    let api = Api::default();
    api.put("tracepipelines", NAMESPACE, "shop", pipeline());
    let (answers, answer) = watch::channel(json!("not ready"));
    let port = gateways(answer).await;
    let _running = start_with_stats(&api, "operator-0", &[], Some(port));
    wait_for_condition(&api, "Accepted", "True", "Valid").await;
    api.wait_for("daemonsets", NAMESPACE, "shop-agent", |found| found.is_some()).await;
    works(&api);
    wait_for_condition(&api, "Ready", "Unknown", "ReportersMissing").await;
    let shop = api.get("tracepipelines", NAMESPACE, "shop").unwrap();
    let hash = shop["status"]["configHash"].as_str().unwrap();
    answers.send_replace(stats("of before", "aaaa"));
    wait_for_condition(&api, "Ready", "False", "ConfigPropagating").await;
    answers.send_replace(stats(hash, "aaaa"));
    wait_for_condition(&api, "Ready", "True", "AllTiersReady").await;
    answers.send_replace(stats(hash, "bbbb"));
    wait_for_condition(&api, "RingConverged", "False", "SplitView").await;
    api.wait_for("tracepipelines", NAMESPACE, "shop", |shop| {
        shop.is_some_and(|shop| shop["status"]["ring"]["agreeing"] == 1)
    })
    .await;
    let status = &api.get("tracepipelines", NAMESPACE, "shop").unwrap()["status"];
    assert_eq!(status["gateways"], "3/3");
    assert_eq!(status["agents"], "12/12");
    assert_eq!(status["sampling"]["reportingPods"], "3/3");
    assert_eq!(status["ring"]["members"], 3);
    assert_eq!(status["ring"]["observers"], 2);
    answers.send_replace(stats(hash, "aaaa"));
    wait_for_condition(&api, "Ready", "True", "AllTiersReady").await;
    api.set_status(
        "deployments",
        NAMESPACE,
        "shop-gateway",
        json!({
            "observedGeneration": 1, "replicas": 3, "readyReplicas": 1,
            "updatedReplicas": 3, "availableReplicas": 1,
        }),
    );
    wait_for_condition(&api, "Ready", "False", "InsufficientReplicas").await;
}
