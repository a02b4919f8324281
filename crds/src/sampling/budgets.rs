//! The settings of policies that have a budget of the fleet.

use kube::KubeSchema;
use ringtail_engine::policy::limits::{MAX_NAME_BYTES, MAX_POLICIES};
use serde::{Deserialize, Serialize};

use crate::{
    pattern,
    size::{SizeBounds, SizeText},
};

/// A thousand million spans a second are half a terabyte a second.
const SPANS_PER_SECOND_MAX: u32 = 1_000_000_000;

/// Less than a KiB is less than a span; more than 64 GiB no fleet moves in a second.
pub(crate) static BUDGET_BYTES: SizeBounds = SizeBounds { least: 1 << 10, most: 64 << 30 };

/// Settings of a RateLimiting policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitingPolicy {
    /// How many spans a second all gateways together keep by this policy, on average.
    #[schemars(range(min = 1, max = SPANS_PER_SECOND_MAX))]
    pub spans_per_second: u32,

    /// How many spans they may keep at once after a quiet time. Without it, twice as many as in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = SPANS_PER_SECOND_MAX))]
    pub burst_capacity: Option<u32>,
}

/// Settings of a BytesLimiting policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BytesLimitingPolicy {
    /// How many bytes of spans a second all gateways together keep by this policy, on average, such as 512Ki.
    /// From 1Ki to 64Gi.
    #[x_kube(validation = BUDGET_BYTES.rule())]
    pub bytes_per_second: SizeText,

    /// How many bytes they may keep at once after a quiet time. Without it, twice as many as in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = BUDGET_BYTES.rule())]
    pub burst_capacity: Option<SizeText>,
}

/// Settings of a Composite policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompositePolicy {
    /// How many spans a second all gateways together keep by this policy, on average.
    #[schemars(range(min = 1, max = SPANS_PER_SECOND_MAX))]
    pub max_total_spans_per_second: u32,

    /// The policies that share the budget.
    #[schemars(length(min = 1, max = MAX_POLICIES))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["policy".into()]))]
    pub sub_policies: Vec<SubPolicy>,

    /// The names of all subPolicies in the order in which they are asked: the first that matches and has
    /// something left keeps the trace. Without it, the order of subPolicies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = MAX_POLICIES),
        inner(length(max = MAX_NAME_BYTES), regex(pattern = pattern::POLICY_NAME.regex)),
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub policy_order: Option<Vec<String>>,
}

/// A policy that shares the budget of a Composite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubPolicy {
    /// The name of another policy of this pipeline, of any role; a Drop cannot be named.
    #[schemars(length(max = MAX_NAME_BYTES), regex(pattern = pattern::POLICY_NAME.regex))]
    pub policy: String,

    /// The percentage of the budget that is its own, from 1 to 100. What it does not need is lent to the
    /// others. Without it, an equal part of what the others leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub rate_allocation: Option<u32>,
}
