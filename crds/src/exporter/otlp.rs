//! An exporter that speaks OTLP.

use std::{sync::LazyLock, time::Duration};

use kube::KubeSchema;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Header, Queue, Retry, SecretKeyRef, TlsSettings};
use crate::{
    compression::Compression,
    duration::{DurationBounds, DurationText},
    pattern,
    rules::NodeRule,
};

/// A backend that takes minutes for one request is down.
pub(crate) static TIMEOUT: DurationBounds = DurationBounds::ms(100, 300_000);
// "https://" (8), a host name (253), ":65535" (6), and a path of a sentence or two.
const ENDPOINT_LENGTH_MAX: u32 = 512;
// Together at most 32 x (128 + 4096) bytes; backends refuse more than 8 to 64 KiB anyway.
const HEADERS_MAX: usize = 32;

/// Settings of an OTLP exporter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = PATH_OF_HTTP.rule(),
    validation = TLS_OF_HTTPS.rule(),
    validation = ONE_AUTHORIZATION.rule(),
)]
pub struct OtlpExporter {
    /// Where the backend listens: http://host:port in the clear, or https://host:port in TLS, where the port
    /// is 443 unless it is written. With the protocols over HTTP a path may follow, which is used as it is;
    /// without one it is /v1/traces.
    #[schemars(length(max = ENDPOINT_LENGTH_MAX), regex(pattern = pattern::HTTP_ENDPOINT.regex))]
    pub endpoint: String,

    /// How OTLP is carried: GRPC, or over HTTP/1.1 with bodies in protobuf (HTTPProtobuf) or JSON (HTTPJSON).
    /// JSON costs several times more CPU and bytes: choose it only where nothing else is read.
    #[serde(default)]
    pub protocol: OtlpProtocol,

    /// Whom to trust and what to show, with an https:// endpoint. Without it the backend's certificate must
    /// be signed by one of the public authorities that Mozilla trusts, which are built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,

    /// A Secret of this namespace that holds a token, to be sent with every request as `authorization:
    /// Bearer TOKEN`. Gateways read it from the file SECRETS-DIR/NAME/KEY and follow its changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret_ref: Option<SecretKeyRef>,

    /// How requests are compressed: None, Gzip or Zstd. Every OTLP backend reads Gzip; Zstd costs less CPU
    /// for the same size where the backend reads it.
    #[serde(default = "compression")]
    pub compression: Compression,

    /// How long to wait for the answer to one request before it is tried again. From 100ms to 5m.
    #[serde(default = "timeout")]
    #[x_kube(validation = TIMEOUT.rule())]
    pub timeout: DurationText,

    /// Headers to send with every request, such as a tenant or credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = HEADERS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<Header>,

    /// What waits for the backend.
    #[serde(default)]
    pub queue: Queue,

    /// What happens to requests that fail and may be repeated. Requests that the backend refuses for good
    /// are dropped and counted.
    #[serde(default)]
    pub retry: Retry,
}

// What every OTLP receiver reads.
fn compression() -> Compression {
    Compression::Gzip
}

fn timeout() -> DurationText {
    Duration::from_secs(5).into()
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum OtlpProtocol {
    #[default]
    #[serde(rename = "GRPC")]
    Grpc,
    #[serde(rename = "HTTPProtobuf")]
    HttpProtobuf,
    #[serde(rename = "HTTPJSON")]
    HttpJson,
}

macro_rules! with_path {
    () => {
        "^https?://[^/]+/"
    };
}

/// The path of a gRPC call is its method.
pub(crate) static PATH_OF_HTTP: NodeRule = NodeRule {
    cel: concat!("self.protocol != 'GRPC' || !self.endpoint.matches('", with_path!(), "')"),
    holds: |otlp| {
        static WITH_PATH: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(with_path!()).ok());
        let endpoint = otlp.get("endpoint").and_then(serde_json::Value::as_str);
        let has_path =
            endpoint.zip(WITH_PATH.as_ref()).is_some_and(|(text, regex)| regex.is_match(text));
        otlp.get("protocol").is_some_and(|protocol| protocol != "GRPC") || !has_path
    },
    message: "must have no path when protocol is GRPC: remove it, or set protocol to HTTPProtobuf",
    field: ".endpoint",
};

/// Settings of TLS mean nothing in the clear.
pub(crate) static TLS_OF_HTTPS: NodeRule = NodeRule {
    cel: "!has(self.tls) || self.endpoint.startsWith('https://')",
    holds: |otlp| {
        let endpoint = otlp.get("endpoint").and_then(serde_json::Value::as_str);
        otlp.get("tls").is_none() || endpoint.is_none_or(|text| text.starts_with("https://"))
    },
    message: "needs an endpoint that begins with https://",
    field: ".tls",
};

/// The token is a header too.
pub(crate) static ONE_AUTHORIZATION: NodeRule = NodeRule {
    cel: "!has(self.bearerTokenSecretRef) || !has(self.headers) || \
          !self.headers.exists(header, header.name == 'authorization')",
    holds: |otlp| {
        let headers = otlp.get("headers").and_then(serde_json::Value::as_array);
        let named = headers
            .into_iter()
            .flatten()
            .any(|header| header.get("name").is_some_and(|name| name == "authorization"));
        otlp.get("bearerTokenSecretRef").is_none() || !named
    },
    message: "sets the header authorization, which headers sets too: keep one of them",
    field: ".bearerTokenSecretRef",
};
