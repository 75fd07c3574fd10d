//! A node image that does not exist: the rollout stops at the first pod, the condition reports why,
//! and the registry recovers when the image is restored.

use super::fixture::{Fixture, TIMEOUT};
use super::load::Load;
use super::nodes::Node;
use super::operator;
use crate::cluster::{OwnCluster, Request};
use crate::wait;
use anyhow::{Result, ensure};
use serde_json::json;

const REGISTRY: Fixture = Fixture::new("bad-image");
/// The pod with which a StatefulSet starts a rollout.
const FIRST: &str = "images-2";

/// Runs under load; no client fails.
pub async fn a_bad_image_stops_at_one_node(cluster: &OwnCluster) -> Result<()> {
    let registry = REGISTRY.create(cluster, &json!({"replicas": 3})).await?;
    let before = REGISTRY.nodes(cluster).await?;
    let mark = cluster.audit().mark()?;
    let load = Load::start(&registry);
    // The cluster's own registry has no image of this name.
    let image = REGISTRY.node_image(cluster).await?;
    let bad = format!("{image}-that-does-not-exist");
    REGISTRY.change(cluster, &json!({"nodeImage": bad})).await?;
    let message = REGISTRY.becomes(cluster, "Ready", "False", "RolloutStuck").await?;
    println!("Ready=False RolloutStuck: {message}");
    let is_reported =
        message.contains(FIRST) && ["ErrImagePull", "ImagePullBackOff"].iter().any(|why| message.contains(why));
    ensure!(is_reported, "the condition does not name the pod and the reason: {message}");
    // Meanwhile no other pod is replaced.
    load.goes_on(30).await?;
    let stuck = REGISTRY.nodes(cluster).await?;
    ensure!(serving(&stuck) == serving(&before)[..2], "other pods than before are serving: {stuck:?}");

    REGISTRY.change(cluster, &json!({"nodeImage": null})).await?;
    REGISTRY.until_settled(cluster).await?;
    load.goes_on(10).await?;
    load.stop().await?;
    let after = REGISTRY.nodes(cluster).await?;
    ensure!(
        serving(&after)[..2] == serving(&before)[..2],
        "healthy pods were replaced or restarted: {before:?}, then {after:?}"
    );
    let deleted = deleted(&cluster.audit().since(mark)?);
    println!("deleted pods: {deleted:?}");
    // Once by the rollout, and once while stuck, by the operator or the StatefulSet controller.
    let only_first = deleted.iter().all(|(name, _)| name == FIRST);
    ensure!(only_first && deleted.len() >= 2, "unexpected deletions: {deleted:?}");
    never_served(cluster, &bad).await?;
    REGISTRY.remove(cluster).await
}

/// A registry of which no pod was ever ready recovers in the same way, but all pods at once: the
/// StatefulSet controller alone would replace one after the other.
async fn never_served(cluster: &OwnCluster, bad: &str) -> Result<()> {
    let mark = cluster.audit().mark()?;
    REGISTRY.change(cluster, &json!({"replicas": 0})).await?;
    REGISTRY.becomes(cluster, "Ready", "False", "ScaledToZero").await?;
    wait::until("no pod is left", TIMEOUT, || async {
        REGISTRY.nodes(cluster).await.is_ok_and(|nodes| nodes.is_empty())
    })
    .await?;
    REGISTRY.change(cluster, &json!({"replicas": 3, "nodeImage": bad})).await?;
    REGISTRY.becomes(cluster, "Ready", "False", "NodesFailing").await?;
    REGISTRY.change(cluster, &json!({"nodeImage": null})).await?;
    REGISTRY.until_settled(cluster).await?;
    let deleted = deleted(&cluster.audit().since(mark)?);
    println!("deleted pods that were never ready: {deleted:?}");
    let by_operator = deleted.iter().any(|(_, user)| user == operator::USER);
    ensure!(by_operator, "the operator deleted no pod: {deleted:?}");
    Ok(())
}

/// The pods that were deleted, and by whom, in this order.
fn deleted(requests: &[Request]) -> Vec<(String, String)> {
    requests
        .iter()
        .filter(|request| request.object_ref.is(REGISTRY.namespace, "pods") && request.verb == "delete")
        // Without the kubelets' deletes, which follow the end of a pod.
        .filter(|request| request.succeeded() && request.user.username.starts_with("system:serviceaccount:"))
        .map(|request| (request.object_ref.name.clone(), request.user.username.clone()))
        .collect()
}

/// Name, uid and number of restarts of every ready pod.
fn serving(nodes: &[Node]) -> Vec<(&str, &str, i32)> {
    let ready = nodes.iter().filter(|node| node.ready && !node.terminating);
    ready.map(|node| (node.name.as_str(), node.uid.as_str(), node.restarts)).collect()
}
