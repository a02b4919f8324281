//! The Helm chart on a real API server: what installs, what is admitted, who may do what, and what stays.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it cannot do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringtail_cluster::{Cluster, Level, Options, require};

/// Controllers of a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Every kind that the chart renders, except those that are not in the API server itself.
const KINDS: &str = "deployments,services,serviceaccounts,configmaps,networkpolicies,poddisruptionbudgets,\
     roles,rolebindings,clusterroles,clusterrolebindings,customresourcedefinitions,\
     servicemonitors,prometheusrules";

const CRD: &str = "customresourcedefinition.apiextensions.k8s.io/tracepipelines.ringtail.dev";

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/ringtail")
}

struct Bench(Cluster);

impl Bench {
    async fn start() -> Option<Self> {
        require(Level::ControlPlane)?;
        let bench = Self(Cluster::start(Options::control_plane()).await.unwrap());
        for (plural, kind) in
            [("servicemonitors", "ServiceMonitor"), ("prometheusrules", "PrometheusRule")]
        {
            bench.kubectl_with("apply -f -", &monitoring_kind(plural, kind)).await.unwrap();
        }
        let established = "wait --for=condition=Established crd --all --timeout=60s";
        bench.kubectl(established).await.unwrap();
        Some(bench)
    }

    async fn kubectl(&self, words: &str) -> Result<String, String> {
        self.0.kubectl(words.split(' ')).await.map_err(|error| error.to_string())
    }

    async fn kubectl_with(&self, words: &str, input: &str) -> Result<String, String> {
        let words: Vec<&str> = words.split(' ').collect();
        self.0.kubectl_with(&words, input).await.map_err(|error| error.to_string())
    }

    /// Helm in the chart's folder; a word must have no blank.
    async fn helm(&self, words: &str) -> Result<String, String> {
        let chart = chart();
        let words = words.split(' ').map(|word| match word.strip_prefix("./") {
            Some(file) => chart.join(file).display().to_string(),
            None => word.to_owned(),
        });
        self.0.helm(words).await.map_err(|error| error.to_string())
    }

    /// Everything of the chart in the cluster.
    async fn rest(&self) -> BTreeSet<String> {
        let words = format!("get {KINDS} -A -l app.kubernetes.io/part-of=ringtail -o name");
        self.kubectl(&words).await.unwrap().lines().map(str::to_owned).collect()
    }

    async fn eventually(&self, what: &str, words: &str, holds: impl Fn(&str) -> bool) {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let said = self.kubectl(words).await.unwrap_or_else(|why| why);
            if holds(&said) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{what} within {SOON:?}: {said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A kind of the Prometheus operator that takes everything.
fn monitoring_kind(plural: &str, kind: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: {plural}.monitoring.coreos.com}}
spec:
  group: monitoring.coreos.com
  names: {{plural: {plural}, kind: {kind}}}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}
"
    )
}

fn ci_files() -> BTreeSet<String> {
    let files = fs::read_dir(chart().join("ci")).unwrap().map(|entry| entry.unwrap().file_name());
    files.filter_map(|name| Some(name.to_str()?.strip_suffix("-values.yaml")?.to_owned())).collect()
}

#[tokio::test]
async fn every_file_in_ci_installs_in_a_restricted_namespace_and_leaves_what_crds_keep_says() {
    let Some(bench) = Bench::start().await else { return };
    for namespace in ["observability", "shop", "leases"] {
        bench.kubectl(&format!("create namespace {namespace}")).await.unwrap();
    }
    for case in ci_files() {
        let namespace = format!("system-{case}");
        bench.kubectl(&format!("create namespace {namespace}")).await.unwrap();
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        bench.kubectl(&format!("label namespace {namespace} {restricted}")).await.unwrap();
        let account = "create serviceaccount made-by-terraform";
        bench.kubectl(&format!("{account} -n {namespace}")).await.unwrap();

        let values = format!("-n {namespace} --values ./ci/{case}-values.yaml");
        let installed = bench.helm(&format!("install ringtail ./. {values}")).await;
        let notes = installed.unwrap_or_else(|why| panic!("{case}: {why}"));
        assert!(notes.contains("kind: TracePipeline"), "{case}: {notes}");
        // The pods cannot start without nodes, but to be there they have to be admitted.
        let replicas = if case == "ha" { 2 } else { 1 };
        let pods = format!("get pods -n {namespace} -o name");
        bench
            .eventually(&case, &pods, |said| {
                said.lines().filter(|line| line.starts_with("pod/")).count() == replicas
            })
            .await;
        let test = bench.helm(&format!("get hooks ringtail -n {namespace}")).await.unwrap();
        if test.contains("kind: Pod") {
            let words = format!("apply --dry-run=server -n {namespace} -f -");
            bench.kubectl_with(&words, &test).await.unwrap_or_else(|why| panic!("{case}: {why}"));
        }
        let upgraded = bench.helm(&format!("upgrade ringtail ./. {values}")).await;
        upgraded.unwrap_or_else(|why| panic!("{case}: {why}"));

        bench.helm(&format!("uninstall ringtail -n {namespace}")).await.unwrap();
        let rest = bench.rest().await;
        if rest.is_empty() {
            assert!(
                ["namespaced", "minimal-rights"].contains(&case.as_str()),
                "{case} keeps the CRD"
            );
            continue;
        }
        assert_eq!(rest, BTreeSet::from([CRD.to_owned()]), "{case}");
        // The next case is another release, which may not take the CRD of this one.
        bench.kubectl(&format!("delete {CRD}")).await.unwrap();
    }
}

