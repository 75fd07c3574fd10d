//! A registry to which nothing happens costs the API server nothing.

use super::{operator, pods};
use crate::cluster::Cluster;
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::Duration;

const NAMESPACE: &str = "idle";
/// How many minutes nothing happens for.
const MINUTES: &str = "ENTREPOT_IDLE_MINUTES";
const DEFAULT_MINUTES: u64 = 2;
/// Longer than this after its time the Lease is renewed again, or it has no holder.
const LATE: Duration = Duration::from_secs(30);

/// No write about anything in its namespace, neither by the operator nor by the nodes; the operator writes its Lease and
/// nothing else, and looks after the registry all the while.
pub async fn idle_writes_nothing(cluster: &Cluster) -> Result<()> {
    let minutes = std::env::var(MINUTES).map_or(Ok(DEFAULT_MINUTES), |text| text.parse()).context(MINUTES)?;
    pods::make(cluster, NAMESPACE, &json!({"replicas": 2})).await?;
    for (kind, reason) in [("BucketReachable", "Reachable"), ("CredentialsValid", "Accepted")] {
        pods::until_reason(cluster, NAMESPACE, kind, reason).await?;
    }
    // Events come after the status that they are about. There is one pass at a time: when the next has begun, all that the
    // ones before had to say is said.
    let told = cluster.audit().mark()?;
    wait::until("the operator looks after the registry again", pods::SOON, || async {
        let requests = cluster.audit().of(operator::USER, told).unwrap_or_default();
        requests.iter().any(|request| request.object_ref.is(NAMESPACE, "secrets"))
    })
    .await?;
    let before = pods::look(cluster, NAMESPACE).await?.data["status"].clone();
    let mark = cluster.audit().mark()?;
    let begin = operator::renewed(cluster).await?;
    // The Lease is the operator's clock: it is alive for as long as this goes on.
    operator::until_renewed_after(cluster, begin, Duration::from_secs(60 * minutes), LATE).await?;

    let requests = cluster.audit().since(mark)?;
    let (mut writes, mut looks, mut renewals, mut of_nodes) = (Vec::new(), 0, 0, 0);
    for request in &requests {
        let about = &request.object_ref;
        match request.user.username.as_str() {
            operator::USER if about.is(operator::NAMESPACE, "leases") && request.is_write() => renewals += 1,
            operator::USER if about.namespace == NAMESPACE && request.is_write() => writes.push(request),
            operator::USER if about.namespace == NAMESPACE => looks += 1,
            user if user.starts_with(&format!("system:serviceaccount:{NAMESPACE}:")) => of_nodes += 1,
            _ => {}
        }
    }
    println!("{minutes} minutes: {renewals} renewals of the operator's Lease, {} other writes", writes.len());
    println!("the operator looked at what the registry refers to {looks} times; nodes asked {of_nodes} times");
    let after = pods::look(cluster, NAMESPACE).await?.data["status"].clone();
    ensure!(writes.is_empty(), "writes while nothing happened: {writes:#?}\nthe status was {before}\nand is {after}");
    ensure!(of_nodes == 0, "nodes have asked the API server {of_nodes} times");
    // Every 30 seconds a pass looks whether the Secret is there.
    ensure!(looks >= minutes, "the operator looked only {looks} times: it was not at work");
    pods::remove(cluster, NAMESPACE).await
}
