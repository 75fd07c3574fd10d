//! An upgrade of the operator restarts no node.

use super::{operator, pods, registry};
use crate::cluster::Cluster;
use crate::container;
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;

const NAMESPACE: &str = "upgraded";

/// Another image of the operator, and other values of its own: its pods are new, every node is the one it was, and what is
/// asked for afterwards is done.
pub async fn an_upgrade_restarts_no_node(cluster: &Cluster) -> Result<()> {
    pods::make(cluster, NAMESPACE, &json!({"replicas": 2})).await?;
    let before = pods::nodes(cluster, NAMESPACE).await?;
    let set = pods::set(cluster, NAMESPACE).await?;
    let operators = uids(cluster).await?;
    let image = cluster.load(&container::operator()?, "entrepot-operator:upgraded").await?;
    let (_, tag) = image.rsplit_once(':').context("a name without a tag")?;
    let tag = format!("image.tag={tag}");
    let values = ["--reuse-values", "--set", &tag, "--set", "logLevel=debug", "--set", "resources.requests.cpu=30m"];
    registry::helm(cluster, "upgrade", &values).await?;
    operator::until_rolled_out(cluster).await?;
    let leader = operator::leader(cluster).await?;
    let upgraded = uids(cluster).await?;
    ensure!(upgraded.len() == 2, "the operator has {} pods", upgraded.len());
    ensure!(upgraded.iter().all(|uid| !operators.contains(uid)), "the operator's pods are the same: {upgraded:?}");

    // The new leader's first pass is over when it has done what is asked of it now.
    let labels = json!({"service": {"annotations": {"asked-of": leader.name_any()}}});
    pods::change(cluster, NAMESPACE, &labels).await?;
    pods::until_settled(cluster, NAMESPACE).await?;
    let annotation = "jsonpath={.metadata.annotations.asked-of}";
    let annotation = cluster.kubectl(["-n", NAMESPACE, "get", "service/images", "-o", annotation]).await?;
    ensure!(annotation == leader.name_any(), "the Service says {annotation:?}");
    let after = pods::nodes(cluster, NAMESPACE).await?;
    ensure!(before == after, "nodes were restarted: {before:?}, then {after:?}");
    let generation = pods::set(cluster, NAMESPACE).await?.metadata.generation;
    ensure!(generation == set.metadata.generation, "the StatefulSet was changed");
    pods::remove(cluster, NAMESPACE).await
}

async fn uids(cluster: &Cluster) -> Result<Vec<String>> {
    Ok(operator::pods(cluster).await?.iter().filter_map(|pod| pod.uid()).collect())
}
