//! TLS to a backend: whom to trust, and what to show.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{pattern, pod::OBJECT_NAME_LENGTH_MAX, rules::NodeRule};

/// TLS to a backend. Files are followed: a new certificate is used for new connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = TRUST_OR_NOT.rule())]
pub struct TlsSettings {
    /// A Secret with the certificates of the authorities to trust, in PEM, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<CertificateRef>,

    /// A Secret of type kubernetes.io/tls with the certificate to show (tls.crt, tls.key), for backends that
    /// ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<TlsKeyRef>,

    /// The name that the backend's certificate must have, when it is not the host of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::SERVER_NAME.regex))]
    pub server_name: Option<String>,

    /// Take any certificate. Whoever answers at the endpoint's address then gets the spans and the secrets in
    /// headers: for tests only.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// A Secret of the pipeline's namespace with certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRef {
    /// The name of the Secret.
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub name: String,

    /// The key in it.
    #[serde(default = "ca_key")]
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::SECRET_KEY.regex))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

/// A Secret of the pipeline's namespace with the keys tls.crt and tls.key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsKeyRef {
    /// The name of the Secret.
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub name: String,
}

/// Who trusts everybody needs no authority.
pub(crate) static TRUST_OR_NOT: NodeRule = NodeRule {
    cel: "!has(self.caRef) || !self.insecureSkipVerify",
    holds: |tls| {
        let skips = tls.get("insecureSkipVerify").and_then(serde_json::Value::as_bool);
        tls.get("caRef").is_none() || skips != Some(true)
    },
    message: "must not be set beside caRef: nothing would be checked against it",
    field: ".insecureSkipVerify",
};
