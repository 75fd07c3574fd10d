//! An upgrade of the operator restarts no registry pod.

use super::fixture::Fixture;
use super::{deployment, operator};
use crate::cluster::{Cluster, Kubectl};
use crate::container;
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;

const REGISTRY: Fixture = Fixture::new("operator-upgrade");

/// The operator gets another image and other values: its pods are replaced, every registry pod
/// stays the same, and a change of the registry afterwards is applied.
pub async fn an_upgrade_restarts_no_node(cluster: &dyn Cluster) -> Result<()> {
    REGISTRY.create(cluster, &json!({"replicas": 2})).await?;
    let before = REGISTRY.nodes(cluster).await?;
    let set = REGISTRY.stateful_set(cluster).await?;
    let operators = uids(cluster).await?;
    let image = cluster.load_image(&container::operator()?, "entrepot-operator:upgraded").await?;
    let (_, tag) = image.rsplit_once(':').context("the image name has no tag")?;
    let tag = format!("image.tag={tag}");
    let allowed = "allowed.serviceAnnotations={applied-by}";
    let values = ["--reuse-values", "--set", &tag, "--set", "logLevel=debug", "--set", allowed];
    deployment::helm(cluster, "upgrade", &values).await?;
    operator::until_rolled_out(cluster).await?;
    let leader = operator::leader(cluster).await?;
    let upgraded = uids(cluster).await?;
    ensure!(upgraded.len() == 2, "the operator has {} pods", upgraded.len());
    ensure!(upgraded.iter().all(|uid| !operators.contains(uid)), "the operator's pods are the same: {upgraded:?}");

    // When the new leader has applied this change, its first reconciliation is over.
    let labels = json!({"service": {"annotations": {"applied-by": leader.name_any()}}});
    REGISTRY.change(cluster, &labels).await?;
    REGISTRY.until_settled(cluster).await?;
    let annotation = "jsonpath={.metadata.annotations.applied-by}";
    let annotation = cluster.kubectl(["-n", REGISTRY.namespace, "get", "service/images", "-o", annotation]).await?;
    ensure!(annotation == leader.name_any(), "unexpected annotation of the Service: {annotation:?}");
    let after = REGISTRY.nodes(cluster).await?;
    ensure!(before == after, "pods were replaced or restarted: {before:?}, then {after:?}");
    let generation = REGISTRY.stateful_set(cluster).await?.metadata.generation;
    ensure!(generation == set.metadata.generation, "the StatefulSet was changed");
    REGISTRY.remove(cluster).await
}

async fn uids(cluster: &dyn Cluster) -> Result<Vec<String>> {
    Ok(operator::pods(cluster).await?.iter().filter_map(|pod| pod.uid()).collect())
}
