//! The network between machines: a bridge in the storage machine, a wire from it to each, and one to the host.
//!
//! All of it but the host's end of one wire is in namespaces of machines, and that end goes with its other one.

use super::machine::Machine;
use super::plan::Plan;
use anyhow::Result;
use tokio::process::Command;

/// Wires everything. `nodes` are in the order of their numbers, from 1.
///
/// # Errors
/// When the kernel refuses.
pub async fn connect(plan: Plan, storage: &Machine, nodes: &[Machine]) -> Result<()> {
    for command in [
        // Frames between machines pass no firewall on their way.
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
        // A Service's address becomes a pod's after the way is chosen, so that there must be one.
        node.network(&format!("ip route add {} dev eth0", plan.services())).await?;
        // There is no way out: what is asked for outside fails at once.
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
    // From outside, Services answer at the first node: its kube-proxy knows all of them.
    let route = format!("ip route add {} via {}", plan.services(), plan.node(1));
    host(&route).await?;
    storage.network(&route).await.map(drop)
}

async fn host(command: &str) -> Result<()> {
    let mut words = command.split_whitespace();
    let mut program = Command::new(words.next().unwrap_or_default());
    crate::commands::run(program.args(words)).await.map(drop)
}
