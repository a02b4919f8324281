//! Pods: overlays are read as the pods that they change, and names that the operator sets itself are kept
//! free.

use std::sync::LazyLock;

use k8s_openapi::{
    api::core::v1::PodTemplateSpec,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    },
};
use kube::core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::{findings::Findings, walk};
use crate::{
    path::Path,
    pod::{
        OWN_CONTAINER, OWN_DIRECTORY, OWN_LABEL_PREFIX, OWN_LABELS, OWN_VARIABLES, OWN_VOLUMES,
        TIERS,
    },
};

static TEMPLATE: LazyLock<Option<JSONSchemaProps>> = LazyLock::new(template_schema);

/// Adds to `findings` what is wrong with the pod settings of both tiers.
pub(crate) fn check(resource: &Value, findings: &mut Findings) {
    let spec = Path::default().key("spec");
    for tier in TIERS {
        let Some(Value::Object(settings)) = resource.pointer(&format!("/spec/{tier}")) else {
            continue;
        };
        let at = spec.key(tier);
        check_labels(settings.get("podLabels"), &at.key("podLabels"), findings);
        check_container(settings, &at, findings);
        check_volumes(settings.get("volumes"), &at.key("volumes"), findings);
        let template = at.key("podTemplate");
        if let (Some(overlay), false) = (settings.get("podTemplate"), findings.is_broken(&template))
        {
            check_overlay(overlay, &template, findings);
        }
    }
}

fn check_overlay(overlay: &Value, at: &Path, findings: &mut Findings) {
    if let Some(schema) = &*TEMPLATE {
        walk::walk(schema, overlay, at, findings);
    }
    let metadata = at.key("metadata");
    check_labels(overlay.pointer("/metadata/labels"), &metadata.key("labels"), findings);
    let spec = at.key("spec");
    check_volumes(overlay.pointer("/spec/volumes"), &spec.key("volumes"), findings);
    let containers = overlay.pointer("/spec/containers").and_then(Value::as_array);
    for (index, container) in containers.into_iter().flatten().enumerate() {
        let own = container.get("name").is_some_and(|name| name == OWN_CONTAINER);
        if let (true, Value::Object(settings)) = (own, container) {
            check_container(settings, &spec.key("containers").index(index), findings);
        }
    }
}

// `env` and `volumeMounts` are called so in our settings and in a container alike.
fn check_container(settings: &Map<String, Value>, at: &Path, findings: &mut Findings) {
    for (index, name) in texts(settings.get("env"), "name") {
        if OWN_VARIABLES.contains(&name) {
            let place = at.key("env").index(index).key("name");
            findings.add_unless_known(
                place,
                format!("{name} is set by the operator: use another name"),
            );
        }
    }
    for (index, path) in texts(settings.get("volumeMounts"), "mountPath") {
        let inside = path
            .strip_prefix(OWN_DIRECTORY)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if inside {
            let place = at.key("volumeMounts").index(index).key("mountPath");
            let told =
                format!("{OWN_DIRECTORY} holds what the operator mounts: use another directory");
            findings.add_unless_known(place, told);
        }
    }
}

fn check_volumes(volumes: Option<&Value>, at: &Path, findings: &mut Findings) {
    for (index, name) in texts(volumes, "name") {
        if name.starts_with(OWN_VOLUMES) {
            let told = format!("names with {OWN_VOLUMES} are the operator's own: use another name");
            findings.add_unless_known(at.index(index).key("name"), told);
        }
    }
}

fn check_labels(labels: Option<&Value>, at: &Path, findings: &mut Findings) {
    for (key, _) in labels.and_then(Value::as_object).into_iter().flatten() {
        if OWN_LABELS.contains(&key.as_str()) || key.starts_with(OWN_LABEL_PREFIX) {
            let told = "is set by the operator, which finds its pods by it: use another label";
            findings.add_unless_known(at.key(key), told);
        }
    }
}

fn texts<'a>(
    list: Option<&'a Value>,
    field: &'static str,
) -> impl Iterator<Item = (usize, &'a str)> {
    let items = list.and_then(Value::as_array).into_iter().flatten().enumerate();
    items.filter_map(move |(index, item)| Some((index, item.get(field)?.as_str()?)))
}

// The schema of a pod template as Kubernetes has it. An overlay says only what it changes: of required
// fields only those stay by which entries of lists are told apart.
fn template_schema() -> Option<JSONSchemaProps> {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let generator = settings
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .into_generator();
    let schema = generator.into_root_schema_for::<PodTemplateSpec>();
    let mut schema: JSONSchemaProps = serde_json::from_value(schema.to_value()).ok()?;
    loosen(&mut schema);
    Some(schema)
}

fn loosen(schema: &mut JSONSchemaProps) {
    schema.required.iter_mut().for_each(|required| required.retain(|name| name == "name"));
    schema.properties.iter_mut().flatten().for_each(|(_, property)| loosen(property));
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        loosen(item);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        loosen(value);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_of_templates_exists() {
        assert!(super::TEMPLATE.is_some());
    }
}
