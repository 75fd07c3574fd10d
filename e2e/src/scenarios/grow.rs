//! Volumes that are expanded while the registry is in use and the operator crashes between any two
//! steps; and volumes that cannot be expanded.

use super::given::{self, Named, Pulls, SOON};
use crate::cluster::{self, Audit, Cluster, FIXED, Mark};
use crate::push::Image;
use crate::wait;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::json;

const GROWS: Named = Named { namespace: "grow", name: "grows" };
const STUCK: Named = Named { namespace: "grow", name: "stuck" };
const CLAIMS: [&str; 2] = ["store-grows-0", "store-grows-1"];
const OPERATOR: &str = "entrepot-operator";
const SYSTEM: &str = "entrepot-system";

/// The operator's changes to the volumes of the registry since a mark, by the API server's audit
/// log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Done {
    resized: usize,
    deleted: usize,
    made: usize,
}

const WHOLE: Done = Done { resized: 2, deleted: 1, made: 1 };

/// The state in which the operator crashed.
#[derive(Clone, Copy, Debug)]
enum Left {
    SomeResized,
    AllGrown,
    SetDeleted,
}

/// One expansion without a fault, one for each state in which a crash of the operator may leave it,
/// and one with a StorageClass that cannot expand.
pub async fn volumes_grow(cluster: &Cluster) -> Result<()> {
    let mut fixed = STUCK.manifest(1);
    fixed["spec"]["store"]["storageClassName"] = json!(FIXED);
    let registry = GROWS.is_ready(cluster, &GROWS.manifest(2)).await?;
    STUCK.is_ready(cluster, &fixed).await?;
    cannot_expand(cluster).await?;

    let image = Image::fresh(&[400_000]);
    registry.push_image("kept", "1", &image).await?;
    let pulls = Pulls::default();
    pulls.during(pulls.go_on(&registry, "kept", "1", &image), grow(cluster)).await?;
    given::gone(cluster, &[GROWS.namespace]).await
}

async fn grow(cluster: &Cluster) -> Result<()> {
    let mark = cluster.audit().mark()?;
    GROWS.patch(cluster, &size("2Gi")).await?;
    has_grown(cluster, "2Gi", mark, WHOLE).await.context("without a fault")?;

    for (left, size, rest) in [
        (Left::SomeResized, "3Gi", Done { resized: 1, ..WHOLE }),
        (Left::AllGrown, "4Gi", Done { resized: 0, ..WHOLE }),
        (Left::SetDeleted, "5Gi", Done { resized: 0, deleted: 0, made: 1 }),
    ] {
        let mark = cluster.audit().mark()?;
        stop_operator(cluster).await?;
        GROWS.patch(cluster, &self::size(size)).await?;
        leave(cluster, left, size).await?;
        start_operator(cluster).await?;
        has_grown(cluster, size, mark, rest).await.with_context(|| format!("{left:?}"))?;
        println!("expansion interrupted at {left:?} was completed");
    }

    // The same with a real crash: the leader is killed as soon as the first of its writes is seen,
    // and again when the StatefulSet has been replaced.
    let mark = cluster.audit().mark()?;
    let before = set(cluster).await?.uid();
    GROWS.patch(cluster, &size("6Gi")).await?;
    wait::until("a PersistentVolumeClaim is resized", SOON, || async {
        requests(cluster).await.contains(&"6Gi".to_owned())
    })
    .await?;
    kill_leader(cluster).await?;
    wait::until("the StatefulSet is replaced", SOON, || async {
        set(cluster).await.is_ok_and(|set| set.uid() != before && set.metadata.deletion_timestamp.is_none())
    })
    .await?;
    kill_leader(cluster).await?;
    has_grown(cluster, "6Gi", mark, WHOLE).await.context("with killed leaders")?;
    GROWS.becomes(cluster, "Ready", "True", "AllNodesReady").await.map(drop)
}

fn size(size: &str) -> serde_json::Value {
    json!({"spec": {"store": {"size": size}}})
}

/// Waits until volumes and StatefulSet have the size, and checks what the operator did for it.
async fn has_grown(cluster: &Cluster, size: &str, mark: Mark, expected: Done) -> Result<()> {
    GROWS.becomes(cluster, "StorageResized", "True", "AsDesired").await?;
    ensure!(
        capacities(cluster).await == [size, size],
        "unexpected sizes of the volumes: {:?}",
        capacities(cluster).await
    );
    ensure!(template(&set(cluster).await?).as_deref() == Some(size), "the StatefulSet has its old claim template");
    let done = done(cluster.audit(), mark)?;
    ensure!(done == expected, "the operator's changes were {done:?} instead of {expected:?}");
    Ok(())
}

