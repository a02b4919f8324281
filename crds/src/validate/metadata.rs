//! The schema of `metadata`, which the API server knows by itself and a definition leaves out.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrBool,
};

use crate::schema;

// What the API server fills in, so that the output of `kubectl get -o yaml` is a valid manifest.
const FILLED_IN: [&str; 9] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// The definition's schema with the envelope that the API server checks by itself.
pub(crate) fn with_envelope() -> JSONSchemaProps {
    let mut root = schema::root().clone();
    let properties = root.properties.get_or_insert_default();
    if let Some(metadata) = properties.get_mut("metadata") {
        complete(metadata);
    }
    properties.insert("apiVersion".to_owned(), one_of(schema::API_VERSION));
    properties.insert("kind".to_owned(), one_of(schema::KIND));
    let envelope = ["apiVersion", "kind", "metadata"].map(str::to_owned);
    root.required.get_or_insert_default().extend(envelope);
    root
}

fn complete(metadata: &mut JSONSchemaProps) {
    let properties = metadata.properties.get_or_insert_default();
    properties.insert("namespace".to_owned(), of_type("string"));
    properties.insert("labels".to_owned(), text_map());
    properties.insert("annotations".to_owned(), text_map());
    properties.extend(FILLED_IN.map(|name| (name.to_owned(), anything())));
    metadata.required = Some(vec!["name".to_owned()]);
}

fn of_type(name: &str) -> JSONSchemaProps {
    JSONSchemaProps { type_: Some(name.to_owned()), ..JSONSchemaProps::default() }
}

fn one_of(word: &str) -> JSONSchemaProps {
    let value =
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSON(word.into());
    JSONSchemaProps { enum_: Some(vec![value]), ..of_type("string") }
}

fn text_map() -> JSONSchemaProps {
    let value = JSONSchemaPropsOrBool::Schema(Box::new(of_type("string")));
    JSONSchemaProps { additional_properties: Some(value), ..of_type("object") }
}

fn anything() -> JSONSchemaProps {
    JSONSchemaProps {
        x_kubernetes_preserve_unknown_fields: Some(true),
        ..JSONSchemaProps::default()
    }
}
