//! The check of a manifest without a cluster: everything that is wrong with it at once, each with its path
//! and line.
//!
//! The order is an API server's: the text becomes a tree ([`document`]), fields without a value are left
//! out, defaults are filled in ([`defaults`]), and the tree is compared with the schema that clusters
//! install, rules included ([`walk`]). Then comes what no schema can say: the policies are compiled for
//! real ([`policies`], [`exporters`]), and overlays of pods are read as pods ([`pods`]).

mod defaults; //  what the API server fills in
pub mod document; // text -> tree with lines
mod exporters; // their conditions, and as written -> as they are used
mod findings; //  the problems so far
mod list; //      counts and duplicates
mod metadata; //  what the API server knows of `metadata` by itself
mod pods; //      podTemplate, and names that the operator keeps for itself
mod policies; //  as written -> as the engine compiles them
mod processing; // redaction, filter, attributes -> as the engine compiles them
mod resolve; //   types -> ValidPipeline
mod scalar; //    single values
mod suggest; //   did you mean
mod union; //     `type` and its members
mod walk; //      tree against schema

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use crate::{
    TracePipeline, path::Path, pod_guard, problem::Problem, resolved::ValidPipeline, schema,
    span_metrics,
};
use document::Node;
pub(crate) use findings::Findings;

static SCHEMA: LazyLock<JSONSchemaProps> = LazyLock::new(metadata::with_envelope);

/// Checks the text of a manifest and resolves it, or says everything that is wrong with it, in the order of
/// its lines.
///
/// The text may hold resources of other kinds, which are not looked at, but exactly one TracePipeline.
pub fn validate(yaml: &str) -> Result<ValidPipeline, Vec<Problem>> {
    let document = the_pipeline(document::read(yaml).map_err(|problem| vec![problem])?)?;
    let value = document.to_value();
    let checked = check(value.clone());
    let unsafe_pods = pod_guard::look(value.get("spec").unwrap_or(&Value::Null));
    match (checked, unsafe_pods.is_empty()) {
        (Ok(valid), true) => Ok(valid),
        (checked, _) => {
            let mut findings = checked.err().unwrap_or_default();
            unsafe_pods.into_iter().for_each(|(at, told)| findings.add_unless_known(at, told));
            Err(findings.into_problems(Some(&document)))
        }
    }
}

/// Checks a resource as an API server returns it, and resolves it or says everything that is wrong.
///
/// Unlike [`validate`] it does not judge what pods reach for: [`pod_guard::check`] does, and whoever starts
/// the operator may waive it.
pub fn validate_object(resource: &Value) -> Result<ValidPipeline, Vec<Problem>> {
    check(without_nulls(resource)).map_err(|findings| findings.into_problems(None))
}

/// Checks a resource that was read into its type already, as [`validate_object`] does.
pub fn validate_pipeline(pipeline: &TracePipeline) -> Result<ValidPipeline, Vec<Problem>> {
    match serde_json::to_value(pipeline) {
        Ok(resource) => validate_object(&resource),
        Err(error) => Err(whole_file(format!("cannot be written as JSON: {error}"))),
    }
}

/// The value without fields that are null: to Kubernetes they are as good as absent.
pub fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let set = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

fn check(mut value: Value) -> Result<ValidPipeline, Findings> {
    let mut findings = Findings::default();
    let root = Path::default();
    if is_foreign(&value) {
        // The fields of another kind would only hide the one problem that matters.
        findings.add(root.key("kind"), format!("must be {}, not {}", schema::KIND, value["kind"]));
        return Err(findings);
    }
    defaults::fill_in(&SCHEMA, &mut value);
    walk::walk(&SCHEMA, &value, &root, &mut findings);
    let list = value.pointer("/spec/sampling/policies").unwrap_or(&Value::Null);
    let policies = policies::resolve(list, &root.join("spec.sampling.policies"), &mut findings);
    let list = value.pointer("/spec/exporters").unwrap_or(&Value::Null);
    exporters::check(list, &root.join("spec.exporters"), &mut findings);
    processing::check(&value, &mut findings);
    pods::check(&value, &mut findings);
    span_metrics::check(&value, &mut findings);
    if !findings.is_empty() {
        return Err(findings);
    }
    // The walk lets pass only what the types take; random tests look for the contrary. Should they ever
    // differ, the user is told what the types said.
    let told = match serde_json::from_value(value) {
        Ok(pipeline) => match resolve::resolve(pipeline, policies) {
            Some(valid) => return Ok(valid),
            None => "holds a value that cannot be read".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    findings.add(root, told);
    Err(findings)
}

fn is_foreign(value: &Value) -> bool {
    let text = |name| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let group = schema::API_VERSION.split('/').next().unwrap_or_default();
    !text("kind").is_empty()
        && text("kind") != schema::KIND
        && !text("apiVersion").starts_with(group)
}

// A single document is taken for the pipeline whatever it says, so that a misspelt kind is told as such.
fn the_pipeline(documents: Vec<Node>) -> Result<Node, Vec<Problem>> {
    let several = documents.len() > 1;
    let total = documents.len();
    let mut pipelines: Vec<_> =
        documents.into_iter().filter(|node| !several || is_pipeline(&node.to_value())).collect();
    match (pipelines.pop(), pipelines.len()) {
        (Some(pipeline), 0) => Ok(pipeline),
        (Some(_), others) => Err(whole_file(format!(
            "holds {} TracePipelines, and exactly one is expected: put each into its own file",
            others + 1
        ))),
        (None, _) if total == 0 => {
            Err(whole_file("is empty, and one TracePipeline is expected".to_owned()))
        }
        (None, _) => Err(whole_file(format!(
            "holds {total} documents, and none of them has kind TracePipeline: one is expected"
        ))),
    }
}

fn is_pipeline(document: &Value) -> bool {
    document.get("kind").and_then(Value::as_str) == Some(schema::KIND)
}

fn whole_file(message: String) -> Vec<Problem> {
    vec![Problem { path: String::new(), message, line: None }]
}

#[cfg(test)]
pub(crate) use union::members as union_members;

#[cfg(test)]
mod tests;
