//! The conditions of a pipeline as a chain of pure checks over what was observed.
//!
//! Equal observations give equal bytes: messages name things in order and carry no times, so that status is
//! written when something changed and not because somebody looked.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use ringtail_crds::conditions::{self as types, reason};

use crate::{
    failure::Category,
    reconcile::observe::{Cause, Tier},
    stats::{
        ring::Standing,
        view::{Degraded, View},
    },
};

mod programmed; // what gateways have loaded
mod ring; //       whether all agree
mod spec; //       what the resource says
mod tiers; //      what became of pods

/// Kubernetes takes 32,768; people read less.
const MESSAGE_CHARS_MAX: usize = 1_024;

/// Everything that conditions depend on.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec.paused`.
    pub paused: bool,
    /// What is wrong with the resource; empty when nothing is.
    pub problems: Vec<Problem>,
    /// What it refers to and does not exist. None when it was not looked for.
    pub unresolved: Option<Vec<Unresolved>>,
    /// Why the children are not as they should be.
    pub failure: Option<(Category, String)>,
    /// Whether somebody else runs the gateways.
    pub external_gateways: bool,
    /// Whether gateways get services and not traces.
    pub routed_by_service: bool,
    /// Whether agents are pods of this pipeline.
    pub managed_agents: bool,
    /// Whether agents and gateways trust whoever reaches them.
    pub peers_unauthenticated: bool,
    /// The gateways.
    pub gateways: Tier,
    /// The agents.
    pub agents: Tier,
    /// What gateways say; none before the first poll.
    pub view: Option<View>,
    /// The hash of the configuration that they should have loaded; none when it could not be made.
    pub config_hash: Option<String>,
}

/// Something wrong with the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One of the reasons of `Accepted`.
    pub reason: &'static str,
    /// Which field, and what to do about it.
    pub message: String,
}

/// A reference into nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unresolved {
    /// One of the reasons of `ResolvedRefs`.
    pub reason: &'static str,
    /// What is missing.
    pub message: String,
}

/// What a check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// True, False or Unknown.
    pub status: Status,
    /// For machines.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are Kubernetes' own words")]
pub enum Status {
    True,
    False,
    Unknown,
}

/// A check of a condition that is always there.
type Check = fn(&Observed) -> Verdict;
/// A check of a condition that is there only while it is True.
type Alarm = fn(&Observed) -> Option<Verdict>;

const CHECKS: [(&str, Check); 6] = [
    (types::ACCEPTED, spec::accepted),
    (types::RESOLVED_REFS, spec::resolved_refs),
    (types::PROGRAMMED, programmed::programmed),
    (types::GATEWAY_AVAILABLE, tiers::gateway_available),
    (types::AGENTS_AVAILABLE, tiers::agents_available),
    (types::RING_CONVERGED, ring::converged),
];

const ALARMS: [(&str, Alarm); 5] = [
    (types::SAMPLING_DEGRADED, ring::sampling_degraded),
    (types::PEERS_UNAUTHENTICATED, spec::peers_unauthenticated),
    (types::PAUSED, spec::paused),
    (types::RECONCILING, tiers::reconciling),
    (types::STALLED, spec::stalled),
];

/// The conditions of what was observed, sorted by type. `before` tells since when each has had its status.
pub fn conditions(observed: &Observed, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    let mut verdicts: Vec<_> =
        CHECKS.iter().map(|(type_, check)| (*type_, check(observed))).collect();
    verdicts.push((types::READY, summary(&verdicts)));
    let alarms = ALARMS.iter().filter_map(|(type_, alarm)| Some((*type_, alarm(observed)?)));
    verdicts.extend(alarms);
    let mut conditions: Vec<_> = verdicts
        .into_iter()
        .map(|(type_, verdict)| condition(type_, verdict, observed.generation, before, now))
        .collect();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    conditions
}

/// The condition of a resource that cannot even be read.
pub fn unreadable(
    error: &str,
    generation: i64,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let message = format!("the resource cannot be read by this version of the operator: {error}");
    let observed = Observed {
        generation,
        problems: vec![Problem { reason: reason::INVALID_SPEC, message }],
        ..Observed::default()
    };
    conditions(&observed, before, now)
}

// The first that is not True says what is in the way, in its own words. A configuration that is on its way to
// gateways which are not there is no cause: what keeps those away is.
fn summary(verdicts: &[(&str, Verdict)]) -> Verdict {
    let mut failing = verdicts.iter().filter(|(_, verdict)| verdict.status != Status::True);
    let absent = failing.clone().find(|(type_, _)| *type_ == types::GATEWAY_AVAILABLE);
    match failing.next() {
        Some((_, first))
            if [reason::CONFIG_PROPAGATING, reason::REPORTERS_MISSING].contains(&first.reason) =>
        {
            absent.map_or(first, |(_, verdict)| verdict).clone()
        }
        Some((_, first)) => first.clone(),
        None => Verdict::holds(reason::ALL_TIERS_READY, "the fleet works as the resource says"),
    }
}

fn condition(
    type_: &str,
    verdict: Verdict,
    generation: i64,
    before: &[Condition],
    now: Timestamp,
) -> Condition {
    let status = verdict.status.name();
    let known = before.iter().find(|known| known.type_ == type_ && known.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.to_owned(),
        message: shortened(verdict.message),
        observed_generation: Some(generation),
        last_transition_time: known.map_or(Time(now), |known| known.last_transition_time.clone()),
    }
}

fn shortened(message: String) -> String {
    if message.chars().count() <= MESSAGE_CHARS_MAX {
        return message;
    }
    let kept: String = message.chars().take(MESSAGE_CHARS_MAX - 1).collect();
    format!("{kept}…")
}

// === impl Verdict ===

impl Verdict {
    fn holds(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: Status::True, reason, message: message.into() }
    }

    fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: Status::False, reason, message: message.into() }
    }

    fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: Status::Unknown, reason, message: message.into() }
    }
}

// === impl Status ===

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

#[cfg(test)]
mod tests;
