//! Manual changes and deletions are reverted, and the log reports them.

use super::deployment::REGISTRY;
use crate::cluster::{Cluster, Kubectl};
use crate::wait;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Time limit for the operator to revert a change.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The objects of the registry `images`, each with a change that must be reverted.
const CHILDREN: [(&str, &str); 6] = [
    ("configmap/images-config", r#"{"data":{"config.yaml":"readOnly: true"}}"#),
    ("service/images", r#"{"spec":{"selector":{"app.kubernetes.io/name":"another"}}}"#),
    ("service/images-nodes", r#"{"spec":{"publishNotReadyAddresses":false}}"#),
    ("serviceaccount/images", r#"{"automountServiceAccountToken":true}"#),
    ("poddisruptionbudget/images", r#"{"spec":{"maxUnavailable":3}}"#),
    ("statefulset/images", r#"{"spec":{"replicas":1}}"#),
];

/// Changes each object, then deletes it.
pub async fn drift_is_reverted(cluster: &dyn Cluster) -> Result<()> {
    for (child, edit) in CHILDREN {
        let spec = spec_of(cluster, child).await?;
        cluster.kubectl(["-n", REGISTRY.namespace, "patch", child, "--type=merge", "-p", edit]).await?;
        wait::until(&format!("{child} is restored"), TIMEOUT, || async {
            spec_of(cluster, child).await.is_ok_and(|now| now == spec)
        })
        .await?;
        let uid = uid_of(cluster, child).await?;
        // Orphaned, so that the pods of a deleted StatefulSet stay: this scenario is not about
        // deleting a registry. Without waiting: if an object of the same name is recreated before
        // kubectl's watch starts, kubectl misses the deletion and never returns.
        cluster.kubectl(["-n", REGISTRY.namespace, "delete", child, "--cascade=orphan", "--wait=false"]).await?;
        wait::until(&format!("{child} is recreated"), TIMEOUT, || async {
            uid_of(cluster, child).await.is_ok_and(|now| now != uid)
                && spec_of(cluster, child).await.is_ok_and(|now| comparable(&now) == comparable(&spec))
        })
        .await?;
    }
    let log = ["-n", "entrepot-system", "logs", "--selector=app.kubernetes.io/name=entrepot-operator", "--tail=-1"];
    let log = cluster.kubectl(log).await?;
    for (child, _) in CHILDREN {
        let (_, name) = child.split_once('/').unwrap_or_default();
        for cause in ["reverted changes by another field manager", "recreated an object that was deleted"] {
            ensure!(
                log.lines().any(|line| line.contains(cause) && line.contains(name)),
                "the operator's log has no line \"{cause}\" for {child}\n{log}"
            );
        }
    }
    let ready = ["-n", REGISTRY.namespace, "wait", "--for=condition=Ready", "rgc/images", "--timeout=120s"];
    cluster.kubectl(ready).await.map(drop)
}

/// The parts of an object that the operator may own.
async fn spec_of(cluster: &dyn Cluster, child: &str) -> Result<serde_json::Value> {
    let mut object = object(cluster, child).await?;
    for own in ["metadata", "status"] {
        object.as_object_mut().map(|object| object.remove(own));
    }
    Ok(object)
}

/// The spec without fields that the API server assigns at creation.
fn comparable(spec: &serde_json::Value) -> serde_json::Value {
    let mut spec = spec.clone();
    if let Some(spec) = spec["spec"].as_object_mut() {
        spec.retain(|field, _| field != "clusterIP" && field != "clusterIPs");
    }
    spec
}

async fn uid_of(cluster: &dyn Cluster, child: &str) -> Result<String> {
    Ok(object(cluster, child).await?["metadata"]["uid"].to_string())
}

async fn object(cluster: &dyn Cluster, child: &str) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&cluster.kubectl(["-n", REGISTRY.namespace, "get", child, "-o", "json"]).await?)?)
}
