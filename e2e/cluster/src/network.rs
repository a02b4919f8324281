//! Addresses and interfaces of a cluster: one network namespace with a bridge, one more for each node.
//!
//! The range 198.18.0.0/15 is set aside for tests of network devices (RFC 2544), so nothing that this
//! machine talks to lies in it. Each cluster has 16 of its 512 blocks of 256 addresses: block 0 for
//! machines, 1 for services, and one for the pods of each node. The machine itself is a neighbour on the
//! bridge: pods can be reached from it directly, and nothing is translated or filtered on the way.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::command;
use crate::error::Error;

/// Nodes of one cluster: what its 16 blocks leave, of which two are taken and one is spare.
pub(crate) const NODES_MAX: u8 = 12;

const BLOCKS_PER_CLUSTER: u8 = 16;
const MACHINES: u8 = 0;
const SERVICES: u8 = 1;
const PODS: u8 = 2;

/// The addresses of the cluster in one slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    slot: u8,
}

// === impl Addresses ===

impl Addresses {
    pub(crate) fn new(slot: u8) -> Self {
        Self { slot }
    }

    fn address(self, block: u8, host: u8) -> Ipv4Addr {
        let clusters_per_16_bits = u8::MAX / BLOCKS_PER_CLUSTER + 1;
        let second = 18 + self.slot / clusters_per_16_bits;
        let third = self.slot % clusters_per_16_bits * BLOCKS_PER_CLUSTER + block;
        Ipv4Addr::new(198, second, third, host)
    }

    /// Where the API server listens; the bridge.
    pub(crate) fn control_plane(self) -> Ipv4Addr {
        self.address(MACHINES, 1)
    }

    /// This machine, on the bridge.
    pub(crate) fn host(self) -> Ipv4Addr {
        self.address(MACHINES, 2)
    }

    /// Node 1, 2, ...
    pub(crate) fn node(self, number: u8) -> Ipv4Addr {
        self.address(MACHINES, 10 + number)
    }

    /// The range of service addresses.
    pub(crate) fn services(self) -> String {
        format!("{}/24", self.address(SERVICES, 0))
    }

    /// The address of the service `kubernetes`.
    pub(crate) fn first_service(self) -> Ipv4Addr {
        self.address(SERVICES, 1)
    }

    /// The range of a node's pods.
    pub(crate) fn pods(self, node: u8) -> String {
        format!("{}/24", self.address(PODS + node, 0))
    }

    /// The range of the whole cluster.
    pub(crate) fn all(self) -> String {
        format!("{}/20", self.address(MACHINES, 0))
    }
}

/// Makes the cluster's namespace; fails if there is one of this name.
pub(crate) fn claim(name: &str) -> Result<(), Error> {
    ip(&["netns", "add", name])
}

/// Furnishes the cluster's namespace, with a bridge that this machine is on as well.
pub(crate) fn create(name: &str, addresses: Addresses) -> Result<(), Error> {
    let bridge = format!("{}/24", addresses.control_plane());
    let host = format!("{}/24", addresses.host());
    ip(&["-n", name, "link", "set", "lo", "up"])?;
    ip(&["-n", name, "link", "add", "br0", "type", "bridge"])?;
    ip(&["-n", name, "addr", "add", &bridge, "dev", "br0"])?;
    ip(&["-n", name, "link", "set", "br0", "up"])?;
    ip(&["link", "add", name, "type", "veth", "peer", "name", "host", "netns", name])?;
    ip(&["-n", name, "link", "set", "host", "master", "br0", "up"])?;
    ip(&["addr", "add", &host, "dev", name])?;
    ip(&["link", "set", name, "up"])
}

