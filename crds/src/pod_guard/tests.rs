//! Tests of the guard: what it refuses, what it lets pass, and that no field of a pod is forgotten.

use k8s_openapi::api::core::v1;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::json;

use super::*;

/// What the guard says about one setting of the gateways, as `path: message`.
fn told(settings: Value) -> Vec<String> {
    let refusals = look(&json!({ "gateway": settings }));
    let cut = |told: String| told.split("; the operator").next().unwrap_or_default().to_owned();
    refusals.into_iter().map(|(at, told)| format!("{at}: {}", cut(told))).collect()
}

fn pod(spec: Value) -> Value {
    json!({ "podTemplate": { "spec": spec } })
}

fn container(field: Value) -> Value {
    pod(json!({ "containers": [field] }))
}

#[test]
fn what_is_refused() {
    let cases = [
        pod(json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true })),
        pod(json!({ "serviceAccountName": "admin", "serviceAccount": "admin", "nodeName": "a" })),
        pod(json!({ "volumes": [{ "name": "a", "hostPath": { "path": "/" } }] })),
        pod(json!({ "volumes": [{ "name": "a", "nfs": { "server": "a", "path": "/" } }] })),
        pod(json!({ "initContainers": [{ "securityContext": { "privileged": true } }] })),
        pod(json!({ "ephemeralContainers": [{ "securityContext": { "runAsUser": 0 } }] })),
        pod(json!({ "securityContext": { "runAsNonRoot": false, "runAsUser": 0 } })),
        pod(
            json!({ "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] } }),
        ),
        pod(json!({ "securityContext": { "windowsOptions": { "hostProcess": true } } })),
        pod(json!({ "fieldOfTheFuture": {} })),
        container(json!({ "ports": [{ "containerPort": 1, "hostPort": 1 }] })),
        container(json!({ "securityContext": { "capabilities": { "add": ["SYS_ADMIN"] } } })),
        container(json!({ "securityContext": { "procMount": "Unmasked" } })),
        container(json!({ "volumeMounts": [{ "mountPropagation": "Bidirectional" }] })),
        container(json!({ "livenessProbe": { "httpGet": { "host": "10.0.0.1", "port": 1 } } })),
        container(json!({ "lifecycle": { "preStop": { "tcpSocket": { "host": "a" } } } })),
        json!({ "securityContext": { "allowPrivilegeEscalation": true } }),
        json!({ "securityContext": { "seLinuxOptions": { "type": "spc_t" } } }),
        json!({ "securityContext": { "seLinuxOptions": { "user": "system_u" } } }),
        json!({ "podSecurityContext": { "seccompProfile": { "type": "Unconfined" } } }),
        json!({ "volumes": [{ "name": "a", "hostPath": { "path": "/" } }] }),
        json!({ "volumes": [{ "name": "a", "projected": { "sources": [
            { "secret": { "name": "a" } },
            { "serviceAccountToken": { "path": "token" } },
        ] } }] }),
        json!({ "podAnnotations": { "container.apparmor.security.beta.kubernetes.io/a": "unconfined" } }),
    ];
    let lines = cases.map(|case| told(case).join("\n"));
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_passes() {
    let cases = [
        pod(json!({ "hostNetwork": false, "runtimeClassName": "gvisor", "dnsPolicy": "Default" })),
        pod(
            json!({ "securityContext": { "runAsUser": 1000, "fsGroup": 0, "runAsNonRoot": true } }),
        ),
        container(json!({ "name": "proxy", "ports": [{ "containerPort": 8080 }] })),
        container(json!({ "securityContext": { "capabilities": {
            "drop": ["ALL"],
            "add": ["NET_BIND_SERVICE"],
        } } })),
        container(json!({ "readinessProbe": { "httpGet": { "path": "/", "port": 80 } } })),
        json!({ "serviceAccountName": "tracing", "env": [{ "name": "A", "value": "b" }] }),
        json!({ "volumes": [{ "name": "a", "secret": { "secretName": "a" } }] }),
        json!({ "securityContext": { "readOnlyRootFilesystem": false, "privileged": false } }),
        json!({ "podSecurityContext": { "seLinuxOptions": { "type": "container_t", "level": "s0" } } }),
    ];
    for case in cases {
        assert_eq!(told(case.clone()), Vec::<String>::new(), "{case}");
    }
}

/// The names of the fields that Kubernetes gives a type.
fn fields_of<T: JsonSchema>() -> Vec<String> {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap();
    properties.keys().cloned().collect()
}

fn assert_complete(surface: &surface::Surface, fields: &[String]) {
    let refused = surface.refused.iter().map(|(name, _)| *name);
    let known: Vec<_> =
        surface.allowed.iter().chain(surface.examined).copied().chain(refused).collect();
    for field in fields {
        let general = surface.kind == "Volume" || known.contains(&field.as_str());
        assert!(general, "{}.{field} is neither allowed nor refused", surface.kind);
    }
}

#[test]
fn every_field_of_a_pod_is_judged() {
    assert_complete(&surface::POD, &fields_of::<v1::PodSpec>());
    assert_complete(&surface::CONTAINER, &fields_of::<v1::Container>());
    assert_complete(&surface::CONTAINER, &fields_of::<v1::EphemeralContainer>());
    assert_complete(&surface::VOLUME, &fields_of::<v1::Volume>());
    assert_complete(&surface::PROJECTED, &fields_of::<v1::VolumeProjection>());
    let contexts = [fields_of::<v1::SecurityContext>(), fields_of::<v1::PodSecurityContext>()];
    for field in contexts.concat() {
        // A value that no field takes is wrong wherever the field is looked at.
        let examined = security::refuse(&field, &Value::Null);
        let unknown = examined.is_some_and(|(_, told)| told.contains("not known"));
        assert!(!unknown, "{field} is neither allowed nor refused");
    }
}

#[test]
fn paths_lead_to_the_field() {
    let settings = container(json!({ "ports": [{ "hostPort": 80 }] }));
    let at = "spec.gateway.podTemplate.spec.containers[0].ports[0].hostPort: ";
    assert!(told(settings)[0].starts_with(at));
}
