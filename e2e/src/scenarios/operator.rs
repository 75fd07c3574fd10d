//! The operator as a scenario finds it: its pods, its Lease, its user.

use super::pods::SOON;
use crate::cluster::Cluster;
use crate::wait;
use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::wait::await_condition;
use std::time::Duration;

pub const NAMESPACE: &str = "entrepot-system";
/// Of its Deployment, its Lease and its ServiceAccount, as the chart names them for the release `entrepot`.
pub const NAME: &str = "entrepot-operator";
/// Who it is to the API server.
pub const USER: &str = "system:serviceaccount:entrepot-system:entrepot-operator";

/// Its pods that nobody is deleting.
///
/// # Errors
/// When the API server does not say.
pub async fn pods(cluster: &Cluster) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(cluster.client().clone(), NAMESPACE);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
    let mut pods = pods.list(&ours).await?.items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

fn leases(cluster: &Cluster) -> Api<Lease> {
    Api::namespaced(cluster.client().clone(), NAMESPACE)
}

/// The pod that leads.
///
/// # Errors
/// When none does in time.
pub async fn leader(cluster: &Cluster) -> Result<Pod> {
    wait::value("one of the operator's pods leads", SOON, || async {
        let holder = leases(cluster).get(NAME).await.ok()?.spec?.holder_identity?;
        pods(cluster).await.ok()?.into_iter().find(|pod| pod.name_any() == holder)
    })
    .await
}

/// When the leader last said so, by its own clock.
///
/// # Errors
/// When nobody leads.
pub async fn renewed(cluster: &Cluster) -> Result<Timestamp> {
    renewal(&leases(cluster).get(NAME).await?).context("a Lease that was never renewed")
}

fn renewal(lease: &Lease) -> Option<Timestamp> {
    Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)
}

/// Waits until the leader has led for so long after `begin`.
///
/// # Errors
/// When that is not said until `late` after it.
pub async fn until_renewed_after(cluster: &Cluster, begin: Timestamp, time: Duration, late: Duration) -> Result<()> {
    let end = begin.checked_add(time)?;
    let later = |lease: Option<&Lease>| lease.and_then(renewal).is_some_and(|renewed| renewed >= end);
    let seen = await_condition(leases(cluster), NAME, later);
    tokio::time::timeout(time + late, seen).await.context("the Lease is not renewed")??;
    Ok(())
}

/// Waits until all replicas that there are to be stand by or lead, and none is left of those before.
///
/// # Errors
/// When it does not come to that.
pub async fn until_rolled_out(cluster: &Cluster) -> Result<()> {
    let deployment = format!("deployment/{NAME}");
    cluster.kubectl(["-n", NAMESPACE, "rollout", "status", &deployment, "--timeout=180s"]).await.map(drop)
}

/// How many replicas it is to have.
///
/// # Errors
/// When the API server refuses.
pub async fn scale(cluster: &Cluster, replicas: u32) -> Result<()> {
    let (deployment, replicas) = (format!("deployment/{NAME}"), format!("--replicas={replicas}"));
    cluster.kubectl(["-n", NAMESPACE, "scale", &deployment, &replicas]).await.map(drop)
}
