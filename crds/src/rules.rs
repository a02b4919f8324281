//! The rules of the schema that go beyond types and patterns, each twice: for the API server in CEL, and as
//! a function that the offline check calls on the same part of a document.
//!
//! The offline check looks a rule up here by its CEL text; so a test can prove that every rule of the
//! schema has its twin, and another that both agree. Unions have rules too (`union.rs`), but no twins: the
//! offline check reads them off the schema.

use kube::core::Rule;
use serde_json::Value;

use crate::{
    agent::{
        BATCH_BYTES, BATCH_TIMEOUT, HOST_PORT_ON_NODES, PROCESSING_BY_AGENTS, RETENTION_BYTES,
    },
    autoscaling::{REPLICAS_IN_ORDER, SOME_TARGET},
    duration::{DurationBounds, DurationText},
    exporter::{
        DISK_BYTES, HEADER_IS_FREE, INTERVALS_IN_ORDER, ONE_AUTHORIZATION, ONE_VALUE, PATH_OF_HTTP,
        QUEUE_BYTES, RETRY_ELAPSED, RETRY_INTERVAL, ROTATION_BYTES, TIMEOUT, TLS_OF_HTTPS,
        TRUST_OR_NOT,
    },
    gateway::ONE_ANTI_AFFINITY,
    logs::{
        FILTERS_ARE_OF_SPANS, KEPT_BY_GATEWAYS, LOGS_HAVE_A_TAKER, TAKERS_HAVE_LOGS,
        TRACES_HAVE_A_TAKER, UNDECIDED_OF_TRACES,
    },
    pipeline::{
        BATCH_BEFORE_DECISION, EXTERNAL_IS_STATIC, REDACTION_BY_GATEWAYS, SOMETHING_RUNS,
        STATIC_IS_EXTERNAL,
    },
    processing::VALUE_IF_GIVEN,
    receivers::{GUARD_NEEDS_PEER_TLS, GUARD_NOT_OF_SIDECARS, PORT_IS_FREE, PORTS_DIFFER},
    redaction::{ONE_KEY, SECRET_WITH_HASH, SOME_AIM, SOME_REDACTION, TEXTS_WITH_MASKS},
    routing::{
        DNS_TIMEOUT, INTERVAL as RESOLVE_INTERVAL, PORT_OF_ADDRESSES, TIMEOUT_WITHIN_INTERVAL,
    },
    sampling::{
        BOUNDS_IN_ORDER, BUDGET_BYTES, COUNTS_IN_ORDER, DECISION_WAIT, LATENCY,
        ROOT_BEFORE_DECISION, ROOT_WAIT, SOME_BOUND, SOME_CONDITION, SOME_COUNT, TRACE_BYTES,
        UPPER_ABOVE_LOWER,
    },
    security::SECRETS_WITH_REF,
    size::{SizeBounds, SizeText},
    span_metrics::{EXPIRY, INTERVAL, LABEL_IS_FREE, NO_PATH, ONE_KIND_OF_BUCKETS},
};

/// A rule that one node of a document keeps or breaks as a whole.
#[derive(Debug)]
pub(crate) struct NodeRule {
    /// The rule for the API server.
    pub(crate) cel: &'static str,
    /// The same rule. Values that it needs and that are broken themselves do not break it.
    pub(crate) holds: fn(&Value) -> bool,
    /// What is wrong when it does not hold.
    pub(crate) message: &'static str,
    /// The field to blame, such as `.maxValue`; empty for the node itself.
    pub(crate) field: &'static str,
}

impl NodeRule {
    /// The rule for the API server.
    pub(crate) fn rule(&self) -> Rule {
        let rule = Rule::new(self.cel).message(self.message);
        if self.field.is_empty() { rule } else { rule.field_path(self.field) }
    }
}

