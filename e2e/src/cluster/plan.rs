//! The addresses of a cluster. Each cluster has its own /16 network, so that several can run at the
//! same time.

use anyhow::{Context, Result};
use std::net::Ipv4Addr;

/// Maximum number of clusters; the first uses 10.200.0.0/16.
const CLUSTERS: u8 = 16;
const FIRST: u8 = 200;

/// The addresses of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its number among the clusters on this machine.
    pub index: u8,
}

impl Plan {
    /// All plans in order of preference.
    pub fn all() -> impl Iterator<Item = Plan> {
        (0..CLUSTERS).map(|index| Plan { index })
    }

    fn address(self, third: u8, fourth: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, FIRST + self.index, third, fourth)
    }

    /// The name of the host's end of the link to the cluster.
    pub fn host_link(self) -> String {
        format!("entrepot{}", self.index)
    }

    /// The address of the host for Kubernetes nodes and pods.
    pub fn host(self) -> Ipv4Addr {
        self.address(0, 1)
    }

    /// The machine with the bucket and the registry for the cluster's own images.
    pub fn storage(self) -> Ipv4Addr {
        self.address(0, 2)
    }

    /// A Kubernetes node; number 1 also runs the control plane.
    pub fn node(self, number: u8) -> Ipv4Addr {
        self.address(0, 10 + number)
    }

    /// The pod network of a Kubernetes node.
    pub fn pods(self, number: u8) -> String {
        format!("{}/24", self.address(32 + number, 0))
    }

    /// The pod networks of all Kubernetes nodes.
    pub fn all_pods(self) -> String {
        format!("{}/19", self.address(32, 0))
    }

    /// The network of Services.
    pub fn services(self) -> String {
        format!("{}/20", self.address(16, 0))
    }

    /// The Service of the API server, which always has the first address.
    pub fn kubernetes_service(self) -> Ipv4Addr {
        self.address(16, 1)
    }

    pub fn dns_service(self) -> Ipv4Addr {
        self.address(16, 10)
    }

    /// Whether this machine routes none of these addresses.
    ///
    /// # Errors
    /// If the routing table cannot be read.
    pub fn is_free(self) -> Result<bool> {
        let routes = procfs::net::route().context("cannot read the routing table")?;
        Ok(routes.iter().all(|route| self.is_free_of(route.destination, route.mask)))
    }

    fn is_free_of(self, destination: Ipv4Addr, mask: Ipv4Addr) -> bool {
        let (ours, destination, mask) = (u32::from(self.address(0, 0)), u32::from(destination), u32::from(mask));
        // The default route matches every address and does not count.
        mask == 0 || (destination ^ ours) & mask & 0xffff_0000 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_free(plan: Plan, routes: &[(&str, &str)]) -> bool {
        routes.iter().all(|(destination, mask)| plan.is_free_of(destination.parse().unwrap(), mask.parse().unwrap()))
    }

    #[test]
    fn a_network_that_is_routed_elsewhere_is_not_used() {
        let routes = [("0.0.0.0", "0.0.0.0"), ("192.0.2.0", "255.255.255.0"), ("10.201.16.0", "255.255.240.0")];
        let free: Vec<_> = Plan::all().map(|plan| is_free(plan, &routes)).collect();
        assert!(free[0]);
        assert!(!free[1], "10.201.16.0/20 is routed elsewhere");
        assert!(free[2]);
    }

    #[test]
    fn a_route_to_all_private_addresses_leaves_none() {
        assert!(Plan::all().all(|plan| !is_free(plan, &[("10.0.0.0", "255.0.0.0")])));
    }

    #[test]
    fn parts_of_a_cluster_do_not_overlap() {
        let plan = Plan { index: 3 };
        assert_eq!(plan.node(2).to_string(), "10.203.0.12");
        assert_eq!(plan.pods(1), "10.203.33.0/24");
        assert_eq!(plan.services(), "10.203.16.0/20");
    }
}
