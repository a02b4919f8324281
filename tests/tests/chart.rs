//! The Helm chart: its files agree with each other and with the code, and the real helm renders what is
//! meant.
//!
//! `make generate` runs this with `RINGTAIL_GENERATE` set, and then it writes the generated files instead of
//! comparing them: the chart's copy of the CRD, the table of its README, the rendered examples.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser as _;
use regex::Regex;
use ringtail_cluster::{Level, require};
use ringtail_operator::check::Check;
use ringtail_operator::cli::Cli;
use ringtail_operator::rbac::{self, Place};
use serde_json::{Value, json};

/// Ends the part of the README that is written by hand.
const README_MARKER: &str =
    "<!-- The table is made from the comments in values.yaml by `make generate`. -->\n\n";

/// The alerts that the operator makes for each pipeline.
const FLEET_ALERTS: &str = "operator/src/build/prometheus_rule.rs";

/// Schemas that may take keys that they do not name, with the reason.
const OPEN: &[(&str, &str)] = &[
    (
        "/properties/global",
        "a parent chart's globals arrive here; a template closes it without a parent",
    ),
    ("/definitions/affinity/properties/nodeAffinity", "the API server checks it"),
    ("/definitions/affinity/properties/podAffinity", "the API server checks it"),
    ("/definitions/affinity/properties/podAntiAffinity", "the API server checks it"),
    ("/properties/extraObjects/items/anyOf/1", "any manifest"),
];

// === Files of the chart, without helm ===

#[test]
fn the_copy_of_the_crd_is_current() {
    let made = fs::read_to_string(root().join("crds/tracepipeline.yaml")).unwrap();
    check_generated("files/tracepipeline.yaml", &made);
}

#[test]
fn the_readme_lists_every_value() {
    let text = read("values.yaml");
    let documented = documented_values(&text);
    let values = yaml(&text);
    let mut missing = Vec::new();
    undocumented("", &values, &documented, &mut missing);
    assert!(missing.is_empty(), "values without a comment `# -- `: {missing:?}");

    let mut table = "| value | default | what |\n|---|---|---|\n".to_owned();
    for (path, what) in &documented {
        let default = values.pointer(&format!("/{}", path.replace('.', "/"))).unwrap();
        writeln!(table, "| `{path}` | `{default}` | {what} |").unwrap();
    }
    let readme = read("README.md");
    let (by_hand, _) = readme.split_once(README_MARKER).expect("the marker is there");
    check_generated("README.md", &format!("{by_hand}{README_MARKER}{table}"));
}

#[test]
fn the_schema_is_closed_and_knows_every_value() {
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let mut open = BTreeSet::new();
    open_objects("", &schema, &mut open);
    let expected: BTreeSet<_> = OPEN.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(open, expected, "objects that take any key");

    let mut unknown = Vec::new();
    unknown_values("", &yaml(&read("values.yaml")), &schema, &schema, &mut unknown);
    assert!(unknown.is_empty(), "values that the schema does not know: {unknown:?}");
    for key in schema["properties"].as_object().unwrap().keys().filter(|key| *key != "enabled") {
        let there = yaml(&read("values.yaml")).get(key).is_some();
        assert!(there, "{key} is in the schema and not in values.yaml");
    }
}

