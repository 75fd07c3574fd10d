//! The registry is scaled up and down while clients push and pull, and no client fails.

use super::fixture::{Fixture, TIMEOUT};
use super::load::Load;
use crate::cluster::{Cluster, Kubectl};
use crate::wait;
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Instant;

const REGISTRY: Fixture = Fixture::new("scaling");

/// From one pod to five and back to two, under load: no client fails, and every acknowledged image
/// is still available.
pub async fn scaling_loses_nothing(cluster: &dyn Cluster) -> Result<()> {
    let registry = REGISTRY.create(cluster, &json!({"replicas": 1})).await?;
    let load = Load::start(&registry);
    load.goes_on(5).await?;
    for replicas in [5, 2] {
        let start = Instant::now();
        let scale = format!("--replicas={replicas}");
        cluster.kubectl(["-n", REGISTRY.namespace, "scale", "rgc/images", &scale]).await?;
        REGISTRY.until_settled(cluster).await?;
        println!("{replicas} pods after {:.1?}", start.elapsed());
        load.goes_on(20).await?;
        let nodes = REGISTRY.nodes(cluster).await?;
        let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
        let wanted: Vec<_> = (0..replicas).map(|ordinal| format!("images-{ordinal}")).collect();
        ensure!(names == wanted, "unexpected pods: {names:?}");
        for node in &nodes {
            // The Service chooses a random pod for each connection, so each must get one only after
            // a while.
            let serves =
                || async { node.metric("entrepot_http_requests_total").await.is_ok_and(|served| served > 0.0) };
            wait::until(&format!("{} gets a request", node.name), TIMEOUT, serves).await?;
        }
        ensure!(nodes.iter().all(|node| node.restarts == 0), "pods were restarted: {nodes:?}");
    }
    load.stop().await?;
    REGISTRY.remove(cluster).await
}
