//! Volumes that are expanded while the registry is in use and the operator crashes between any two
//! steps; and volumes that cannot be expanded.

use super::fixture::{Fixture, TIMEOUT};
use super::operator;
use super::steady_pulls::SteadyPulls;
use crate::cluster::{self, Audit, Cluster, FIXED, Kubectl, Mark, OwnCluster};
use crate::push::Image;
use crate::wait;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::Api;
use serde_json::json;

const REGISTRY: Fixture = Fixture::named("volume-expansion", "images");
const FIXED_SIZE: Fixture = Fixture::named("volume-expansion", "fixed-size");
const CLAIMS: [&str; 2] = ["store-images-0", "store-images-1"];

/// The operator's changes to the volumes of the registry since a mark, by the API server's audit
/// log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Changes {
    resized: usize,
    deleted: usize,
    created: usize,
}

const ALL_CHANGES: Changes = Changes { resized: 2, deleted: 1, created: 1 };

/// The state in which the operator crashed.
#[derive(Clone, Copy, Debug)]
enum CrashedAt {
    SomeClaimsResized,
    AllVolumesExpanded,
    StatefulSetDeleted,
}

/// One expansion without a fault, one for each state in which a crash of the operator may leave it,
/// and one with a StorageClass that cannot expand.
pub async fn volumes_are_expanded(cluster: &OwnCluster) -> Result<()> {
    let registry = REGISTRY.create(cluster, &json!({"replicas": 2})).await?;
    FIXED_SIZE.create(cluster, &json!({"replicas": 1, "store": {"storageClassName": FIXED}})).await?;
    cannot_expand(cluster).await?;

    let image = Image::fresh(&[400_000]);
    registry.push_image("kept", "1", &image).await?;
    let pulls = SteadyPulls::default();
    pulls.during(pulls.run(&registry, "kept", "1", &image), expand(cluster)).await?;
    REGISTRY.remove(cluster).await
}

async fn expand(cluster: &OwnCluster) -> Result<()> {
    let mark = cluster.audit().mark()?;
    REGISTRY.change(cluster, &size("2Gi")).await?;
    is_expanded(cluster, "2Gi", mark, ALL_CHANGES).await.context("without a fault")?;

    for (crashed_at, size, rest) in [
        (CrashedAt::SomeClaimsResized, "3Gi", Changes { resized: 1, ..ALL_CHANGES }),
        (CrashedAt::AllVolumesExpanded, "4Gi", Changes { resized: 0, ..ALL_CHANGES }),
        (CrashedAt::StatefulSetDeleted, "5Gi", Changes { resized: 0, deleted: 0, created: 1 }),
    ] {
        let mark = cluster.audit().mark()?;
        stop_operator(cluster).await?;
        REGISTRY.change(cluster, &self::size(size)).await?;
        make_changes_until(cluster, crashed_at, size).await?;
        operator::scale(cluster, 2).await?;
        is_expanded(cluster, size, mark, rest).await.with_context(|| format!("{crashed_at:?}"))?;
        println!("expansion interrupted at {crashed_at:?} was completed");
    }

    // The same with a real crash: the leader is killed as soon as the first of its writes is seen,
    // and again when the StatefulSet has been replaced.
    let mark = cluster.audit().mark()?;
    let before = REGISTRY.stateful_set(cluster).await?.uid();
    REGISTRY.change(cluster, &size("6Gi")).await?;
    wait::until("a PersistentVolumeClaim is resized", TIMEOUT, || async {
        requests(cluster).await.contains(&"6Gi".to_owned())
    })
    .await?;
    kill_leader(cluster).await?;
    wait::until("the StatefulSet is replaced", TIMEOUT, || async {
        REGISTRY
            .stateful_set(cluster)
            .await
            .is_ok_and(|set| set.uid() != before && set.metadata.deletion_timestamp.is_none())
    })
    .await?;
    kill_leader(cluster).await?;
    is_expanded(cluster, "6Gi", mark, ALL_CHANGES).await.context("with killed leaders")?;
    REGISTRY.becomes(cluster, "Ready", "True", "AllNodesReady").await.map(drop)
}

fn size(size: &str) -> serde_json::Value {
    json!({"store": {"size": size}})
}

/// Waits until volumes and StatefulSet have the size, and checks what the operator did for it.
async fn is_expanded(cluster: &OwnCluster, size: &str, mark: Mark, expected: Changes) -> Result<()> {
    REGISTRY.becomes(cluster, "StorageResized", "True", "AsDesired").await?;
    ensure!(
        capacities(cluster).await == [size, size],
        "unexpected sizes of the volumes: {:?}",
        capacities(cluster).await
    );
    ensure!(
        template(&REGISTRY.stateful_set(cluster).await?).as_deref() == Some(size),
        "the StatefulSet has its old claim template"
    );
    let changes = changes_since(cluster.audit(), mark)?;
    ensure!(changes == expected, "the operator's changes were {changes:?} instead of {expected:?}");
    Ok(())
}

