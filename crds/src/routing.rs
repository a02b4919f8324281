//! `spec.routing`: how agents find gateways.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{gateway::REPLICAS_MAX, pattern, union::member};

// A host name (253) and ":65535" (6).
const ENDPOINT_LENGTH_MAX: u32 = 259;

/// How agents spread traces over gateways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routing {
    /// How agents find gateways.
    #[serde(default)]
    pub resolver: Resolver,
}

/// Where the list of gateways comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = member("Static", "static"))]
pub struct Resolver {
    /// Where the list of gateways comes from. Kubernetes: agents and gateways watch the EndpointSlices of
    /// the pipeline's Services. Static: a list in this resource, for gateways that somebody else runs; it
    /// goes with gateway.type External.
    #[serde(default, rename = "type")]
    pub type_: ResolverType,

    /// A fixed list of gateways. Set it when type is Static.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    pub static_: Option<StaticResolver>,
}

/// Where the list of gateways comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum ResolverType {
    #[default]
    Kubernetes,
    Static,
}

/// A fixed list of gateways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StaticResolver {
    /// The OTLP/gRPC addresses of all gateways, as host:port. Every agent must have the same list.
    #[schemars(
        length(min = 1, max = REPLICAS_MAX),
        inner(length(max = ENDPOINT_LENGTH_MAX), regex(pattern = pattern::HOST_PORT.regex)),
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub endpoints: Vec<String>,
}
