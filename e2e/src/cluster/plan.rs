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

    /// Whether this machine routes none of these addresses, by its routing table (proc_pid_net(5),
    /// `route`).
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn is_free(self) -> Result<bool> {
        Ok(self.is_free_in(&std::fs::read_to_string("/proc/net/route").context("cannot read the routing table")?))
    }

    fn is_free_in(self, table: &str) -> bool {
        table.lines().skip(1).all(|line| {
            let mut fields = line.split_whitespace().skip(1);
            // The fields are little-endian hexadecimal.
            let number = |field: Option<&str>| u32::from_str_radix(field?, 16).ok().map(u32::swap_bytes);
            let (Some(destination), Some(mask)) = (number(fields.next()), number(fields.nth(5))) else { return true };
            let ours = u32::from(self.address(0, 0));
            // The default route matches every address and does not count.
            mask == 0 || (destination ^ ours) & mask & 0xffff_0000 != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
        eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n\
        eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
        tun0 0010C90A 00000000 0001 0 0 0 00F0FFFF 0 0 0\n";

    #[test]
    fn a_network_that_is_routed_elsewhere_is_not_used() {
        let free: Vec<_> = Plan::all().map(|plan| plan.is_free_in(TABLE)).collect();
        assert!(free[0]);
        assert!(!free[1], "10.201.16.0/20 is routed elsewhere");
        assert!(free[2]);
    }

    #[test]
    fn a_route_to_all_private_addresses_leaves_none() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask\nvpn 0000000A 0 1 0 0 0 000000FF\n";
        assert!(Plan::all().all(|plan| !plan.is_free_in(table)));
    }

    #[test]
    fn parts_of_a_cluster_do_not_overlap() {
        let plan = Plan { index: 3 };
        assert_eq!(plan.node(2).to_string(), "10.203.0.12");
        assert_eq!(plan.pods(1), "10.203.33.0/24");
        assert_eq!(plan.services(), "10.203.16.0/20");
    }
}