#[test]
fn the_operator_holds_no_right_that_is_too_wide() {
    for rule in yaml(&read("files/rules.yaml")).as_array().unwrap() {
        let words = |key: &str| -> Vec<String> {
            let words = rule[key].as_array().unwrap_or_else(|| panic!("{key} in {rule}"));
            words.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let (resources, verbs) = (words("resources"), words("verbs"));
        for word in words("apiGroups").iter().chain(&resources).chain(&verbs) {
            assert!(!word.contains('*'), "{rule}");
        }
        for verb in ["escalate", "bind", "impersonate", "deletecollection"] {
            assert!(!verbs.contains(&verb.to_owned()), "{verb} in {rule}");
        }
    }
}

#[test]
fn the_operator_holds_what_it_says_that_it_needs() {
    let mut held = BTreeMap::new();
    for rule in yaml(&read("files/rules.yaml")).as_array().unwrap() {
        held.extend(rights_in(rule));
    }
    let needed = rights_of(|place| place != Place::Lease);
    assert_eq!(held, needed, "files/rules.yaml against operator/src/rbac.rs");
}

#[test]
fn dashboard_and_alerts_use_metrics_that_exist() {
    let known = metric_names();
    let used = Regex::new(r"\b(?:otelcol|ringtail)_[a-z0-9_]+").unwrap();
    let mut strange = BTreeSet::new();
    let ours = ["files/dashboard.json", "files/alerts.yaml"].map(|file| chart().join(file));
    for file in ours.into_iter().chain([root().join(FLEET_ALERTS)]) {
        let text = fs::read_to_string(&file).unwrap();
        for name in used.find_iter(&text).map(|found| found.as_str()) {
            let base = ["_total", "_bucket", "_sum", "_count"];
            let base = base.iter().find_map(|suffix| name.strip_suffix(suffix));
            if !known.contains(name) && !base.is_some_and(|base| known.contains(base)) {
                strange.insert(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(strange.is_empty(), "metrics that nobody exposes: {strange:#?}");
}

#[test]
fn every_alert_has_its_page() {
    let page = fs::read_to_string(root().join("docs/alerts.md")).unwrap();
    for alert in yaml(&read("files/alerts.yaml")).as_array().unwrap() {
        let name = alert["alert"].as_str().unwrap();
        assert!(page.contains(&format!("\n## {name}\n")), "docs/alerts.md does not explain {name}");
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["warning", "critical"].contains(&severity), "{name}: {severity}");
        assert!(alert["annotations"]["summary"].is_string(), "{name} needs a summary");
    }
    let fleet = fs::read_to_string(root().join(FLEET_ALERTS)).unwrap();
    let names = Regex::new(r#"name: "(Ringtail[A-Za-z]+)""#).unwrap();
    let names: Vec<&str> =
        names.captures_iter(&fleet).map(|name| name.extract::<1>().1[0]).collect();
    assert!(names.len() >= 5, "the operator's alerts were not found: {names:?}");
    for name in names {
        assert!(page.contains(&format!("\n## {name}\n")), "docs/alerts.md does not explain {name}");
    }
}

// === What the real helm makes of it ===

#[test]
fn helm_finds_nothing_to_complain_about() {
    let Some(helm) = Helm::find() else { return };
    for case in ci_files() {
        let file = format!("ci/{case}-values.yaml");
        helm.run(&["lint", "--strict", "--kube-version", "1.33.0", ".", "--values", &file])
            .unwrap();
    }
}

#[test]
fn the_examples_are_what_helm_renders() {
    let Some(helm) = Helm::find() else { return };
    let cases = ci_files();
    for case in &cases {
        let rendered = helm.template(&["--values", &format!("ci/{case}-values.yaml"), WITHOUT_CRD]);
        check_generated(&format!("examples/{case}.yaml"), &rendered.unwrap());
    }
    let examples = names_in("examples", ".yaml");
    assert_eq!(examples, cases, "an example for each file in ci/, and no other");
}

#[test]
fn a_typo_fails_with_its_path() {
    let Some(helm) = Helm::find() else { return };
    let cases = [
        ("imgae.tag=1", "''", "imgae"),
        ("image.repositry=x", "'/image'", "repositry"),
        ("global.imageRegstry=x", "'/global'", "imageRegstry"),
        ("crds.kep=false", "'/crds'", "kep"),
        ("dataPlane.image.digset=x", "'/dataPlane/image'", "digset"),
        ("metrics.serviceMonitor.enable=true", "'/metrics/serviceMonitor'", "enable"),
        ("metrics.prometheusRule.label.a=b", "'/metrics/prometheusRule'", "label"),
        ("resources.limit.memory=1Gi", "'/resources'", "limit"),
        (
            "securityContext.readOnlyRootFileSystem=true",
            "'/securityContext'",
            "readOnlyRootFileSystem",
        ),
        ("podDisruptionBudget.minAvailable=1", "'/podDisruptionBudget'", "minAvailable"),
        ("tolerations[0].efect=NoSchedule", "'/tolerations/0'", "efect"),
        ("extraEnv[0].name=A,extraEnv[0].vale=b", "'/extraEnv/0'", "vale"),
        ("topologySpreadConstraints[0].maxskew=1", "'/topologySpreadConstraints/0'", "maxskew"),
        ("networkPolicy.from[0].podSelectors.a=b", "'/networkPolicy/from/0'", "podSelectors"),
        // Not a typo of a key, but a value that the API server or the image store would refuse later.
        ("replicas=two", "'/replicas'", "integer"),
        ("image.digest=sha256:beef", "'/image/digest'", "pattern"),
        ("image.pullPolicy=ifNotPresent", "'/image/pullPolicy'", "IfNotPresent"),
        ("watchNamespaces={Shop}", "'/watchNamespaces/0'", "pattern"),
        ("serviceAccount.create=false", "serviceAccount.name", "is needed"),
    ];
    for (set, path, word) in cases {
        let refusal = helm.template(&["--set", set]).expect_err(set);
        assert!(refusal.contains(path) && refusal.contains(word), "--set {set}: {refusal}");
    }
}

#[test]
fn a_namespaced_release_has_nothing_in_the_cluster() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.objects(&["--set", "watchNamespaces={a,b}", WITHOUT_CRD]);
    let of_kind = |kind: &str| -> BTreeSet<&str> {
        let found = objects.iter().filter(|object| object["kind"] == kind);
        found.map(|object| object["metadata"]["namespace"].as_str().unwrap()).collect()
    };
    for kind in ["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"] {
        assert!(!objects.iter().any(|object| object["kind"] == kind), "{kind}");
    }
    assert_eq!(of_kind("Role"), BTreeSet::from(["a", "b", "release-ns"]));
    assert_eq!(of_kind("RoleBinding"), BTreeSet::from(["a", "b", "release-ns"]));
    let arguments = operator_pod(&objects)["containers"][0]["args"].to_string();
    assert!(arguments.contains("--watch-namespace=a") && arguments.contains("--watch-namespace=b"));
    for object in objects.iter().filter(|object| object["kind"] == "RoleBinding") {
        assert_eq!(object["subjects"][0]["namespace"], "release-ns");
    }
}

#[test]
fn the_lease_is_held_with_a_role_of_its_own() {
    let Some(helm) = Helm::find() else { return };
    let objects = helm.objects(&["--set", "leaderElection.namespace=leases", WITHOUT_CRD]);
    let role = objects.iter().find(|object| object["kind"] == "Role").unwrap();
    assert_eq!(role["metadata"]["namespace"], "leases");
    let mut held = BTreeMap::<_, BTreeSet<String>>::new();
    for rule in role["rules"].as_array().unwrap() {
        let named = rule["resourceNames"] == json!(["ringtail-operator"]);
        assert!(named || rule["verbs"] == json!(["create"]), "for that Lease only: {rule}");
        for (resource, verbs) in rights_in(rule) {
            held.entry(resource).or_default().extend(verbs);
        }
    }
    assert_eq!(held, rights_of(|place| place == Place::Lease));
}

#[test]
fn the_operator_understands_its_arguments() {
    let Some(helm) = Helm::find() else { return };
    for case in ci_files() {
        let objects = helm.objects(&["--values", &format!("ci/{case}-values.yaml"), WITHOUT_CRD]);
        let container = &operator_pod(&objects)["containers"][0];
        let arguments =
            container["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let mut arguments: Vec<&str> = ["ringtail-operator"].into_iter().chain(arguments).collect();
        // In a pod it comes from the environment.
        if !arguments.iter().any(|argument| argument.starts_with("--identity")) {
            arguments.push("--identity=pod");
        }
        let cli = Cli::try_parse_from(&arguments).unwrap_or_else(|why| panic!("{case}: {why}"));
        assert_eq!(cli.admin.port(), 8080);
        for object in objects.iter().filter(|object| object["kind"] == "Pod") {
            let arguments = object["spec"]["containers"][0]["args"].as_array().unwrap();
            let words = arguments.iter().map(|word| word.as_str().unwrap());
            let (program, words): (Vec<_>, Vec<_>) = words.partition(|word| *word == "check");
            assert_eq!(program.len(), 1, "{case}");
            Check::try_parse_from(words).unwrap_or_else(|why| panic!("{case}: {why}"));
        }
    }
}

#[test]
fn documented_installs_render() {
    let Some(helm) = Helm::find() else { return };
    let mut rendered = 0;
    for file in ["docs/install.md", "charts/ringtail/README.md"] {
        let text = fs::read_to_string(root().join(file)).unwrap().replace("\\\n", " ");
        for line in text.lines().filter(|line| line.starts_with("helm install ")) {
            let line = line.replace("helm install", "template").replace("--create-namespace", "");
            let line = line.replace("charts/ringtail", ".").replace('\'', "");
            let words: Vec<&str> = line.split_whitespace().collect();
            helm.run(&words).unwrap_or_else(|why| panic!("{file}: {line}: {why}"));
            rendered += 1;
        }
    }
    assert!(rendered >= 3, "{rendered} commands found: has the way of writing them changed?");
}

#[test]
fn every_pod_passes_the_restricted_standard() {
    let Some(helm) = Helm::find() else { return };
    let mut pods = 0;
    for case in ci_files() {
        for object in helm.objects(&["--values", &format!("ci/{case}-values.yaml")]) {
            let Some(pod) = pod_spec(&object) else { continue };
            restricted(pod).unwrap_or_else(|why| panic!("{case}, {}: {why}", object["kind"]));
            pods += 1;
        }
    }
    assert!(pods > ci_files().len(), "{pods} pods were looked at");
}

#[test]
fn the_crd_is_rendered_as_it_is() {
    let Some(helm) = Helm::find() else { return };
    let crd = |arguments: &[&str]| {
        let objects = helm.objects(arguments);
        objects.into_iter().find(|object| object["kind"] == "CustomResourceDefinition")
    };
    let kept = crd(&["--set", "crds.annotations.a=b"]).unwrap();
    let original = yaml(&fs::read_to_string(root().join("crds/tracepipeline.yaml")).unwrap());
    assert_eq!(kept["spec"], original["spec"]);
    assert_eq!(kept["metadata"]["name"], original["metadata"]["name"]);
    let annotations = json!({"helm.sh/resource-policy": "keep", "a": "b"});
    assert_eq!(kept["metadata"]["annotations"], annotations);
    let not_kept = crd(&["--set", "crds.keep=false"]).unwrap();
    assert_eq!(not_kept["metadata"].get("annotations"), None);
    assert_eq!(crd(&[WITHOUT_CRD]), None);
}

#[test]
fn images_by_registry_tag_and_digest() {
    let Some(helm) = Helm::find() else { return };
    let digest = format!("sha256:{}", "ab".repeat(32));
    let by_digest = format!("image.digest={digest}");
    let cases = [
        ("", format!("ringtail-operator:{}", env!("CARGO_PKG_VERSION"))),
        ("image.tag=x", "ringtail-operator:x".to_owned()),
        (
            "image.tag=x,global.imageRegistry=r.example:5000/m",
            "r.example:5000/m/ringtail-operator:x".to_owned(),
        ),
        (
            "image.tag=x,global.imageRegistry=r.example,image.registry=s.example",
            "s.example/ringtail-operator:x".to_owned(),
        ),
        (by_digest.as_str(), format!("ringtail-operator@{digest}")),
    ];
    for (set, expected) in cases {
        let objects = helm.objects(&["--set", set]);
        assert_eq!(operator_pod(&objects)["containers"][0]["image"], *expected, "{set}");
    }
}

#[test]
fn names_follow_the_release() {
    let Some(helm) = Helm::find() else { return };
    let cases = [
        ("ringtail", "ringtail-operator"),
        ("ringtail-operator", "ringtail-operator"),
        ("prod", "prod-ringtail-operator"),
        (
            "a-release-with-the-longest-name-that-helm-takes-at-al",
            "a-release-with-the-longest-name-that-helm-takes-at-a",
        ),
    ];
    for (release, expected) in cases {
        let rendered =
            helm.run(&["template", release, ".", "--set", "crds.enabled=false"]).unwrap();
        let objects = documents(&rendered);
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        assert_eq!(deployment["metadata"]["name"], expected);
    }
}

// === helm ===

const WITHOUT_CRD: &str = "--set=crds.enabled=false";

/// The real helm.
struct Helm(PathBuf);

impl Helm {
    /// The one built from Go modules; without it the test says that it is skipped.
    fn find() -> Option<Self> {
        Some(Self(require(Level::ControlPlane)?.program("helm")))
    }

    /// Standard output, or what it says on failure. Nothing of this machine's helm settings has a say.
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(&self.0);
        command.env_clear().env("HOME", home.path()).current_dir(chart()).args(arguments);
        let output = command.output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        if output.status.success() { Ok(stdout) } else { Err(stdout + &stderr) }
    }

    /// Renders with the arguments given, as release `ringtail` in namespace `release-ns`.
    fn template(&self, arguments: &[&str]) -> Result<String, String> {
        let fixed = ["template", "ringtail", ".", "-n", "release-ns", "--kube-version", "1.33.0"];
        self.run(&[&fixed, arguments].concat())
    }

    fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        documents(&self.template(arguments).unwrap_or_else(|why| panic!("{arguments:?}: {why}")))
    }
}

/// The pod spec in an object, if there is one.
fn pod_spec(object: &Value) -> Option<&Value> {
    let spec = if object["kind"] == "Pod" {
        object.get("spec")
    } else {
        object.pointer("/spec/template/spec")
    };
    spec.filter(|spec| spec["containers"].is_array())
}

fn operator_pod(objects: &[Value]) -> &Value {
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    pod_spec(deployment).unwrap()
}

/// What the restricted Pod Security Standard asks for, and a read-only root and a bound of memory besides.
fn restricted(pod: &Value) -> Result<(), String> {
    let demand = |met: bool, what: &str| if met { Ok(()) } else { Err(what.to_owned()) };
    for key in ["hostNetwork", "hostPID", "hostIPC", "volumes", "initContainers"] {
        demand(pod.get(key).is_none(), key)?;
    }
    let context = &pod["securityContext"];
    demand(context["runAsNonRoot"] == true, "runAsNonRoot")?;
    demand(context["runAsUser"] == 65532, "runAsUser")?;
    demand(context["seccompProfile"]["type"] == "RuntimeDefault", "seccompProfile")?;
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        demand(context["allowPrivilegeEscalation"] == false, "allowPrivilegeEscalation")?;
        demand(context["readOnlyRootFilesystem"] == true, "readOnlyRootFilesystem")?;
        demand(context["capabilities"] == json!({"drop": ["ALL"]}), "capabilities")?;
        demand(context.get("privileged").is_none(), "privileged")?;
        demand(container["resources"]["limits"]["memory"].is_string(), "a limit of memory")?;
        demand(container["resources"]["limits"].get("cpu").is_none(), "no limit of CPU")?;
        let ports = container["ports"].as_array();
        let host_port =
            ports.is_some_and(|all| all.iter().any(|port| port.get("hostPort").is_some()));
        demand(!host_port, "hostPort")?;
    }
    Ok(())
}

// === rights ===

/// `group/resource` and what may be done to it.
type Rights = BTreeMap<String, BTreeSet<String>>;

fn rights_in(rule: &Value) -> Rights {
    let words = |key: &str| -> Vec<String> {
        rule[key].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let (groups, resources) = (words("apiGroups"), words("resources"));
    let pairs =
        groups.iter().flat_map(|group| resources.iter().map(move |name| format!("{group}/{name}")));
    pairs.map(|resource| (resource, words("verbs").into_iter().collect())).collect()
}

fn rights_of(chosen: impl Fn(Place) -> bool) -> Rights {
    let rules = rbac::TABLE.iter().filter(|rule| chosen(rule.place));
    rules
        .map(|rule| {
            let verbs = rule.verbs.iter().map(|verb| (*verb).to_owned());
            (format!("{}/{}", rule.group, rule.resource), verbs.collect())
        })
        .collect()
}

// === values, schema ===

/// `(path, what)` of every key in values.yaml under a comment `# -- `, in the file's order.
fn documented_values(text: &str) -> Vec<(String, String)> {
    let (mut found, mut what, mut path) = (Vec::new(), String::new(), Vec::<(usize, &str)>::new());
    for line in text.lines() {
        let body = line.trim_start();
        if let Some(first) = body.strip_prefix("# -- ") {
            first.clone_into(&mut what);
        } else if let Some(more) = body.strip_prefix("# ").filter(|_| !what.is_empty()) {
            what = format!("{what} {more}");
        } else if let Some((key, _)) =
            body.split_once(':').filter(|_| !body.starts_with(['#', '-']))
        {
            let indent = line.len() - body.len();
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, key));
            if !what.is_empty() {
                let keys: Vec<&str> = path.iter().map(|(_, key)| *key).collect();
                found.push((keys.join("."), std::mem::take(&mut what)));
            }
        }
    }
    found
}

fn undocumented(
    path: &str,
    value: &Value,
    documented: &[(String, String)],
    missing: &mut Vec<String>,
) {
    if documented.iter().any(|(known, _)| known == path) {
        return;
    }
    match value.as_object().filter(|object| !object.is_empty()) {
        Some(object) => {
            for (key, inner) in object {
                let inner_path =
                    if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                undocumented(&inner_path, inner, documented, missing);
            }
        }
        None => missing.push(path.to_owned()),
    }
}

/// Paths of the schemas that take keys of any name and any value.
fn open_objects(path: &str, schema: &Value, open: &mut BTreeSet<String>) {
    if schema["type"] == "object" {
        let closed = schema["additionalProperties"] == false;
        let typed =
            schema["additionalProperties"].is_object() && schema.get("properties").is_none();
        if !closed && !typed {
            open.insert(path.to_owned());
        }
    }
    let inner: Vec<(String, &Value)> = match schema {
        Value::Object(object) => object.iter().map(|(key, inner)| (key.clone(), inner)).collect(),
        Value::Array(array) => {
            array.iter().enumerate().map(|(at, inner)| (at.to_string(), inner)).collect()
        }
        _ => return,
    };
    for (key, inner) in inner {
        open_objects(&format!("{path}/{key}"), inner, open);
    }
}

/// Paths of values that the schema has no property for.
fn unknown_values(
    path: &str,
    value: &Value,
    schema: &Value,
    whole: &Value,
    unknown: &mut Vec<String>,
) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => whole.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    for (key, inner) in value.as_object().into_iter().flatten() {
        let inner_path = format!("{path}/{key}");
        if let Some(inner_schema) = schema["properties"].get(key) {
            unknown_values(&inner_path, inner, inner_schema, whole, unknown);
        } else if !schema["additionalProperties"].is_object() {
            unknown.push(inner_path);
        }
    }
}

