//! Conditions about what gateways say: RingConverged and SamplingDegraded.

use ringtail_crds::conditions::reason;

use super::{Degraded, Observed, Standing, Verdict};

pub(super) fn converged(observed: &Observed) -> Verdict {
    if observed.external_gateways {
        return Verdict::holds(reason::EXTERNAL, "agents use the list of the resource");
    }
    if observed.routed_by_service {
        let message =
            "routing.key is Service: each gateway decides what it is sent, and there is no ring";
        return Verdict::holds(reason::ROUTED_BY_SERVICE, message);
    }
    let Some(view) = &observed.view else {
        return Verdict::unknown(reason::STALE_OBSERVATIONS, "gateways were not asked yet");
    };
    let ring = &view.ring;
    let agreement = format!("{}/{} agree", ring.agreeing, ring.observers);
    match ring.standing {
        Standing::Unknown => Verdict::unknown(reason::STALE_OBSERVATIONS, "no gateway answers"),
        Standing::NoMembers => Verdict::fails(reason::NO_MEMBERS, "there is no gateway"),
        Standing::Converged => Verdict::holds(
            reason::CONVERGED,
            format!("{} gateways; {agreement}", ring.members.len()),
        ),
        Standing::Changing if ring.draining > 0 => Verdict::fails(
            reason::MEMBERSHIP_CHANGING,
            format!("{agreement}; {} on their way out", ring.draining),
        ),
        Standing::Changing => Verdict::fails(reason::MEMBERSHIP_CHANGING, agreement),
        Standing::Split => Verdict::fails(
            reason::SPLIT_VIEW,
            format!("{agreement}; another ring: {}", ring.dissenting.join(", ")),
        ),
        Standing::DrainTimeout => Verdict::fails(
            reason::DRAIN_TIMEOUT,
            format!("{} gateways do not get rid of what they hold", ring.draining),
        ),
    }
}

pub(super) fn sampling_degraded(observed: &Observed) -> Option<Verdict> {
    let measured = observed.view.as_ref().and_then(|view| view.degraded.first());
    let Some(worst) = measured else { return by_service(observed) };
    Some(match worst {
        Degraded::Evictions => Verdict::holds(
            reason::BUFFER_EVICTIONS,
            "traces were decided early for lack of memory: give gateways more, or more of them",
        ),
        Degraded::Exporters => Verdict::holds(
            reason::EXPORTER_BACKPRESSURE,
            "kept spans were lost on their way to a backend: see otelcol_exporter_send_failed_spans",
        ),
        Degraded::LateSpans => Verdict::holds(
            reason::LATE_SPANS,
            "more than 1 % of spans arrive after the decision: sampling.decisionWait may be too short",
        ),
    })
}

// Not measured, but so by design: what is measured is told first.
fn by_service(observed: &Observed) -> Option<Verdict> {
    let message =
        "routing.key is Service: gateways see and decide parts of traces; TraceID keeps them whole";
    observed.routed_by_service.then(|| Verdict::holds(reason::ROUTED_BY_SERVICE, message))
}
