//! From EndpointSlices to candidates: pure rules over plain data, the same for every reader of the same
//! slices in any order.
//!
//! A slice is one controller's view of some endpoints at one time. Slices of a Service are written one after
//! the other, a pod may stand in two of them for a moment, and a condition may be missing. The rules:
//!
//! - `serving` without a value counts as `ready`, and `ready` without a value as true; `terminating` without
//!   a value is false. `ready` says nothing more: a Service that publishes addresses that are not ready sets
//!   it for everybody.
//! - A pod is one candidate, whatever its addresses. IPv4 comes before IPv6 where it has both; within the
//!   family its most alive entry counts, and of equal ones the smallest address.
//! - An endpoint without a pod is a candidate of its own, named by its address.
//! - Only the first address of an endpoint counts: the API says that the others mean nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::{Candidate, Standing};

/// What matters of one EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The ports that all endpoints of the slice have, by name; an unnamed port has the empty name.
    pub ports: Vec<(String, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// What matters of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// As the slice lists them.
    pub addresses: Vec<String>,
    /// The name of the pod behind it.
    pub pod: Option<String>,
    /// Its conditions.
    pub conditions: Conditions,
}

/// The conditions of an endpoint, as they stand in the slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Serving and not terminating, or a Service that publishes everybody.
    pub ready: Option<bool>,
    /// The pod passes its readiness probe, terminating or not.
    pub serving: Option<bool>,
    /// The pod is being deleted.
    pub terminating: Option<bool>,
}

/// Which port of a slice to use.
#[derive(Clone, Copy, Debug)]
pub struct PortChoice<'a> {
    /// Port names, the preferred one first.
    pub names: &'a [&'a str],
    /// The port of a slice that has none of these names.
    pub otherwise: u16,
}

/// One entry of a pod: smaller is better, family first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    family: Family,
    standing: Standing,
    address: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

/// The candidates that these slices name, sorted, each once.
pub fn candidates<'a>(
    slices: impl IntoIterator<Item = &'a Slice>,
    port: PortChoice<'_>,
) -> Vec<Candidate> {
    let mut best: BTreeMap<String, (Option<&'a str>, Entry)> = BTreeMap::new();
    for slice in slices {
        let port = port.of(&slice.ports);
        for endpoint in &slice.endpoints {
            let Some(entry) = Entry::of(endpoint, port) else { continue };
            // A pod name has no colon, so it never equals an address.
            let name = endpoint.pod.clone().unwrap_or_else(|| entry.address.to_string());
            match best.get_mut(&name) {
                Some((_, known)) if *known <= entry => {}
                _ => drop(best.insert(name, (endpoint.pod.as_deref(), entry))),
            }
        }
    }
    let mut candidates: Vec<Candidate> = best
        .into_values()
        .map(|(pod, entry)| Candidate {
            address: entry.address.to_string(),
            pod: pod.map(str::to_owned),
            standing: entry.standing,
        })
        .collect();
    // Two pods may share an address when one has just taken over the other's. The more alive one is there,
    // and sorts first; what it calls itself it says itself.
    candidates.sort_unstable();
    candidates.dedup_by(|later, first| later.address == first.address);
    candidates
}

// === impl PortChoice ===

impl PortChoice<'_> {
    fn of(&self, ports: &[(String, u16)]) -> u16 {
        let named = |name: &&str| ports.iter().find(|(known, _)| known == name);
        let chosen = self.names.iter().find_map(named);
        // A Service with a single port need not name it.
        let only = ports.first().filter(|(name, _)| ports.len() == 1 && name.is_empty());
        chosen.or(only).map_or(self.otherwise, |(_, port)| *port)
    }
}

// === impl Entry ===

impl Entry {
    /// `None` when the endpoint has no address that one can connect to.
    fn of(endpoint: &Endpoint, port: u16) -> Option<Self> {
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        let address = SocketAddr::new(address, port);
        Some(Self { family, standing: endpoint.conditions.standing(), address })
    }
}

// === impl Conditions ===

impl Conditions {
    /// What the conditions mean.
    pub fn standing(&self) -> Standing {
        let serving = self.serving.or(self.ready).unwrap_or(true);
        match (self.terminating.unwrap_or(false), serving) {
            (true, _) => Standing::Draining,
            (false, true) => Standing::Serving,
            (false, false) => Standing::Starting,
        }
    }
}

#[cfg(test)]
mod tests;