#[tokio::test]
async fn what_stays_can_be_taken_up_again_and_what_is_not_kept_goes() {
    let Some(bench) = Bench::start().await else { return };
    bench.helm("install ringtail ./. -n ringtail-system --create-namespace").await.unwrap();
    // People with the built-in role edit may edit pipelines, without a word from anybody.
    bench.kubectl("create rolebinding dev --clusterrole=edit --user=dev").await.unwrap();
    bench
        .eventually("aggregation", "auth can-i create tracepipelines --as=dev", |said| {
            said.trim() == "yes"
        })
        .await;
    bench
        .eventually(
            "aggregation",
            "auth can-i patch tracepipelines --subresource=scale --as=dev",
            |said| said.trim() == "yes",
        )
        .await;
    let status =
        bench.kubectl("auth can-i patch tracepipelines --subresource=status --as=dev").await;
    assert!(status.is_err(), "status is the operator's: {status:?}");

    let established = format!("wait --for=condition=Established {CRD} --timeout=60s");
    bench.kubectl(&established).await.unwrap();
    let example = fs::read_to_string(chart().join("../../examples/minimal.yaml")).unwrap();
    bench.kubectl_with("apply -f -", &example).await.unwrap();
    bench.helm("uninstall ringtail -n ringtail-system").await.unwrap();
    bench.kubectl("get tracepipeline minimal").await.unwrap();

    let gone = "install ringtail ./. -n ringtail-system --set crds.keep=false";
    bench.helm(gone).await.unwrap();
    bench.kubectl("get tracepipeline minimal").await.unwrap();
    bench.helm("uninstall ringtail -n ringtail-system").await.unwrap();
    bench
        .eventually("the CRD goes", "get crd -o name", |said| !said.contains("ringtail.dev"))
        .await;
    assert_eq!(bench.rest().await, BTreeSet::new());
}

#[tokio::test]
async fn a_team_installs_for_its_namespaces_without_any_right_in_the_cluster() {
    let Some(bench) = Bench::start().await else { return };
    for namespace in ["shop", "shop-staging"] {
        bench.kubectl(&format!("create namespace {namespace}")).await.unwrap();
        let binding =
            "create rolebinding team --clusterrole=cluster-admin --serviceaccount=shop:team";
        bench.kubectl(&format!("{binding} -n {namespace}")).await.unwrap();
    }
    bench.kubectl("create serviceaccount team -n shop").await.unwrap();
    let config = bench.0.kubeconfig_for_service_account("shop", "team").await.unwrap();
    let config = format!("--kubeconfig {}", config.display());
    let values = "--set crds.enabled=false --set watchNamespaces={shop,shop-staging}";
    let installed = bench.helm(&format!("install ringtail ./. -n shop {values} {config}")).await;
    installed.unwrap();
    let account = "--as=system:serviceaccount:shop:ringtail-operator";
    for (namespace, expected) in [("shop", true), ("shop-staging", true), ("default", false)] {
        let words = format!("auth can-i create deployments {account} -n {namespace}");
        assert_eq!(bench.kubectl(&words).await.is_ok(), expected, "{namespace}");
    }
    let whole = format!("install ringtail2 ./. -n shop --set crds.enabled=false {config}");
    let refused = bench.helm(&whole).await.unwrap_err();
    assert!(refused.contains("cannot"), "the team has no right to ClusterRoles: {refused}");
}
