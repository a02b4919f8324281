//! What the operator may do in a cluster, and why: the chart renders its roles from this table, and a test
//! compares it with what the API server's audit log says was used.

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// As in URLs, with the subresource.
    pub resource: &'static str,
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// What for.
    pub why: &'static str,
    /// Where the rule is needed.
    pub place: Place,
}

/// Where a rule is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In every namespace that is watched: a ClusterRole, or a Role in each.
    Watched,
    /// In the namespace of the Lease.
    Lease,
    /// Not used by the operator. It may grant it to pods only because it holds it itself.
    Granted,
}

/// Watched, and applied with server-side apply: `create` and `patch`; `delete` for those that nobody wants
/// any more.
const CHILD: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// Everything.
pub const TABLE: &[Rule] = &[
    rule("ringtail.dev", "tracepipelines", &["get", "list", "watch"], "the resource"),
    rule("ringtail.dev", "tracepipelines/status", &["patch"], "conditions and counts"),
    rule("", "serviceaccounts", CHILD, "a child"),
    rule("", "secrets", CHILD, "the ring seed, certificates, and what pipelines refer to"),
    rule(
        "",
        "configmaps",
        CHILD,
        "the manifest that pods read; read on behalf of the pods' role as well",
    ),
    rule("", "services", CHILD, "a child"),
    rule(
        "",
        "pods",
        &["list", "watch"],
        "why a tier is not ready; where gateways are asked for statistics",
    ),
    rule("apps", "deployments", CHILD, "gateways"),
    rule("apps", "daemonsets", CHILD, "agents"),
    rule("policy", "poddisruptionbudgets", CHILD, "a child"),
    rule("autoscaling", "horizontalpodautoscalers", CHILD, "a child"),
    rule("networking.k8s.io", "networkpolicies", CHILD, "a child"),
    rule("rbac.authorization.k8s.io", "roles", CHILD, "the pods' own rights"),
    rule("rbac.authorization.k8s.io", "rolebindings", CHILD, "the pods' own rights"),
    rule("monitoring.coreos.com", "podmonitors", CHILD, "a child where the kind exists"),
    rule("monitoring.coreos.com", "prometheusrules", CHILD, "a child where the kind exists"),
    rule("events.k8s.io", "events", &["create", "patch"], "what happened"),
    Rule {
        place: Place::Lease,
        ..rule("coordination.k8s.io", "leases", &["get", "create", "update"], "who leads")
    },
    Rule {
        place: Place::Granted,
        ..rule(
            "discovery.k8s.io",
            "endpointslices",
            &["get", "list", "watch"],
            "pods find gateways",
        )
    },
];

const fn rule(
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
    why: &'static str,
) -> Rule {
    Rule { group, resource, verbs, why, place: Place::Watched }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    #[test]
    fn every_kind_of_child_is_in_the_table() {
        for kind in Kind::ALL {
            let found =
                TABLE.iter().find(|r| (r.group, r.resource) == (kind.group(), kind.plural()));
            assert_eq!(found.map(|rule| rule.verbs), Some(CHILD), "{kind}");
        }
    }
}
