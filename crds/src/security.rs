//! `spec.security`: how agents and gateways trust each other.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{pattern, pod::OBJECT_NAME_LENGTH_MAX, rules::NodeRule};

/// How agents and gateways trust each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Security {
    /// Mutual TLS between the pods of the pipeline.
    #[serde(default, rename = "peerTLS")]
    pub peer_tls: PeerTls,
}

/// Mutual TLS between the pods of the pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = SECRETS_WITH_REF.rule())]
pub struct PeerTls {
    /// Where certificates come from. Managed: the operator makes a CA for this pipeline and certificates,
    /// and renews them in time. SecretRef: they are in the Secrets that secretRef names. Disabled: the hop
    /// is not encrypted, and only a NetworkPolicy keeps others away from it.
    #[serde(default)]
    pub mode: PeerTlsMode,

    /// Secrets with certificates that somebody else makes and renews. Set it when mode is SecretRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<PeerSecrets>,
}

/// Where the certificates between agents and gateways come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum PeerTlsMode {
    #[default]
    Managed,
    SecretRef,
    Disabled,
}

/// Secrets of the pipeline's namespace with the keys tls.crt, tls.key and ca.crt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerSecrets {
    /// The name of the Secret that gateways use.
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub gateway: String,

    /// The name of the Secret that agents use.
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub agent: String,
}

/// A union by `mode`.
pub(crate) static SECRETS_WITH_REF: NodeRule = NodeRule {
    cel: "has(self.secretRef) == (self.mode == 'SecretRef')",
    holds: |tls| {
        tls.get("mode").is_none_or(|mode| tls.get("secretRef").is_some() == (mode == "SecretRef"))
    },
    message: "must be set when mode is SecretRef, and only then",
    field: ".secretRef",
};
