//! A node image that cannot be: the rollout stops at the first node, says why, and heals when it is taken back.

use super::load::Load;
use super::operator;
use super::pods::{self, Node};
use crate::cluster::{Cluster, Request};
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::json;

const NAMESPACE: &str = "bad-image";
/// The node from which a StatefulSet begins a rollout.
const FIRST: &str = "images-2";

/// Under load, which nobody fails.
pub async fn a_bad_image_stops_at_one_node(cluster: &Cluster) -> Result<()> {
    let registry = pods::make(cluster, NAMESPACE, &json!({"replicas": 3})).await?;
    let before = pods::nodes(cluster, NAMESPACE).await?;
    let mark = cluster.audit().mark()?;
    let load = Load::start(&registry);
    // The registry of the cluster's own images has none of this name.
    let image = pods::image(cluster, NAMESPACE).await?;
    let bad = format!("{image}-that-nobody-built");
    pods::change(cluster, NAMESPACE, &json!({"image": bad})).await?;
    let message = pods::until_reason(cluster, NAMESPACE, "Ready", "RolloutStuck").await?;
    println!("Ready=False RolloutStuck: {message}");
    let told = message.contains(FIRST) && ["ErrImagePull", "ImagePullBackOff"].iter().any(|why| message.contains(why));
    ensure!(told, "the condition does not say which node and why: {message}");
    let status = pods::condition(cluster, NAMESPACE, "Ready").await?.context("no condition")?.status;
    ensure!(status == "False", "Ready is {status}");
    // For as long as all of this takes, nobody else goes.
    load.goes_on(30).await?;
    let stuck = pods::nodes(cluster, NAMESPACE).await?;
    ensure!(serving(&stuck) == serving(&before)[..2], "not the nodes that served before: {stuck:?}");

    pods::change(cluster, NAMESPACE, &json!({"image": null})).await?;
    pods::until_settled(cluster, NAMESPACE).await?;
    load.goes_on(10).await?;
    load.stop().await?;
    let after = pods::nodes(cluster, NAMESPACE).await?;
    ensure!(serving(&after)[..2] == serving(&before)[..2], "healthy nodes were restarted: {before:?}, then {after:?}");
    let deleted = deleted(&cluster.audit().since(mark)?);
    println!("deleted: {deleted:?}");
    // Once by the rollout, and once the one that was stuck, by whoever came first.
    let only_first = deleted.iter().all(|(name, _)| name == FIRST);
    ensure!(only_first && deleted.len() >= 2, "deleted were {deleted:?}");
    never_served(cluster, &bad).await?;
    pods::remove(cluster, NAMESPACE).await
}

/// A registry of which no node ever served heals just so, and all at once: a StatefulSet would go from node to node.
async fn never_served(cluster: &Cluster, bad: &str) -> Result<()> {
    let mark = cluster.audit().mark()?;
    pods::change(cluster, NAMESPACE, &json!({"replicas": 0})).await?;
    pods::until_reason(cluster, NAMESPACE, "Ready", "ScaledToZero").await?;
    wait::until("no node is left", pods::SOON, || async {
        pods::nodes(cluster, NAMESPACE).await.is_ok_and(|nodes| nodes.is_empty())
    })
    .await?;
    pods::change(cluster, NAMESPACE, &json!({"replicas": 3, "image": bad})).await?;
    pods::until_reason(cluster, NAMESPACE, "Ready", "NodesFailing").await?;
    pods::change(cluster, NAMESPACE, &json!({"image": null})).await?;
    pods::until_settled(cluster, NAMESPACE).await?;
    let deleted = deleted(&cluster.audit().since(mark)?);
    println!("of those that never served, deleted: {deleted:?}");
    let by_operator = deleted.iter().any(|(_, user)| user == operator::USER);
    ensure!(by_operator, "the operator left it to others: {deleted:?}");
    Ok(())
}

/// The pods that were deleted, and by whom, in this order.
fn deleted(requests: &[Request]) -> Vec<(String, String)> {
    requests
        .iter()
        .filter(|request| request.object_ref.is(NAMESPACE, "pods") && request.verb == "delete")
        // When a pod has ended, its kubelet takes it off the list.
        .filter(|request| request.succeeded() && request.user.username.starts_with("system:serviceaccount:"))
        .map(|request| (request.object_ref.name.clone(), request.user.username.clone()))
        .collect()
}

/// The nodes that are ready, by name and uid, and how often each was restarted.
fn serving(nodes: &[Node]) -> Vec<(&str, &str, i32)> {
    let ready = nodes.iter().filter(|node| node.ready && !node.going);
    ready.map(|node| (node.name.as_str(), node.uid.as_str(), node.restarts)).collect()
}
