//! Cases of observations with the conditions that they make.

use super::*;
use crate::{
    live::Workload,
    reconcile::observe::Waiting,
    stats::{ring::Ring, view::Loaded},
};

const HASH: &str = "0123456789abcdef";

fn workload(desired: i32, ready: i32, updated: i32) -> Workload {
    Workload {
        desired,
        present: desired,
        ready,
        updated,
        available: ready,
        observed: true,
        ..Workload::default()
    }
}

fn tier(desired: i32, ready: i32, updated: i32) -> Tier {
    Tier { workload: Some(workload(desired, ready, updated)), ..Tier::default() }
}

fn view() -> View {
    let loaded = |pod: &str| Loaded { pod: pod.to_owned(), hash: HASH.to_owned(), error: None };
    View {
        ring: Ring {
            standing: Standing::Converged,
            digest: "d".to_owned(),
            members: ["g0", "g1", "g2"].map(str::to_owned).to_vec(),
            observers: 15,
            agreeing: 15,
            ..Ring::default()
        },
        answered: 3,
        expected: 3,
        configs: ["g0", "g1", "g2"].map(loaded).to_vec(),
        degraded: Vec::new(),
    }
}

/// A fleet that works.
fn healthy() -> Observed {
    Observed {
        generation: 7,
        unresolved: Some(Vec::new()),
        managed_agents: true,
        gateways: tier(3, 3, 3),
        agents: tier(12, 12, 12),
        view: Some(view()),
        config_hash: Some(HASH.to_owned()),
        ..Observed::default()
    }
}

fn with(change: impl FnOnce(&mut Observed)) -> Observed {
    let mut observed = healthy();
    change(&mut observed);
    observed
}

fn with_view(change: impl FnOnce(&mut View)) -> Observed {
    with(|observed| change(observed.view.as_mut().unwrap()))
}

fn waiting(cause: Cause) -> Vec<Waiting> {
    vec![Waiting { pod: "p1".to_owned(), cause }]
}

/// `Type=Status/Reason` of every condition that is not as in a fleet that works.
fn told(observed: &Observed) -> String {
    let usual = all(&healthy());
    let told = all(observed).into_iter().filter(|line| !usual.contains(line));
    told.collect::<Vec<_>>().join(" ")
}

fn all(observed: &Observed) -> Vec<String> {
    let conditions = conditions(observed, &[], Timestamp::UNIX_EPOCH);
    conditions.iter().map(|c| format!("{}={}/{}", c.type_, c.status, c.reason)).collect()
}