fn done(audit: &Audit, mark: Mark) -> Result<Done> {
    let requests = audit.of(&format!("system:serviceaccount:{SYSTEM}:{OPERATOR}"), mark)?;
    let count = |resource: &str, verb: &str, codes: &[u16]| {
        let is_it = |request: &&cluster::Request| {
            let about = &request.object_ref;
            about.namespace == GROWS.namespace && about.resource == resource && request.verb == verb
        };
        requests.iter().filter(is_it).filter(|request| codes.contains(&request.response_status.code)).count()
    };
    Ok(Done {
        resized: count("persistentvolumeclaims", "patch", &[200]),
        deleted: count("statefulsets", "delete", &[200, 202]),
        // The status of an apply that creates an object is 201.
        made: count("statefulsets", "patch", &[201]),
    })
}

/// Makes by hand the changes that the operator would have made before the crash.
async fn leave(cluster: &Cluster, left: Left, size: &str) -> Result<()> {
    let resized = match left {
        Left::SomeResized => &CLAIMS[..1],
        Left::AllGrown | Left::SetDeleted => &CLAIMS[..],
    };
    let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}}).to_string();
    for claim in resized {
        cluster.kubectl(["-n", GROWS.namespace, "patch", "pvc", claim, "-p", &patch]).await?;
    }
    let grown = || async { capacities(cluster).await.iter().filter(|now| *now == size).count() == resized.len() };
    wait::until("the volumes are expanded", SOON, grown).await?;
    if let Left::SetDeleted = left {
        let set = format!("statefulset/{}", GROWS.name);
        cluster.kubectl(["-n", GROWS.namespace, "delete", &set, "--cascade=orphan"]).await?;
    }
    Ok(())
}

/// With a StorageClass that cannot expand, nothing changes and a condition reports it, until the
/// size is restored.
async fn cannot_expand(cluster: &Cluster) -> Result<()> {
    let children = || async {
        let set = Api::<StatefulSet>::namespaced(cluster.client().clone(), STUCK.namespace).get(STUCK.name).await?;
        let pods = STUCK.pods(cluster).await?;
        let pods: Vec<_> = pods.iter().map(|pod| (pod.uid(), pod.metadata.deletion_timestamp.clone())).collect();
        anyhow::Ok((set.uid(), set.metadata.generation, pods))
    };
    let before = children().await?;
    STUCK.patch(cluster, &size("2Gi")).await?;
    let message = STUCK.becomes(cluster, "StorageResized", "False", "StorageClassCannotExpand").await?;
    println!("{message}");
    STUCK.has_event(cluster, "StorageClassCannotExpand").await?;
    STUCK.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
    STUCK.patch(cluster, &size("1Gi")).await?;
    STUCK.becomes(cluster, "StorageResized", "True", "AsDesired").await?;
    let after = children().await?;
    ensure!(before == after, "an object was changed: {before:?}, then {after:?}");
    Ok(())
}

async fn stop_operator(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(["-n", SYSTEM, "scale", "deployment", OPERATOR, "--replicas=0"]).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), SYSTEM);
    let of_operator = ListParams::default().labels(&format!("app.kubernetes.io/name={OPERATOR}"));
    wait::until("no operator is running", SOON, || async {
        pods.list(&of_operator).await.is_ok_and(|pods| pods.items.is_empty())
    })
    .await
}

async fn start_operator(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(["-n", SYSTEM, "scale", "deployment", OPERATOR, "--replicas=2"]).await.map(drop)
}

async fn kill_leader(cluster: &Cluster) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(cluster.client().clone(), SYSTEM);
    let leader =
        leases.get(OPERATOR).await?.spec.and_then(|spec| spec.holder_identity).context("the Lease has no holder")?;
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), SYSTEM);
    cluster::kill(&pods.get(&leader).await?, OPERATOR)
}

async fn set(cluster: &Cluster) -> Result<StatefulSet> {
    Ok(Api::<StatefulSet>::namespaced(cluster.client().clone(), GROWS.namespace).get(GROWS.name).await?)
}

/// The size in the claim template.
fn template(set: &StatefulSet) -> Option<String> {
    let templates = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    Some(templates.first()?.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone())
}

async fn claims(cluster: &Cluster) -> Vec<PersistentVolumeClaim> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client().clone(), GROWS.namespace);
    claims.list(&GROWS.selector()).await.map(|list| list.items).unwrap_or_default()
}

async fn capacities(cluster: &Cluster) -> Vec<String> {
    let capacity =
        |claim: &PersistentVolumeClaim| Some(claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0.clone());
    claims(cluster).await.iter().filter_map(capacity).collect()
}

async fn requests(cluster: &Cluster) -> Vec<String> {
    let requested = |claim: &PersistentVolumeClaim| {
        Some(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone())
    };
    claims(cluster).await.iter().filter_map(requested).collect()
}
