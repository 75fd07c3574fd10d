//! Changed thresholds reach running nodes, which evict accordingly.

use super::fixture::Fixture;
use super::nodes::Node;
use crate::cluster::Cluster;
use crate::{Content, wait};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;

const REGISTRY: Fixture = Fixture::new("thresholds");
const REPOSITORY: &str = "thresholds";
const MIB: u64 = 1 << 20;
/// Content of each store in bytes; a store has 1 GiB.
const STORED: u64 = 96 * MIB;
/// The kubelet updates a changed ConfigMap at its next sync of the pod.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Nodes with less free space than a new lowFree evict until targetFree is reached, in the same
/// pods, without a restart. Evicted content is served from the bucket.
pub async fn thresholds_reach_running_nodes(cluster: &dyn Cluster) -> Result<()> {
    let registry = REGISTRY.create(cluster, &json!({"replicas": 2})).await?;
    let before = REGISTRY.nodes(cluster).await?;
    let contents: Vec<_> = (0..8).map(|_| Content::fresh(STORED / 8)).collect();
    for content in &contents {
        before[0].registry().push(REPOSITORY, content).await?;
        // So that the other node stores it as well.
        before[1].registry().pull(REPOSITORY, &content.digest).await?;
    }
    for node in &before {
        let store = node.status().await?.store;
        ensure!(store.used >= STORED && store.free > store.low_free, "unexpected store of {}: {store:?}", node.name);
        ensure!(node.metric("entrepot_evictions_total").await? == 0.0, "{} has already evicted content", node.name);
    }

    let start = std::time::Instant::now();
    REGISTRY.change(cluster, &json!({"store": {"lowFree": "95%", "targetFree": "976Mi"}})).await?;
    for node in &before {
        wait::until(&format!("{} has evicted content", node.name), TIMEOUT, || async {
            node.status().await.is_ok_and(|status| status.store.free >= 976 * MIB)
        })
        .await?;
        let status = node.status().await?;
        println!("{} after {:.1?}: {:?}", node.name, start.elapsed(), status.store);
        ensure!(status.store.target_free == 976 * MIB, "it evicted content for another reason: {status:?}");
        ensure!(status.config.waiting_for_restart.is_empty(), "it waits for a restart: {status:?}");
        let (removed, bytes) =
            (node.metric("entrepot_evictions_total").await?, node.metric("entrepot_evicted_bytes_total").await?);
        // Eight blobs of together 96 MiB are stored and 48 MiB may stay: exactly four are evicted.
        ensure!(
            removed == 4.0 && bytes == (STORED / 2) as f64,
            "{} evicted {removed} blobs of together {bytes} bytes",
            node.name
        );
    }
    wait::until("the status reports the thresholds of the nodes", TIMEOUT, || async {
        let cache = REGISTRY.object(cluster).await.map(|registry| registry.data["status"]["store"].clone());
        cache.is_ok_and(|cache| cache["thresholds"].as_str().is_some_and(|text| text.ends_with("/ 976Mi")))
    })
    .await?;
    let after = REGISTRY.nodes(cluster).await?;
    ensure!(unchanged(&before) == unchanged(&after), "pods were replaced or restarted: {before:?}, then {after:?}");
    for content in &contents {
        registry.pull(REPOSITORY, &content.digest).await?;
    }
    REGISTRY.remove(cluster).await
}

fn unchanged(nodes: &[Node]) -> Vec<(&str, i32)> {
    nodes.iter().map(|node| (node.uid.as_str(), node.restarts)).collect()
}