fn changes_since(audit: &Audit, mark: Mark) -> Result<Changes> {
    let requests = audit.of(operator::USER, mark)?;
    let count = |resource: &str, verb: &str, codes: &[u16]| {
        let is_it = |request: &&cluster::Request| {
            let about = &request.object_ref;
            about.namespace == REGISTRY.namespace && about.resource == resource && request.verb == verb
        };
        requests.iter().filter(is_it).filter(|request| codes.contains(&request.response_status.code)).count()
    };
    Ok(Changes {
        resized: count("persistentvolumeclaims", "patch", &[200]),
        deleted: count("statefulsets", "delete", &[200, 202]),
        // The status of an apply that creates an object is 201.
        created: count("statefulsets", "patch", &[201]),
    })
}

/// Makes by hand the changes that the operator would have made before the crash.
async fn make_changes_until(cluster: &OwnCluster, crashed_at: CrashedAt, size: &str) -> Result<()> {
    let resized = match crashed_at {
        CrashedAt::SomeClaimsResized => &CLAIMS[..1],
        CrashedAt::AllVolumesExpanded | CrashedAt::StatefulSetDeleted => &CLAIMS[..],
    };
    let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}}).to_string();
    for claim in resized {
        cluster.kubectl(["-n", REGISTRY.namespace, "patch", "pvc", claim, "-p", &patch]).await?;
    }
    let grown = || async { capacities(cluster).await.iter().filter(|now| *now == size).count() == resized.len() };
    wait::until("the volumes are expanded", TIMEOUT, grown).await?;
    if let CrashedAt::StatefulSetDeleted = crashed_at {
        let set = format!("statefulset/{}", REGISTRY.name);
        cluster.kubectl(["-n", REGISTRY.namespace, "delete", &set, "--cascade=orphan"]).await?;
    }
    Ok(())
}

/// With a StorageClass that cannot expand, nothing changes and a condition reports it, until the
/// size is restored.
async fn cannot_expand(cluster: &OwnCluster) -> Result<()> {
    let children = || async {
        let set =
            Api::<StatefulSet>::namespaced(cluster.client().clone(), FIXED_SIZE.namespace).get(FIXED_SIZE.name).await?;
        let pods = FIXED_SIZE.pods(cluster).await?;
        let pods: Vec<_> = pods.iter().map(|pod| (pod.uid(), pod.metadata.deletion_timestamp.clone())).collect();
        anyhow::Ok((set.uid(), set.metadata.generation, pods))
    };
    let before = children().await?;
    FIXED_SIZE.change(cluster, &size("2Gi")).await?;
    let message = FIXED_SIZE.becomes(cluster, "StorageResized", "False", "StorageClassCannotExpand").await?;
    println!("{message}");
    FIXED_SIZE.has_event(cluster, "StorageClassCannotExpand").await?;
    FIXED_SIZE.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
    FIXED_SIZE.change(cluster, &size("1Gi")).await?;
    FIXED_SIZE.becomes(cluster, "StorageResized", "True", "AsDesired").await?;
    let after = children().await?;
    ensure!(before == after, "an object was changed: {before:?}, then {after:?}");
    Ok(())
}

async fn stop_operator(cluster: &OwnCluster) -> Result<()> {
    operator::scale(cluster, 0).await?;
    wait::until("no operator is running", TIMEOUT, || async {
        operator::all_pods(cluster).await.is_ok_and(|pods| pods.is_empty())
    })
    .await
}

async fn kill_leader(cluster: &OwnCluster) -> Result<()> {
    cluster.kill(&operator::leader(cluster).await?, operator::NAME)
}

/// The size in the claim template.
fn template(set: &StatefulSet) -> Option<String> {
    let templates = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    Some(templates.first()?.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone())
}

async fn claims(cluster: &OwnCluster) -> Vec<PersistentVolumeClaim> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client().clone(), REGISTRY.namespace);
    claims.list(&REGISTRY.selector()).await.map(|list| list.items).unwrap_or_default()
}

async fn capacities(cluster: &OwnCluster) -> Vec<String> {
    let capacity =
        |claim: &PersistentVolumeClaim| Some(claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0.clone());
    claims(cluster).await.iter().filter_map(capacity).collect()
}

async fn requests(cluster: &OwnCluster) -> Vec<String> {
    let requested = |claim: &PersistentVolumeClaim| {
        Some(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone())
    };
    claims(cluster).await.iter().filter_map(requested).collect()
}
