//! The check of a manifest without a cluster: everything that is wrong with it at once, each with its path and line.
//!
//! Four steps, none of which stops at the first problem: the text becomes a tree ([`document`]), the tree is compared
//! with the schema that clusters install ([`walk`]), what fits is read into the types and checked across fields
//! ([`resolve`]), and the policies are compiled for real.

mod document; //  text -> tree with lines
mod findings; //  the problems so far
mod list; //      counts and duplicates
mod metadata; //  what the API server knows of `metadata` by itself
mod path; //      spec.sampling.policies[2]
mod policies; //  as written -> as the engine compiles them
mod resolve; //   tree -> ValidPipeline, and the rules across fields
mod scalar; //    single values
mod suggest; //   did you mean
mod union; //     `type` and its members
mod walk; //      tree against schema

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use crate::{problem::Problem, resolved::ValidPipeline, schema};
use document::Node;
use findings::Findings;
use path::Path;

static SCHEMA: LazyLock<JSONSchemaProps> = LazyLock::new(metadata::with_envelope);

/// Checks the text of a manifest and resolves it, or says everything that is wrong with it, in the order of its lines.
///
/// The text may hold resources of other kinds, which are not looked at, but exactly one TracePipeline.
pub fn validate(yaml: &str) -> Result<ValidPipeline, Vec<Problem>> {
    let document = the_pipeline(document::read(yaml).map_err(|problem| vec![problem])?)?;
    let value = document.to_value();
    let mut findings = Findings::default();
    walk::walk(&SCHEMA, &value, &Path::default(), &mut findings);
    // The fields of another kind would only add noise to the one problem that matters.
    let valid = match findings.is_broken(&Path::default().key("kind")) {
        true => None,
        false => resolve::resolve(&value, &mut findings),
    };
    match valid {
        Some(valid) if findings.is_empty() => Ok(valid),
        _ => Err(findings.into_problems(&document)),
    }
}

// A single document is taken for the pipeline whatever it says, so that a misspelt kind is told as such.
fn the_pipeline(documents: Vec<Node>) -> Result<Node, Vec<Problem>> {
    let several = documents.len() > 1;
    let total = documents.len();
    let mut pipelines: Vec<_> = documents
        .into_iter()
        .filter(|node| !several || is_pipeline(&node.to_value()))
        .collect();
    match (pipelines.pop(), pipelines.len()) {
        (Some(pipeline), 0) => Ok(pipeline),
        (Some(_), others) => Err(whole_file(format!(
            "holds {} TracePipelines, and exactly one is expected: put each into its own file",
            others + 1
        ))),
        (None, _) if total == 0 => Err(whole_file(
            "is empty, and one TracePipeline is expected".to_owned(),
        )),
        (None, _) => Err(whole_file(format!(
            "holds {total} documents, and none of them has kind TracePipeline: one is expected"
        ))),
    }
}

fn is_pipeline(document: &Value) -> bool {
    document.get("kind").and_then(Value::as_str) == Some(schema::KIND)
}

fn whole_file(message: String) -> Vec<Problem> {
    vec![Problem {
        path: String::new(),
        message,
        line: None,
    }]
}

#[cfg(test)]
mod tests;
