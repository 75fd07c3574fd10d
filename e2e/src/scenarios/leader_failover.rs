//! The leading operator is killed during a rollout; then there is no operator at all.

use super::fixture::{Fixture, TIMEOUT};
use super::load::Load;
use super::operator;
use crate::cluster::{Cluster, OwnCluster, Request};
use crate::wait;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Instant;

const REGISTRY: Fixture = Fixture::new("leader-failover");

/// The other replica finishes what the killed one started, and no step is done twice. Without an
/// operator, pushes and pulls still work.
pub async fn leader_killed_in_a_rollout(cluster: &OwnCluster) -> Result<()> {
    let registry = REGISTRY.create(cluster, &json!({"replicas": 3})).await?;
    let before = REGISTRY.nodes(cluster).await?;
    let load = Load::start(&registry);
    let leader = operator::leader(cluster).await?;
    let mark = cluster.audit().mark()?;
    REGISTRY.change(cluster, &json!({"tags": {"freshFor": "1s"}})).await?;
    wait::until("the first pod has the new revision", TIMEOUT, || async {
        let nodes = REGISTRY.nodes(cluster).await.unwrap_or_default();
        nodes.iter().any(|node| node.ready && before.iter().all(|old| old.uid != node.uid))
    })
    .await?;
    kill(cluster, &leader).await?;
    let start = Instant::now();
    let nodes = REGISTRY.nodes(cluster).await?;
    let left = nodes.iter().filter(|node| before.iter().any(|old| old.uid == node.uid)).count();
    ensure!(left > 0, "the rollout had finished before the leader was killed");
    // Changed while there is no leader: the next leader does it together with the rest.
    REGISTRY.change(cluster, &json!({"service": {"annotations": {"changed": "without-a-leader"}}})).await?;
    let next = operator::leader(cluster).await?;
    ensure!(next.name_any() != leader.name_any(), "the leader is the killed replica");
    println!("{left} pods left to update; new leader {:.1?} after the kill", start.elapsed());
    REGISTRY.until_settled(cluster).await?;
    println!("rollout completed {:.1?} after the kill", start.elapsed());
    let after = REGISTRY.nodes(cluster).await?;
    ensure!(
        after.iter().all(|node| before.iter().all(|old| old.uid != node.uid)),
        "some pods were not replaced: {after:?}"
    );
    ensure!(after.iter().all(|node| node.restarts == 0), "pods were restarted: {after:?}");
    once(&cluster.audit().since(mark)?, &leader.name_any(), &next.name_any())?;
    load.goes_on(5).await?;
    load.stop().await?;

    operator::scale(cluster, 0).await?;
    let without_leader = without_operator(cluster, &registry).await;
    operator::scale(cluster, 2).await?;
    operator::until_rolled_out(cluster).await?;
    without_leader?;
    operator::leader(cluster).await?;
    REGISTRY.remove(cluster).await
}

/// Kills the leader's process, and deletes its pod before the kubelet restarts the container.
async fn kill(cluster: &OwnCluster, leader: &Pod) -> Result<()> {
    cluster.kill(leader, operator::NAME)?;
    let pods = Api::<Pod>::namespaced(cluster.client().clone(), operator::NAMESPACE);
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete(&leader.name_any(), &at_once).await.map(drop)?;
    Ok(())
}

/// Checks that no step was done twice, and that two operators did not write alternately.
fn once(requests: &[Request], former: &str, next: &str) -> Result<()> {
    let mine =
        requests.iter().filter(|request| request.object_ref.namespace == REGISTRY.namespace && request.succeeded());
    let mut deleted = BTreeMap::<&str, u32>::new();
    let mut services = Vec::new();
    let mut writers = Vec::new();
    for request in mine.filter(|request| request.is_write()) {
        let (user, about) = (request.user.username.as_str(), &request.object_ref);
        let by_controllers = user.starts_with("system:serviceaccount:");
        if by_controllers && request.verb == "delete" && about.is(REGISTRY.namespace, "pods") {
            *deleted.entry(&about.name).or_default() += 1;
        }
        if user == operator::USER {
            writers.push(request.pod().context("a write has no pod")?);
            if about.is(REGISTRY.namespace, "services") {
                services.push(about.name.as_str());
            }
        }
    }
    println!("deleted pods: {deleted:?}; writes of both leaders: {}", writers.len());
    let wanted = BTreeMap::from([("images-0", 1), ("images-1", 1), ("images-2", 1)]);
    ensure!(deleted == wanted, "unexpected deletions: {deleted:?}");
    ensure!(services == ["images"], "unexpected writes of Services: {services:?}");
    writers.dedup();
    ensure!(writers == [former, next], "unexpected order of the operators' writes: {writers:?}");
    Ok(())
}

/// Without any operator, pushes and pulls still work.
async fn without_operator(cluster: &OwnCluster, registry: &crate::Registry) -> Result<()> {
    wait::until("no operator is running", TIMEOUT, || async {
        let pods = Api::<Pod>::namespaced(cluster.client().clone(), operator::NAMESPACE);
        pods.list(&Default::default()).await.is_ok_and(|pods| pods.items.is_empty())
    })
    .await?;
    let load = Load::start(registry);
    load.goes_on(20).await?;
    load.stop().await
}
