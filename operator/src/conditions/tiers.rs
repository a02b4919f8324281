//! Conditions about pods: GatewayAvailable, AgentsAvailable, Reconciling.

use ringtail_crds::conditions::reason;

use super::{Cause, Observed, Tier, Verdict};
use crate::live::Workload;

/// Names in a message.
const NAMED_MAX: usize = 3;

pub(super) fn gateway_available(observed: &Observed) -> Verdict {
    if observed.external_gateways {
        return Verdict::holds(reason::EXTERNAL, "somebody else runs the gateways");
    }
    let tier = &observed.gateways;
    let Some(workload) = &tier.workload else {
        return Verdict::fails(reason::INSUFFICIENT_REPLICAS, "there are no gateways yet");
    };
    let ready = format!("{}/{} gateways ready", workload.ready, workload.desired);
    // Of three, two are enough to lose none: the budget of disruptions allows for one, and so does a rollout.
    if workload.observed && workload.available > 0 && workload.available >= workload.desired - 1 {
        return match workload.available >= workload.desired {
            true => Verdict::holds(reason::MINIMUM_REPLICAS_AVAILABLE, ready),
            false if workload.desired > 2 && !tier.is_stuck() => {
                Verdict::holds(reason::MINIMUM_REPLICAS_AVAILABLE, ready)
            }
            false => unavailable(tier, workload, reason::INSUFFICIENT_REPLICAS, ready),
        };
    }
    unavailable(tier, workload, reason::INSUFFICIENT_REPLICAS, ready)
}

pub(super) fn agents_available(observed: &Observed) -> Verdict {
    if !observed.managed_agents {
        return Verdict::holds(reason::NOT_MANAGED, "agents do not run as a DaemonSet");
    }
    let tier = &observed.agents;
    let Some(workload) = &tier.workload else {
        return Verdict::fails(reason::NODES_NOT_READY, "there are no agents yet");
    };
    if workload.observed && workload.desired == 0 {
        return Verdict::holds(reason::NO_ELIGIBLE_NODES, "no node should have an agent");
    }
    let ready = format!("{}/{} agents ready", workload.ready, workload.desired);
    if workload.observed && workload.available >= workload.desired {
        return Verdict::holds(reason::ALL_NODES_READY, ready);
    }
    unavailable(tier, workload, reason::NODES_NOT_READY, ready)
}

/// kstatus calls a resource current only without it.
pub(super) fn reconciling(observed: &Observed) -> Option<Verdict> {
    if !observed.problems.is_empty() || observed.paused {
        return None;
    }
    let gateways = !observed.external_gateways && observed.gateways.is_rolling_out();
    let agents = observed.managed_agents && observed.agents.is_rolling_out();
    let message = match (gateways, agents) {
        (true, true) => "gateways and agents are on their way to the newest settings",
        (true, false) => "gateways are on their way to the newest settings",
        (false, true) => "agents are on their way to the newest settings",
        (false, false) => return None,
    };
    Some(Verdict::holds(reason::PROGRESSING, message))
}

// Why a tier is not there: what pods wait for says more than how many are missing.
fn unavailable(
    tier: &Tier,
    workload: &Workload,
    otherwise: &'static str,
    ready: String,
) -> Verdict {
    if let Some(refused) = &tier.refused {
        return Verdict::fails(reason::PODS_REFUSED, format!("{ready}; {refused}"));
    }
    if let Some(cause) = tier.waiting.iter().map(|waiting| waiting.cause).min() {
        let pods = tier.waiting.iter().filter(|waiting| waiting.cause == cause);
        let names: Vec<_> = pods.take(NAMED_MAX).map(|waiting| waiting.pod.as_str()).collect();
        return Verdict::fails(
            of_cause(cause),
            format!("{ready}; waiting for {}", names.join(", ")),
        );
    }
    if !workload.observed || workload.updated < workload.desired {
        let message = format!("{ready}; {} of the newest settings", workload.updated);
        return Verdict::fails(reason::ROLLING_OUT, message);
    }
    Verdict::fails(otherwise, ready)
}

fn of_cause(cause: Cause) -> &'static str {
    match cause {
        Cause::CrashLooping => reason::CRASH_LOOPING,
        Cause::ImagePullFailed => reason::IMAGE_PULL_FAILED,
        Cause::HostPortConflict => reason::HOST_PORT_CONFLICT,
        Cause::Unschedulable => reason::UNSCHEDULABLE,
    }
}

// === impl Tier ===

impl Tier {
    fn is_stuck(&self) -> bool {
        self.refused.is_some() || !self.waiting.is_empty()
    }

    fn is_rolling_out(&self) -> bool {
        self.workload.as_ref().is_none_or(|workload| !workload.is_rolled_out())
    }
}
