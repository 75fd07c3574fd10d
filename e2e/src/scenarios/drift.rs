//! What somebody edits or deletes by hand is put back, and the log says what it was.

use super::NAMESPACE;
use crate::cluster::Cluster;
use crate::wait;
use anyhow::{Result, ensure};
use std::time::Duration;

/// Within this the operator has put anything back.
const SOON: Duration = Duration::from_secs(60);

/// The children of the registry `images`, with an edit of each that must not stay.
const CHILDREN: [(&str, &str); 6] = [
    ("configmap/images-config", r#"{"data":{"config.yaml":"readOnly: true"}}"#),
    ("service/images", r#"{"spec":{"selector":{"app.kubernetes.io/name":"another"}}}"#),
    ("service/images-nodes", r#"{"spec":{"publishNotReadyAddresses":false}}"#),
    ("serviceaccount/images", r#"{"automountServiceAccountToken":true}"#),
    ("poddisruptionbudget/images", r#"{"spec":{"maxUnavailable":3}}"#),
    ("statefulset/images", r#"{"spec":{"replicas":1}}"#),
];

/// Each child, edited and then deleted.
pub async fn drift_is_put_back(cluster: &Cluster) -> Result<()> {
    for (child, edit) in CHILDREN {
        let spec = spec_of(cluster, child).await?;
        cluster.kubectl(["-n", NAMESPACE, "patch", child, "--type=merge", "-p", edit]).await?;
        wait::until(&format!("{child} is as it was"), SOON, || async {
            spec_of(cluster, child).await.is_ok_and(|now| now == spec)
        })
        .await?;
        let uid = uid_of(cluster, child).await?;
        // Its own pods stay with a StatefulSet that is deleted so, as nobody would delete a registry by accident. kubectl
        // does not wait: when the next of the same name comes before its watch begins, it misses the end and never ends.
        cluster.kubectl(["-n", NAMESPACE, "delete", child, "--cascade=orphan", "--wait=false"]).await?;
        wait::until(&format!("{child} is there again"), SOON, || async {
            uid_of(cluster, child).await.is_ok_and(|now| now != uid)
                && spec_of(cluster, child).await.is_ok_and(|now| comparable(&now) == comparable(&spec))
        })
        .await?;
    }
    let log = ["-n", "entrepot-system", "logs", "--selector=app.kubernetes.io/name=entrepot-operator", "--tail=-1"];
    let log = cluster.kubectl(log).await?;
    for (child, _) in CHILDREN {
        let (_, name) = child.split_once('/').unwrap_or_default();
        for cause in ["put back what was changed by hand", "put back what somebody had deleted"] {
            ensure!(
                log.lines().any(|line| line.contains(cause) && line.contains(name)),
                "the operator's log does not say of {child}: {cause}\n{log}"
            );
        }
    }
    let ready = ["-n", NAMESPACE, "wait", "--for=condition=Ready", "rgc/images", "--timeout=120s"];
    cluster.kubectl(ready).await.map(drop)
}

/// All that the operator may have an opinion about.
async fn spec_of(cluster: &Cluster, child: &str) -> Result<serde_json::Value> {
    let mut object = object(cluster, child).await?;
    for own in ["metadata", "status"] {
        object.as_object_mut().map(|object| object.remove(own));
    }
    Ok(object)
}

/// Without what the API server chooses when an object is made.
fn comparable(spec: &serde_json::Value) -> serde_json::Value {
    let mut spec = spec.clone();
    if let Some(spec) = spec["spec"].as_object_mut() {
        spec.retain(|field, _| field != "clusterIP" && field != "clusterIPs");
    }
    spec
}

async fn uid_of(cluster: &Cluster, child: &str) -> Result<String> {
    Ok(object(cluster, child).await?["metadata"]["uid"].to_string())
}

async fn object(cluster: &Cluster, child: &str) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&cluster.kubectl(["-n", NAMESPACE, "get", child, "-o", "json"]).await?)?)
}
