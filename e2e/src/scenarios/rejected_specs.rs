//! An invalid RegistryCluster is rejected when it is applied, with the field and the rule.

use super::deployment::{REGISTRY, manifest};
use crate::cluster::{Cluster, Kubectl};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Changes that make the valid registry invalid, and a part of the API server's message for each.
fn invalid_changes() -> [(Value, &'static str); 12] {
    [
        (json!({"spec": {"store": {"lowFree": "30%", "targetFree": "20%"}}}), "targetFree"),
        (json!({"spec": {"store": {"size": "512Mi"}}}), "size"),
        (json!({"spec": {"store": {"size": "large"}}}), "size"),
        (json!({"metadata": {"name": "a-name-that-is-longer-than-forty-characters"}}), "40"),
        (json!({"spec": {"bucket": {"auth": {"secretRef": null}}}}), "auth"),
        (json!({"spec": {"bucket": {"name": "another"}}}), "bucket"),
        (json!({"spec": {"bucket": {"insecure": false}}}), "must be https://"),
        (json!({"spec": {"resources": {"requests": {"memory": "lots"}}}}), "memory"),
        (json!({"spec": {"resources": {"limits": {"memory": -1}}}}), "memory"),
        (json!({"spec": {"podDisruptionBudget": {"maxUnavailable": 4_294_967_296_u64}}}), "maxUnavailable"),
        (json!({"spec": {"replicas": -1}}), "replicas"),
        (json!({"spec": {"replicas": null, "replicass": 3}}), "replicass"),
    ]
}

/// Every change is rejected, and the registry is not changed.
pub async fn an_invalid_registry_is_rejected(cluster: &dyn Cluster) -> Result<()> {
    let before = REGISTRY.object(cluster).await?.metadata.generation;
    for (change, message) in invalid_changes() {
        let mut manifest = manifest();
        json_patch::merge(&mut manifest, &change);
        let rejected = cluster.apply(&manifest.to_string()).await;
        let error = format!("{:#}", rejected.err().with_context(|| format!("{change} was admitted"))?);
        ensure!(error.contains(message), "{change}: {error}");
        println!("{change}: {}", error.lines().next_back().unwrap_or_default());
    }
    let after = REGISTRY.object(cluster).await?.metadata.generation;
    ensure!(before == after, "the registry was changed: generation {before:?}, then {after:?}");
    Ok(())
}
