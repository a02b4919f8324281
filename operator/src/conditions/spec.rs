//! Conditions about what the resource says: Accepted, ResolvedRefs, Paused, Stalled, PeersUnauthenticated.

use ringtail_crds::conditions::reason;

use super::{Observed, Verdict};
use crate::failure::Category;

pub(super) fn accepted(observed: &Observed) -> Verdict {
    let Some(first) = observed.problems.first() else {
        return Verdict::holds(reason::VALID, "the resource makes sense");
    };
    let messages: Vec<_> =
        observed.problems.iter().map(|problem| problem.message.as_str()).collect();
    Verdict::fails(first.reason, messages.join("; "))
}

pub(super) fn resolved_refs(observed: &Observed) -> Verdict {
    match observed.unresolved.as_deref() {
        None if observed.problems.is_empty() => {
            Verdict::unknown(reason::PROGRESSING, "references were not looked up yet")
        }
        None => Verdict::unknown(reason::INVALID_SPEC, "an invalid resource is not looked into"),
        Some([]) => {
            Verdict::holds(reason::RESOLVED, "everything that the resource refers to exists")
        }
        Some(unresolved) => {
            let messages: Vec<_> =
                unresolved.iter().map(|missing| missing.message.as_str()).collect();
            Verdict::fails(unresolved[0].reason, messages.join("; "))
        }
    }
}

pub(super) fn paused(observed: &Observed) -> Option<Verdict> {
    let message = "spec.paused is true: children are left as they are";
    observed.paused.then(|| Verdict::holds(reason::SPEC_PAUSED, message))
}

pub(super) fn peers_unauthenticated(observed: &Observed) -> Option<Verdict> {
    let message =
        "security.peerTLS.mode is Disabled: whoever reaches a gateway's peer port is trusted";
    observed.peers_unauthenticated.then(|| Verdict::holds(reason::PEER_TLS_DISABLED, message))
}

pub(super) fn stalled(observed: &Observed) -> Option<Verdict> {
    if let Some(problem) = observed.problems.first() {
        return Some(Verdict::holds(problem.reason, "waits for a change of the resource"));
    }
    if let Some((category, message)) = &observed.failure
        && category.needs_somebody()
    {
        return Some(Verdict::holds(of_failure(*category), message.clone()));
    }
    let late = observed.gateways.deadline_exceeded;
    let message = "the rollout of the gateways takes longer than it should";
    late.then(|| Verdict::holds(reason::PROGRESS_DEADLINE_EXCEEDED, message))
}

pub(super) fn of_failure(category: Category) -> &'static str {
    match category {
        Category::Foreign => reason::NAME_TAKEN,
        Category::Forbidden => reason::PERMISSION_DENIED,
        Category::Invalid => reason::INVALID_SPEC,
        _ => reason::PROGRESSING,
    }
}
