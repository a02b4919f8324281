//! The resource on a real API server: it is accepted there, refuses what the offline check refuses in the
//! same field, prints its columns, and explains itself.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail by panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use kube::core::Status;
use ringtail_cluster::{Cluster, Level, Options, require};
use ringtail_crds::validate;

/// For a definition to be served; a second on an idle machine.
const SERVED_WITHIN: Duration = Duration::from_secs(60);

const PATH: &str = "/apis/ringtail.dev/v1alpha1/namespaces/default/tracepipelines";

#[tokio::test]
async fn the_resource_works_on_a_real_api_server() {
    if require(Level::ControlPlane).is_none() {
        return;
    }
    let cluster = Cluster::start(Options::control_plane()).await.expect("a cluster");
    install(&cluster).await;
    let client = cluster.client().await.unwrap();

    let mut differences = Vec::new();
    let manifests = manifests();
    for path in &manifests {
        let text = fs::read_to_string(path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let online = online(&client, &text).await;
        differences.extend(difference(&text, &online).map(|told| format!("{name}: {told}")));
    }
    let count = differences.len();
    assert!(count == 0, "{count} of {} differ:\n{}", manifests.len(), differences.join("\n"));

    columns_are_printed(&cluster).await;
    fields_are_explained(&cluster).await;
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The table of the crate `crds`: the same files, the other judge.
fn manifests() -> Vec<PathBuf> {
    let folder = repository().join("crds/tests/manifests");
    let mut paths: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 40, "{} manifests", paths.len());
    paths
}

async fn install(cluster: &Cluster) {
    let definition = repository().join("crds/tracepipeline.yaml");
    let definition = definition.to_str().unwrap();
    cluster
        .kubectl(["apply", "--server-side", "--warnings-as-errors", "-f", definition])
        .await
        .unwrap();
    let wait = format!("--timeout={}s", SERVED_WITHIN.as_secs());
    let name = "crd/tracepipelines.ringtail.dev";
    cluster.kubectl(["wait", "--for=condition=Established", &wait, name]).await.unwrap();
    // Established comes a moment before the first request is served.
    let deadline = tokio::time::Instant::now() + SERVED_WITHIN;
    while let Err(error) = cluster.kubectl(["get", "tracepipelines"]).await {
        assert!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What a real API server says to a manifest: it is sent as it is written, and nothing is stored.
async fn online(client: &Client, text: &str) -> Result<(), Box<Status>> {
    let request = http::Request::post(format!("{PATH}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/yaml")
        .body(text.as_bytes().to_vec())
        .unwrap();
    match client.request_text(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("no answer of the API server: {error}"),
    }
}

/// How the answer differs from what the offline check says of the same text, and from what its head expects.
fn difference(text: &str, online: &Result<(), Box<Status>>) -> Option<String> {
    let offline = validate(text).err().unwrap_or_default();
    let operators = text.lines().any(|line| line == "# refused by: operator");
    match (offline.as_slice(), online) {
        ([], Ok(())) => None,
        ([_, ..], Ok(())) if operators => None,
        ([first, ..], Ok(())) => {
            Some(format!("only offline refuses {}: {}", first.path, first.message))
        }
        ([], Err(status)) => Some(format!("only the API server refuses: {}", status.message)),
        (_, Err(status)) if operators => {
            Some(format!("not left to the operator: {}", status.message))
        }
        ([first, ..], Err(status)) => {
            let fields = fields(status);
            // A map in place of a list is told by the first key in it, which is then unknown.
            let below = format!("{}.", first.path);
            let same = fields.iter().any(|field| *field == first.path || field.starts_with(&below));
            (!same)
                .then(|| format!("offline {}, online {fields:?}: {}", first.path, status.message))
        }
    }
}

/// The fields that an API server's refusal names.
fn fields(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut fields: Vec<_> = causes.map(|cause| cause.field.clone()).collect();
    // Unknown fields are found while decoding, and are told in words: unknown field "spec.sampler".
    let words = status.message.split("unknown field \"").skip(1);
    fields.extend(words.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
    fields
}

/// What people see who type `kubectl get tp`, before an operator has looked at it.
async fn columns_are_printed(cluster: &Cluster) {
    cluster.kubectl(["create", "namespace", "observability"]).await.unwrap();
    let example = repository().join("examples/cluster.yaml");
    cluster.kubectl(["apply", "-f", example.to_str().unwrap()]).await.unwrap();
    let table = cluster.kubectl(["get", "tp", "--all-namespaces"]).await.unwrap();
    let head: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAMESPACE", "NAME", "READY", "REASON", "GATEWAYS", "AGENTS", "RING", "AGE"]);
    let wide = cluster.kubectl(["get", "tp", "--all-namespaces", "-o", "wide"]).await.unwrap();
    let head: Vec<_> = wide.lines().next().unwrap().split_whitespace().collect();
    assert!(head.ends_with(&["RING", "KEPT", "VERSION", "AGE"]), "{head:?}");
}

/// Every field of the specification tells more than its type.
async fn fields_are_explained(cluster: &Cluster) {
    let sampling = cluster.kubectl(["explain", "tracepipeline.spec.sampling"]).await.unwrap();
    assert!(sampling.contains("decisionWait"), "{sampling}");
    let all = cluster.kubectl(["explain", "tracepipeline.spec", "--recursive"]).await.unwrap();
    assert!(all.contains("statusCodes"), "{all}");
    for field in ["agent", "exporters", "gateway", "routing", "sampling", "security"] {
        let path = format!("tracepipeline.spec.{field}");
        let told = cluster.kubectl(["explain", &path]).await.unwrap();
        assert!(!told.contains("<empty>"), "{path} has no description:\n{told}");
    }
}
