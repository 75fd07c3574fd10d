//! A HorizontalPodAutoscaler scales the registry, and the operator follows it.

use super::fixture::Fixture;
use super::operator;
use crate::cluster::{Kubectl, OwnCluster};
use crate::{Content, Registry, wait};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const REGISTRY: Fixture = Fixture::new("autoscaled");
const REPOSITORY: &str = "autoscaled";
/// Metrics of pods are collected every ten seconds, and the autoscaler ignores the first twenty
/// seconds of a pod.
const TIMEOUT: Duration = Duration::from_secs(180);
/// Number of clients that pull as fast as they can.
const CLIENTS: usize = 4;

/// Scales by the CPU usage of the registry pods under load, through the scale subresource.
pub async fn an_autoscaler_scales_the_registry(cluster: &OwnCluster) -> Result<()> {
    let spec = json!({"replicas": 1, "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}}});
    let registry = REGISTRY.create(cluster, &spec).await?;
    let content = Content::fresh(1 << 20);
    registry.push(REPOSITORY, &content).await?;
    let mark = cluster.audit().mark()?;
    cluster.apply(&autoscaler().to_string()).await?;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(pull(registry.clone(), content));
    }
    let start = Instant::now();
    let scaled = wait::until("the autoscaler has requested three pods", TIMEOUT, || async {
        REGISTRY.object(cluster).await.is_ok_and(|registry| registry.data["spec"]["replicas"] == json!(3))
    })
    .await;
    // Stopped even after a failure, so that the load does not disturb other scenarios.
    clients.shutdown().await;
    if let Err(error) = scaled {
        return Err(error).context(cluster.kubectl(["-n", REGISTRY.namespace, "describe", "hpa"]).await?);
    }
    println!("the autoscaler requested three pods after {:.1?}", start.elapsed());
    // Without the load it requests fewer pods again, and the operator follows every request.
    wait::until("the autoscaler has requested one pod again", TIMEOUT, || async {
        REGISTRY.object(cluster).await.is_ok_and(|registry| registry.data["spec"]["replicas"] == json!(1))
    })
    .await?;
    REGISTRY.until_settled(cluster).await?;
    println!("scaled back to one pod after {:.1?}", start.elapsed());

    let requests = cluster.audit().since(mark)?;
    let writes = |resource: &str| {
        let about =
            requests.iter().filter(|request| request.is_write() && request.object_ref.is(REGISTRY.namespace, resource));
        about.map(|request| request.user.username.as_str()).collect::<Vec<_>>()
    };
    let scales = writes("registryclusters/scale");
    const AUTOSCALER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
    ensure!(scales.len() >= 2 && scales.iter().all(|user| *user == AUTOSCALER), "scaled by {scales:?}");
    let specs = writes("registryclusters");
    ensure!(specs.is_empty(), "the spec was written by {specs:?}");
    // One write per request of the autoscaler and no more: the operator does not revert it.
    let sets = writes("statefulsets");
    println!("scale requests of the autoscaler: {}; writes of the StatefulSet: {}", scales.len(), sets.len());
    ensure!(sets.iter().all(|user| *user == operator::USER), "the StatefulSet was written by {sets:?}");
    ensure!(sets.len() <= scales.len(), "scale requests: {}; writes of the StatefulSet: {}", scales.len(), sets.len());
    REGISTRY.remove(cluster).await
}

async fn pull(registry: Registry, content: Content) {
    loop {
        // A new connection each time, so that new pods get requests as well. Failures are checked
        // by other scenarios.
        let _ = Registry::new(registry.url()).pull(REPOSITORY, &content.digest).await;
    }
}

fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "images", "namespace": REGISTRY.namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": "entrepot.dev/v1alpha1", "kind": "RegistryCluster", "name": "images"},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 200}},
            }],
            "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 5, "periodSeconds": 5}]}},
        },
    })
}
