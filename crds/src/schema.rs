//! The CustomResourceDefinition, as it is installed and as the offline check walks it.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{pattern, pipeline::TracePipeline};

/// `apiVersion` of the resource.
pub const API_VERSION: &str = "ringtail.dev/v1alpha1";
/// `kind` of the resource.
pub const KIND: &str = "TracePipeline";

// "-gateway-headless" is the longest suffix of a Service (17 of 63 characters).
const PIPELINE_NAME_LENGTH_MAX: i64 = 46;

/// The definition to install. `TracePipeline::crd()` alone lacks the rule for names and allows nulls.
pub fn definition() -> CustomResourceDefinition {
    let mut definition = TracePipeline::crd();
    for version in &mut definition.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            polish(root);
            root.properties.get_or_insert_default().insert("metadata".to_owned(), named());
        }
    }
    definition
}

/// The schema of the whole resource: what [`definition`] installs.
pub(crate) fn root() -> &'static JSONSchemaProps {
    static ROOT: LazyLock<JSONSchemaProps> = LazyLock::new(|| {
        let versions = definition().spec.versions.into_iter();
        versions.filter_map(|v| v.schema?.open_api_v3_schema).next().unwrap_or_default()
    });
    &ROOT
}

/// Whether the resource has the field at a path such as `spec.exporters[].otlp.tls`; `[]` stands for any
/// entry of a list.
pub fn knows(path: &str) -> bool {
    field(path).is_some()
}

/// Whether the field at a path takes a word, of a closed set of them.
pub fn takes(path: &str, word: &str) -> bool {
    let values = field(path).and_then(|field| field.enum_.as_ref());
    values.is_some_and(|values| values.iter().any(|value| value.0 == word))
}

fn field(path: &str) -> Option<&'static JSONSchemaProps> {
    path.split('.').try_fold(root(), |schema, step| {
        let found = schema.properties.as_ref()?.get(step.trim_end_matches("[]"))?;
        match (step.ends_with("[]"), &found.items) {
            (false, _) => Some(found),
            (true, Some(JSONSchemaPropsOrArray::Schema(item))) => Some(item.as_ref()),
            (true, _) => None,
        }
    })
}

// A null is as good as absent: without `nullable` the API server prunes it, and so does the offline check.
// Lines of a doc comment end where the source's margin is, not where a reader's is.
fn polish(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.enum_.iter_mut().for_each(|values| values.retain(|value| !value.0.is_null()));
    schema.title = None;
    // The bounds say it already, and API servers warn of formats that they do not know.
    schema.format.take_if(|format| format.starts_with("uint"));
    if let Some(description) = &mut schema.description {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    schema.properties.iter_mut().flatten().for_each(|(_, property)| polish(property));
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        polish(item);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        polish(value);
    }
}

// The only thing of `metadata` that a schema may restrict is the name.
fn named() -> JSONSchemaProps {
    let name = JSONSchemaProps {
        type_: Some("string".to_owned()),
        max_length: Some(PIPELINE_NAME_LENGTH_MAX),
        pattern: Some(pattern::PIPELINE_NAME.regex.to_owned()),
        ..JSONSchemaProps::default()
    };
    JSONSchemaProps {
        type_: Some("object".to_owned()),
        properties: Some([("name".to_owned(), name)].into()),
        ..JSONSchemaProps::default()
    }
}

#[cfg(test)]
mod tests;