/// Makes the namespace of a node, on the bridge of its cluster, with routes to the pods of its neighbours.
pub(crate) fn add_node(name: &str, addresses: Addresses, number: u8) -> Result<(), Error> {
    let (space, port) = (node_space(name, number), format!("n{number}"));
    let own = addresses.node(number).to_string();
    ip(&["netns", "add", &space])?;
    ip(&[
        "-n", name, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space,
    ])?;
    ip(&["-n", name, "link", "set", &port, "master", "br0", "up"])?;
    ip(&["-n", &space, "link", "set", "lo", "up"])?;
    ip(&["-n", &space, "addr", "add", &format!("{own}/24"), "dev", "eth0"])?;
    ip(&["-n", &space, "link", "set", "eth0", "up"])?;
    let gateway = addresses.control_plane().to_string();
    ip(&["-n", &space, "route", "add", "default", "via", &gateway])?;
    // Routes do not ask whether the neighbour is there, so every node can have all of them from the start.
    for other in (1..=NODES_MAX).filter(|other| *other != number) {
        let (pods, via) = (addresses.pods(other), addresses.node(other).to_string());
        ip(&["-n", &space, "route", "add", &pods, "via", &via, "dev", "eth0"])?;
    }
    let pods = addresses.pods(number);
    ip(&["-n", name, "route", "replace", &pods, "via", &own, "dev", "br0"])?;
    ip(&["route", "replace", &pods, "via", &own, "dev", name])?;
    // Service addresses are turned into pods' by the first node for whoever is not a node.
    if number == 1 {
        let services = addresses.services();
        ip(&["-n", name, "route", "replace", &services, "via", &own, "dev", "br0"])?;
        ip(&["route", "replace", &services, "via", &own, "dev", name])?;
    }
    Ok(())
}

/// Takes a node off the bridge and removes its namespace.
pub(crate) fn remove_node(name: &str, number: u8) {
    // The namespace's own end goes later, in the background; a new cable would find the old one still there.
    let _ = ip(&["-n", name, "link", "del", &format!("n{number}")]);
    let _ = ip(&["netns", "del", &node_space(name, number)]);
}

/// Cuts or mends the cable between a node and the bridge.
pub(crate) fn connect_node(name: &str, number: u8, connected: bool) -> Result<(), Error> {
    let state = if connected { "up" } else { "down" };
    ip(&["-n", name, "link", "set", &format!("n{number}"), state])
}

/// The name of a node's network namespace.
pub(crate) fn node_space(name: &str, number: u8) -> String {
    format!("{name}-n{number}")
}

/// The file by which a network namespace is entered.
pub(crate) fn space_file(space: &str) -> String {
    format!("/run/netns/{space}")
}

/// Whether a namespace of this name exists.
pub(crate) fn exists(name: &str) -> bool {
    Path::new(&space_file(name)).exists()
}

/// Removes every namespace of a cluster, and with them its interfaces, also the one on this machine.
pub(crate) fn remove(name: &str) {
    for number in 1..=NODES_MAX {
        if exists(&node_space(name, number)) {
            remove_node(name, number);
        }
    }
    if exists(name) {
        let _ = ip(&["link", "del", name]);
        let _ = ip(&["netns", "del", name]);
    }
}

fn ip(args: &[&str]) -> Result<(), Error> {
    command::run("ip", args).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_side_by_side_share_no_address() {
        let mut blocks = std::collections::BTreeSet::new();
        for slot in 0..32 {
            let addresses = Addresses::new(slot);
            assert!(blocks.insert(addresses.control_plane().octets()[..3].to_vec()));
            assert!(blocks.insert(addresses.first_service().octets()[..3].to_vec()));
            for node in 1..=NODES_MAX {
                let pods: Vec<_> = addresses.pods(node).split('.').map(str::to_owned).collect();
                let block = pods[..3].iter().filter_map(|part| part.parse().ok()).collect();
                assert!(blocks.insert(block), "slot {slot} node {node}");
            }
        }
        assert!(blocks.iter().all(|block| block[0] == 198 && (block[1] == 18 || block[1] == 19)));
    }
}