/// Every name that a table of metrics in our sources gives: string literals that are nothing but such a name.
fn metric_names() -> BTreeSet<String> {
    let literal = Regex::new(r#""((?:otelcol|ringtail)_[a-z0-9_]+)""#).unwrap();
    let mut names = BTreeSet::new();
    let files =
        ["dataplane/src/metrics.rs", "operator/src/metrics.rs"].map(|file| root().join(file));
    let tables = fs::read_dir(root().join("dataplane/src/metrics")).unwrap();
    let tables = tables.map(|entry| entry.unwrap().path());
    for file in files.into_iter().chain(tables) {
        let text = fs::read_to_string(file).unwrap_or_default();
        names.extend(literal.captures_iter(&text).map(|found| found[1].to_owned()));
    }
    assert!(names.len() > 10, "the tables of metrics were not found");
    names
}

// === Files ===

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart() -> PathBuf {
    root().join("charts/ringtail")
}

fn read(file: &str) -> String {
    let path = chart().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check_generated(file: &str, made: &str) {
    let path = chart().join(file);
    if env::var_os("RINGTAIL_GENERATE").is_some() {
        fs::write(&path, made).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == made, "{} is out of date: run `make generate`", path.display());
}

/// Names of the files in a folder of the chart, without the ending.
fn names_in(folder: &str, ending: &str) -> BTreeSet<String> {
    let files = fs::read_dir(chart().join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    files.filter_map(|name| Some(name.to_str()?.strip_suffix(ending)?.to_owned())).collect()
}

fn ci_files() -> BTreeSet<String> {
    let names = names_in("ci", "-values.yaml");
    assert!(names.len() >= 6, "{names:?}");
    names
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn documents(text: &str) -> Vec<Value> {
    let all: Vec<Value> =
        serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let all: Vec<Value> = all.into_iter().filter(|value| !value.is_null()).collect();
    let mut seen = BTreeMap::new();
    for object in &all {
        let metadata = &object["metadata"];
        let id = (
            object["kind"].to_string(),
            metadata["namespace"].to_string(),
            metadata["name"].to_string(),
        );
        assert!(seen.insert(id.clone(), ()).is_none(), "{id:?} is rendered twice");
    }
    all
}
