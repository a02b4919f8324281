//! Headers of an OTLP exporter, and the Secrets that settings refer to.

use std::sync::LazyLock;

use kube::KubeSchema;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::{pattern, pod::OBJECT_NAME_LENGTH_MAX, rules::NodeRule};

const HEADER_NAME_LENGTH_MAX: u32 = 128;
const HEADER_VALUE_LENGTH_MAX: u32 = 4_096;

/// One header of every request: a name, and either value or secretKeyRef.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ONE_VALUE.rule())]
pub struct Header {
    /// The name in lower case, such as x-scope-orgid. Names that the protocol uses itself (content-type,
    /// content-encoding, te, user-agent, host, connection and all that start with grpc-) and names that end
    /// in -bin are refused.
    #[schemars(length(max = HEADER_NAME_LENGTH_MAX), regex(pattern = pattern::HEADER_NAME.regex))]
    #[x_kube(validation = HEADER_IS_FREE.rule())]
    pub name: String,

    /// The value: printable ASCII. Everybody who may read this resource can read it, so a secret belongs
    /// into secretKeyRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = HEADER_VALUE_LENGTH_MAX), regex(pattern = pattern::HEADER_VALUE.regex))]
    pub value: Option<String>,

    /// A Secret of this namespace that holds the value. Gateways read it from the file
    /// SECRETS-DIR/NAME/KEY, which the operator mounts, and `--secrets-dir` names elsewhere, and follow its
    /// changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// One key of a Secret of the pipeline's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The name of the Secret.
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::OBJECT_NAME.regex))]
    pub name: String,

    /// The key in it.
    #[schemars(length(max = OBJECT_NAME_LENGTH_MAX), regex(pattern = pattern::SECRET_KEY.regex))]
    pub key: String,
}

/// A header has one value.
pub(crate) static ONE_VALUE: NodeRule = NodeRule {
    cel: "has(self.value) != has(self.secretKeyRef)",
    holds: |header| header.get("value").is_some() != header.get("secretKeyRef").is_some(),
    message: "needs either value or secretKeyRef",
    field: "",
};

// Headers that HTTP/2 forbids or that the protocols set themselves; values of -bin headers would have to be
// base64.
macro_rules! reserved {
    () => {
        "^(grpc-.*|.*-bin|connection|content-encoding|content-length|content-type|host|keep-alive|\
         proxy-connection|te|transfer-encoding|upgrade|user-agent)$"
    };
}

/// A header that the protocol does not use itself.
pub(crate) static HEADER_IS_FREE: NodeRule = NodeRule {
    cel: concat!("!self.matches('", reserved!(), "')"),
    holds: |name| {
        static RESERVED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(reserved!()).ok());
        !name
            .as_str()
            .zip(RESERVED.as_ref())
            .is_some_and(|(name, reserved)| reserved.is_match(name))
    },
    message: "is reserved: the protocol sets this header itself, or takes only base64 in it",
    field: "",
};