/// The twin of one CEL rule.
pub(crate) enum Twin {
    Duration(&'static DurationBounds),
    Size(&'static SizeBounds),
    Node(&'static NodeRule),
}

static TWINS: [Twin; 64] = [
    Twin::Duration(&DECISION_WAIT),
    Twin::Duration(&LATENCY),
    Twin::Duration(&ROOT_WAIT),
    Twin::Duration(&TIMEOUT),
    Twin::Duration(&RETRY_ELAPSED),
    Twin::Duration(&RETRY_INTERVAL),
    Twin::Duration(&BATCH_TIMEOUT),
    Twin::Duration(&RESOLVE_INTERVAL),
    Twin::Duration(&DNS_TIMEOUT),
    Twin::Size(&QUEUE_BYTES),
    Twin::Size(&BATCH_BYTES),
    Twin::Size(&RETENTION_BYTES),
    Twin::Size(&BUDGET_BYTES),
    Twin::Size(&TRACE_BYTES),
    Twin::Node(&HEADER_IS_FREE),
    Twin::Node(&INTERVALS_IN_ORDER),
    Twin::Node(&UPPER_ABOVE_LOWER),
    Twin::Node(&SOME_BOUND),
    Twin::Node(&ROOT_BEFORE_DECISION),
    Twin::Node(&BOUNDS_IN_ORDER),
    Twin::Node(&SOME_COUNT),
    Twin::Node(&COUNTS_IN_ORDER),
    Twin::Node(&SOME_CONDITION),
    Twin::Node(&BATCH_BEFORE_DECISION),
    Twin::Node(&STATIC_IS_EXTERNAL),
    Twin::Node(&EXTERNAL_IS_STATIC),
    Twin::Node(&SOMETHING_RUNS),
    Twin::Node(&HOST_PORT_ON_NODES),
    Twin::Node(&PORT_IS_FREE),
    Twin::Node(&PORTS_DIFFER),
    Twin::Node(&GUARD_NOT_OF_SIDECARS),
    Twin::Node(&GUARD_NEEDS_PEER_TLS),
    Twin::Node(&ONE_ANTI_AFFINITY),
    Twin::Node(&REPLICAS_IN_ORDER),
    Twin::Node(&SOME_TARGET),
    Twin::Node(&SECRETS_WITH_REF),
    Twin::Node(&ONE_VALUE),
    Twin::Node(&PORT_OF_ADDRESSES),
    Twin::Node(&TIMEOUT_WITHIN_INTERVAL),
    Twin::Size(&ROTATION_BYTES),
    Twin::Size(&DISK_BYTES),
    Twin::Node(&PATH_OF_HTTP),
    Twin::Node(&TLS_OF_HTTPS),
    Twin::Node(&ONE_AUTHORIZATION),
    Twin::Node(&TRUST_OR_NOT),
    Twin::Node(&VALUE_IF_GIVEN),
    Twin::Node(&PROCESSING_BY_AGENTS),
    Twin::Node(&REDACTION_BY_GATEWAYS),
    Twin::Node(&ONE_KEY),
    Twin::Node(&SECRET_WITH_HASH),
    Twin::Node(&SOME_AIM),
    Twin::Node(&SOME_REDACTION),
    Twin::Node(&TEXTS_WITH_MASKS),
    Twin::Duration(&EXPIRY),
    Twin::Duration(&INTERVAL),
    Twin::Node(&ONE_KIND_OF_BUCKETS),
    Twin::Node(&NO_PATH),
    Twin::Node(&LABEL_IS_FREE),
    Twin::Node(&UNDECIDED_OF_TRACES),
    Twin::Node(&TRACES_HAVE_A_TAKER),
    Twin::Node(&LOGS_HAVE_A_TAKER),
    Twin::Node(&TAKERS_HAVE_LOGS),
    Twin::Node(&FILTERS_ARE_OF_SPANS),
    Twin::Node(&KEPT_BY_GATEWAYS),
];

/// The twin of a rule of the schema.
pub(crate) fn twin(cel: &str) -> Option<&'static Twin> {
    TWINS.iter().find(|twin| twin.cel() == cel)
}

impl Twin {
    fn cel(&self) -> String {
        match self {
            Self::Duration(bounds) => bounds.rule().rule,
            Self::Size(bounds) => bounds.rule().rule,
            Self::Node(rule) => rule.cel.to_owned(),
        }
    }

    /// What is wrong with `value`, and the field to blame, if the rule does not hold.
    pub(crate) fn broken(&self, value: &Value) -> Option<(&'static str, String)> {
        match self {
            Self::Duration(bounds) => {
                let inside = bounds.contain(DurationText::parse_str(value.as_str()?)?);
                (!inside).then(|| ("", bounds.demand()))
            }
            Self::Size(bounds) => {
                let inside = bounds.contain(SizeText::parse_str(value.as_str()?));
                (!inside).then(|| ("", bounds.demand()))
            }
            Self::Node(rule) => {
                (!(rule.holds)(value)).then(|| (rule.field, rule.message.to_owned()))
            }
        }
    }
}

/// Whether the durations at two pointers keep an order; true when either is missing or broken.
pub(crate) fn durations(
    value: &Value,
    left: &str,
    right: &str,
    order: fn(&std::time::Duration, &std::time::Duration) -> bool,
) -> bool {
    let read = |pointer| DurationText::parse_str(value.pointer(pointer)?.as_str()?);
    match (read(left), read(right)) {
        (Some(left), Some(right)) => order(&left, &right),
        _ => true,
    }
}
