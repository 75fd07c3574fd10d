//! The operator in the cluster: its pods, its Lease, its user.

use super::fixture::TIMEOUT;
use crate::cluster::{Cluster, Kubectl};
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
/// Name of its Deployment, Lease and ServiceAccount in the chart's release `entrepot`.
pub const NAME: &str = "entrepot-operator";
/// Its user name at the API server.
pub const USER: &str = "system:serviceaccount:entrepot-system:entrepot-operator";

/// All of its pods.
///
/// # Errors
/// If the API server does not respond.
pub async fn all_pods(cluster: &dyn Cluster) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(cluster.client().clone(), NAMESPACE);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
    Ok(pods.list(&ours).await?.items)
}

/// Its pods that are not being deleted.
///
/// # Errors
/// If the API server does not respond.
pub async fn pods(cluster: &dyn Cluster) -> Result<Vec<Pod>> {
    let mut pods = all_pods(cluster).await?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

fn leases(cluster: &dyn Cluster) -> Api<Lease> {
    Api::namespaced(cluster.client().clone(), NAMESPACE)
}

/// The pod of the leader.
///
/// # Errors
/// If there is none in time.
pub async fn leader(cluster: &dyn Cluster) -> Result<Pod> {
    wait::value("the Lease is held by one of the operator's pods", TIMEOUT, || async {
        let holder = leases(cluster).get(NAME).await.ok()?.spec?.holder_identity?;
        pods(cluster).await.ok()?.into_iter().find(|pod| pod.name_any() == holder)
    })
    .await
}

/// The time of the last renewal of the Lease, by the leader's clock.
///
/// # Errors
/// If there is no leader.
pub async fn renewed(cluster: &dyn Cluster) -> Result<Timestamp> {
    renewal(&leases(cluster).get(NAME).await?).context("the Lease was never renewed")
}

fn renewal(lease: &Lease) -> Option<Timestamp> {
    Some(lease.spec.as_ref()?.renew_time.as_ref()?.0)
}

/// Waits until the Lease is renewed at least `time` after `begin`.
///
/// # Errors
/// If that does not happen within another `late`.
pub async fn until_renewed_after(
    cluster: &dyn Cluster,
    begin: Timestamp,
    time: Duration,
    late: Duration,
) -> Result<()> {
    let end = begin.checked_add(time)?;
    let later = |lease: Option<&Lease>| lease.and_then(renewal).is_some_and(|renewed| renewed >= end);
    let seen = await_condition(leases(cluster), NAME, later);
    tokio::time::timeout(time + late, seen).await.context("the Lease was not renewed in time")??;
    Ok(())
}

/// Waits until all replicas are ready and no old one is left.
///
/// # Errors
/// If that does not happen in time.
pub async fn until_rolled_out(cluster: &dyn Cluster) -> Result<()> {
    let deployment = format!("deployment/{NAME}");
    cluster.kubectl(["-n", NAMESPACE, "rollout", "status", &deployment, "--timeout=180s"]).await.map(drop)
}

/// Sets the number of replicas.
///
/// # Errors
/// If the API server rejects it.
pub async fn scale(cluster: &dyn Cluster, replicas: u32) -> Result<()> {
    let (deployment, replicas) = (format!("deployment/{NAME}"), format!("--replicas={replicas}"));
    cluster.kubectl(["-n", NAMESPACE, "scale", &deployment, &replicas]).await.map(drop)
}
