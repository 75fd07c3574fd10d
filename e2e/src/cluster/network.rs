//! The network between the machines: a bridge in the storage machine, a link from it to each
//! machine, and one to the host.
//!
//! Everything except the host's end of that one link is in the machines' namespaces, and that end
//! disappears with its other end.

use super::machine::Machine;
use super::plan::Plan;
use anyhow::Result;
use tokio::process::Command;

/// Connects all machines. `nodes` are in the order of their numbers, from 1.
///
/// # Errors
/// If the kernel refuses.
pub async fn connect(plan: Plan, storage: &Machine, nodes: &[Machine]) -> Result<()> {
    for command in [
        // Frames between machines bypass the firewall.
        "sysctl -qw --ignore net.bridge.bridge-nf-call-iptables=0".to_owned(),
        "ip link add name switch type bridge".to_owned(),
        format!("ip address add {}/24 dev switch", plan.storage()),
        "ip link set switch up".to_owned(),
    ] {
        storage.network(&command).await?;
    }
    host(&format!("ip link add name {} type veth peer name host netns {}", plan.host_link(), storage.init().pid))
        .await?;
    storage.network("ip link set host master switch up").await?;
    host(&format!("ip address add {}/24 dev {}", plan.host(), plan.host_link())).await?;
    host(&format!("ip link set {} up", plan.host_link())).await?;
    for (node, number) in nodes.iter().zip(1..) {
        let port = format!("port{number}");
        let peer = node.init().pid;
        storage.network(&format!("ip link add name {port} type veth peer name eth0 netns {peer}")).await?;
        storage.network(&format!("ip link set {port} master switch up")).await?;
        node.network(&format!("ip address add {}/24 dev eth0", plan.node(number))).await?;
        node.network("ip link set eth0 up").await?;
        // A Service address is translated to a pod's only after routing, so a route for it must
        // exist.
        node.network(&format!("ip route add {} dev eth0", plan.services())).await?;
        // There is no route to the outside, so such connections fail at once.
        node.network("ip route add unreachable default").await?;
    }
    let count = u8::try_from(nodes.len())?;
    for number in 1..=count {
        let route = format!("ip route add {} via {}", plan.pods(number), plan.node(number));
        host(&route).await?;
        storage.network(&route).await?;
        for (node, other) in nodes.iter().zip(1..) {
            if other != number {
                node.network(&route).await?;
            }
        }
    }
    // From outside, Services are reached through the first Kubernetes node, because every
    // kube-proxy knows all of them.
    let route = format!("ip route add {} via {}", plan.services(), plan.node(1));
    host(&route).await?;
    storage.network(&route).await.map(drop)
}

async fn host(command: &str) -> Result<()> {
    let mut words = command.split_whitespace();
    let mut program = Command::new(words.next().unwrap_or_default());
    crate::commands::run(program.args(words)).await.map(drop)
}
