//! A registry that does not change causes no writes to the API server.

use super::fixture::{Fixture, TIMEOUT};
use super::operator;
use crate::cluster::OwnCluster;
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::Duration;

const REGISTRY: Fixture = Fixture::new("idle");
/// Environment variable for the number of minutes without a change.
const MINUTES: &str = "ENTREPOT_IDLE_MINUTES";
const DEFAULT_MINUTES: u64 = 2;
/// Tolerance for the next renewal of the Lease; after it, the Lease counts as not renewed.
const LATE: Duration = Duration::from_secs(30);

/// No object in the registry's namespace is written, neither by the operator nor by the registry
/// pods. The operator writes only its Lease, and still reconciles the registry all the time.
pub async fn an_idle_registry_writes_nothing(cluster: &OwnCluster) -> Result<()> {
    let minutes = std::env::var(MINUTES).map_or(Ok(DEFAULT_MINUTES), |text| text.parse()).context(MINUTES)?;
    REGISTRY.create(cluster, &json!({"replicas": 2})).await?;
    for (kind, reason) in [("BucketReachable", "Reachable"), ("CredentialsValid", "Accepted")] {
        REGISTRY.becomes(cluster, kind, "True", reason).await?;
    }
    // Events are written after the status that they report. Reconciliations do not overlap: when
    // the next one has started, everything that the previous ones report is written.
    let reported = cluster.audit().mark()?;
    wait::until("the operator reconciles the registry again", TIMEOUT, || async {
        let requests = cluster.audit().of(operator::USER, reported).unwrap_or_default();
        requests.iter().any(|request| request.object_ref.is(REGISTRY.namespace, "secrets"))
    })
    .await?;
    let before = REGISTRY.status(cluster).await?;
    let mark = cluster.audit().mark()?;
    let begin = operator::renewed(cluster).await?;
    // The Lease serves as a clock: while it is renewed, the operator is running.
    operator::until_renewed_after(cluster, begin, Duration::from_secs(60 * minutes), LATE).await?;

    let requests = cluster.audit().since(mark)?;
    let (mut writes, mut reads, mut renewals, mut of_nodes) = (Vec::new(), 0, 0, 0);
    for request in &requests {
        let about = &request.object_ref;
        match request.user.username.as_str() {
            operator::USER if about.is(operator::NAMESPACE, "leases") && request.is_write() => renewals += 1,
            operator::USER if about.namespace == REGISTRY.namespace && request.is_write() => writes.push(request),
            operator::USER if about.namespace == REGISTRY.namespace => reads += 1,
            user if user.starts_with(&format!("system:serviceaccount:{}:", REGISTRY.namespace)) => of_nodes += 1,
            _ => {}
        }
    }
    println!("{minutes} minutes: {renewals} renewals of the Lease, {} other writes", writes.len());
    println!("operator reads: {reads}; API requests by registry pods: {of_nodes}");
    let after = REGISTRY.status(cluster).await?;
    ensure!(writes.is_empty(), "writes without a change: {writes:#?}\nstatus before: {before}\nstatus after: {after}");
    ensure!(of_nodes == 0, "registry pods have sent {of_nodes} requests to the API server");
    // Every 30 seconds a reconciliation checks whether the Secret exists.
    ensure!(reads >= minutes, "the operator read only {reads} times: it did not reconcile");
    REGISTRY.remove(cluster).await
}