#[test]
fn a_fleet_that_works() {
    let conditions = conditions(&healthy(), &[], Timestamp::UNIX_EPOCH);
    let lines: Vec<_> = conditions
        .iter()
        .map(|c| format!("{} {} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
    assert!(conditions.iter().all(|c| c.observed_generation == Some(7)));
}

#[test]
fn what_is_wrong_is_told_by_its_name() {
    let problem = |reason| vec![Problem { reason, message: "spec.x: must be y".to_owned() }];
    let missing = |reason| Some(vec![Unresolved { reason, message: "no".to_owned() }]);
    let cases = [
        (healthy(), ""),
        (
            with(|o| {
                o.problems = problem(reason::INVALID_SPEC);
                (o.unresolved, o.config_hash) = (None, None);
            }),
            "Accepted=False/InvalidSpec Programmed=False/InvalidSpec Ready=False/InvalidSpec \
             ResolvedRefs=Unknown/InvalidSpec Stalled=True/InvalidSpec",
        ),
        (
            with(|o| o.problems = problem(reason::UNSAFE_POD)),
            "Accepted=False/UnsafePod Ready=False/UnsafePod Stalled=True/UnsafePod",
        ),
        (
            with(|o| o.unresolved = missing(reason::SECRET_NOT_FOUND)),
            "Ready=False/SecretNotFound ResolvedRefs=False/SecretNotFound",
        ),
        (
            with(|o| o.failure = Some((Category::Foreign, "taken".to_owned()))),
            "Programmed=False/NameTaken Ready=False/NameTaken Stalled=True/NameTaken",
        ),
        (
            with(|o| o.failure = Some((Category::Forbidden, "no".to_owned()))),
            "Programmed=False/PermissionDenied Ready=False/PermissionDenied Stalled=True/PermissionDenied",
        ),
        (
            with(|o| o.failure = Some((Category::Network, "away".to_owned()))),
            "Programmed=False/Progressing Ready=False/Progressing",
        ),
        (with(|o| o.paused = true), "Paused=True/SpecPaused"),
        (with(|o| o.peers_unauthenticated = true), "PeersUnauthenticated=True/PeerTLSDisabled"),
        (
            with(|o| o.gateways = Tier::default()),
            "GatewayAvailable=False/InsufficientReplicas Ready=False/InsufficientReplicas \
             Reconciling=True/Progressing",
        ),
        // Two of three hold what the third would; the rollout is told, the fleet is ready.
        (with(|o| o.gateways = tier(3, 2, 1)), "Reconciling=True/Progressing"),
        (
            with(|o| o.gateways = tier(3, 1, 3)),
            "GatewayAvailable=False/InsufficientReplicas Ready=False/InsufficientReplicas \
             Reconciling=True/Progressing",
        ),
        (
            with(|o| o.gateways = tier(3, 1, 1)),
            "GatewayAvailable=False/RollingOut Ready=False/RollingOut Reconciling=True/Progressing",
        ),
        (
            with(|o| o.gateways = Tier { waiting: waiting(Cause::CrashLooping), ..tier(3, 2, 1) }),
            "GatewayAvailable=False/CrashLooping Ready=False/CrashLooping Reconciling=True/Progressing",
        ),
        (
            with(|o| o.gateways = Tier { waiting: waiting(Cause::Unschedulable), ..tier(3, 2, 3) }),
            "GatewayAvailable=False/Unschedulable Ready=False/Unschedulable Reconciling=True/Progressing",
        ),
        (
            with(|o| o.gateways = Tier { refused: Some("quota".to_owned()), ..tier(3, 0, 0) }),
            "GatewayAvailable=False/PodsRefused Ready=False/PodsRefused Reconciling=True/Progressing",
        ),
        (
            with(|o| o.gateways = Tier { deadline_exceeded: true, ..tier(3, 1, 1) }),
            "GatewayAvailable=False/RollingOut Ready=False/RollingOut Reconciling=True/Progressing \
             Stalled=True/ProgressDeadlineExceeded",
        ),
        (
            with(|o| (o.external_gateways, o.gateways) = (true, Tier::default())),
            "GatewayAvailable=True/External Programmed=True/External RingConverged=True/External",
        ),
        (
            with(|o| o.routed_by_service = true),
            "RingConverged=True/RoutedByService SamplingDegraded=True/RoutedByService",
        ),
        (with(|o| o.agents = tier(0, 0, 0)), "AgentsAvailable=True/NoEligibleNodes"),
        (
            with(|o| o.agents = tier(12, 11, 12)),
            "AgentsAvailable=False/NodesNotReady Ready=False/NodesNotReady Reconciling=True/Progressing",
        ),
        (
            with(|o| {
                o.agents = Tier { waiting: waiting(Cause::HostPortConflict), ..tier(12, 11, 12) }
            }),
            "AgentsAvailable=False/HostPortConflict Ready=False/HostPortConflict \
             Reconciling=True/Progressing",
        ),
        (
            with(|o| {
                o.agents = Tier { waiting: waiting(Cause::ImagePullFailed), ..tier(12, 0, 12) }
            }),
            "AgentsAvailable=False/ImagePullFailed Ready=False/ImagePullFailed \
             Reconciling=True/Progressing",
        ),
        (
            with(|o| (o.managed_agents, o.agents) = (false, Tier::default())),
            "AgentsAvailable=True/NotManaged",
        ),
        (
            with(|o| o.view = None),
            "Programmed=Unknown/ReportersMissing Ready=Unknown/ReportersMissing \
             RingConverged=Unknown/StaleObservations",
        ),
        (
            with_view(|v| v.configs[1].hash = "older".to_owned()),
            "Programmed=False/ConfigPropagating Ready=False/ConfigPropagating",
        ),
        (
            with_view(|v| {
                v.configs[1].hash = "older".to_owned();
                v.configs[1].error = Some("no such policy".to_owned());
            }),
            "Programmed=False/ConfigRejected Ready=False/ConfigRejected",
        ),
        // One that does not answer is not known to have loaded anything.
        (
            with_view(|v| {
                v.answered = 2;
                v.configs.pop();
            }),
            "Programmed=False/ConfigPropagating Ready=False/ConfigPropagating",
        ),
        // And one that cannot be there is what to look at.
        (
            with(|o| {
                o.gateways = Tier { waiting: waiting(Cause::Unschedulable), ..tier(3, 2, 3) };
                let view = o.view.as_mut().unwrap();
                (view.answered, _) = (2, view.configs.pop());
            }),
            "GatewayAvailable=False/Unschedulable Programmed=False/ConfigPropagating \
             Ready=False/Unschedulable Reconciling=True/Progressing",
        ),
        (
            with(|o| {
                o.gateways = Tier { waiting: waiting(Cause::ImagePullFailed), ..tier(3, 0, 3) };
                o.view = None;
            }),
            "GatewayAvailable=False/ImagePullFailed Programmed=Unknown/ReportersMissing \
             Ready=False/ImagePullFailed Reconciling=True/Progressing \
             RingConverged=Unknown/StaleObservations",
        ),
        (
            with_view(|v| v.ring.standing = Standing::Split),
            "Ready=False/SplitView RingConverged=False/SplitView",
        ),
        (
            with_view(|v| v.ring.standing = Standing::Changing),
            "Ready=False/MembershipChanging RingConverged=False/MembershipChanging",
        ),
        (
            with_view(|v| v.ring.standing = Standing::DrainTimeout),
            "Ready=False/DrainTimeout RingConverged=False/DrainTimeout",
        ),
        (
            with_view(|v| v.ring.standing = Standing::Unknown),
            "Ready=Unknown/StaleObservations RingConverged=Unknown/StaleObservations",
        ),
        (
            with_view(|v| v.degraded = vec![Degraded::Exporters, Degraded::LateSpans]),
            "SamplingDegraded=True/ExporterBackpressure",
        ),
    ];
    for (observed, wanted) in cases {
        assert_eq!(told(&observed), wanted, "{observed:#?}");
    }
}

#[test]
fn time_moves_only_when_the_status_does() {
    let first = conditions(&with(|o| o.gateways = tier(3, 1, 3)), &[], Timestamp::UNIX_EPOCH);
    let later = Timestamp::from_second(1_000).unwrap();
    let same_status = conditions(&with(|o| o.gateways = tier(3, 0, 3)), &first, later);
    let flipped = conditions(&healthy(), &same_status, later);
    let time = |conditions: &[Condition], type_: &str| {
        let found = conditions.iter().find(|c| c.type_ == type_);
        found.map(|c| c.last_transition_time.0)
    };
    let available = types::GATEWAY_AVAILABLE;
    assert_eq!(time(&same_status, available), Some(Timestamp::UNIX_EPOCH));
    assert_eq!(time(&flipped, available), Some(later));
    assert_eq!(time(&flipped, types::ACCEPTED), Some(Timestamp::UNIX_EPOCH));
}

#[test]
fn messages_have_an_end() {
    let long = "x".repeat(40_000);
    let observed =
        with(|o| o.problems = vec![Problem { reason: reason::INVALID_SPEC, message: long }]);
    let conditions = conditions(&observed, &[], Timestamp::UNIX_EPOCH);
    assert!(conditions.iter().all(|c| c.message.chars().count() <= MESSAGE_CHARS_MAX));
}
