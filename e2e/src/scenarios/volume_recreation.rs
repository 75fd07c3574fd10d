//! Volumes that are replaced together with their pods.

use super::fixture::Fixture;
use super::steady_pulls::SteadyPulls;
use crate::cluster::{Cluster, FIXED, OwnCluster};
use crate::push::Image;
use anyhow::{Result, bail, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::json;
use std::collections::BTreeMap;

const REGISTRY: Fixture = Fixture::new("volume-recreation");
const NODES: u8 = 3;

/// A new size and class under `Recreate`: pods are replaced one after the other, never two at the
/// same time, while images are pulled.
pub async fn nodes_are_recreated_one_at_a_time(cluster: &OwnCluster) -> Result<()> {
    let spec = json!({"replicas": NODES, "store": {"resizePolicy": "Recreate"}});
    let registry = REGISTRY.create(cluster, &spec).await?;
    let image = Image::fresh(&[400_000]);
    registry.push_image("kept", "1", &image).await?;
    let before = claims(cluster).await?;
    let change = async {
        let change = json!({"store": {"size": "2Gi", "storageClassName": FIXED}});
        REGISTRY.change(cluster, &change).await?;
        REGISTRY.becomes(cluster, "StorageResized", "True", "AsDesired").await?;
        REGISTRY.becomes(cluster, "Ready", "True", "AllNodesReady").await
    };
    let pulls = SteadyPulls::default();
    // The watch ends only if it sees two unready pods at once.
    tokio::select! {
        done = pulls.during(pulls.run(&registry, "kept", "1", &image), change) => drop(done?),
        seen = never_two_unready(cluster) => return seen,
    }
    let after = claims(cluster).await?;
    ensure!(after.len() == usize::from(NODES), "unexpected number of claims: {after:?}");
    for (name, (uid, class, size)) in &after {
        ensure!((class.as_str(), size.as_str()) == (FIXED, "2Gi"), "{name} has StorageClass {class} and size {size}");
        ensure!(before.get(name).is_some_and(|(former, ..)| former != uid), "{name} was not replaced");
    }
    for node in REGISTRY.node_registries(cluster).await? {
        node.pull_image("kept", "1", &image).await?;
    }
    REGISTRY.remove(cluster).await
}

/// Watches the pods after all are ready, and ends when two of them are not.
async fn never_two_unready(cluster: &OwnCluster) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), REGISTRY.namespace);
    let mut events = std::pin::pin!(watcher(pods, watcher::Config::default()));
    let mut serving = BTreeMap::new();
    while let Some(event) = events.try_next().await? {
        match event {
            Event::Init | Event::InitDone => {}
            Event::InitApply(pod) | Event::Apply(pod) => drop(serving.insert(pod.name_any(), serves(&pod))),
            Event::Delete(pod) => drop(serving.insert(pod.name_any(), false)),
        }
        let unready: Vec<_> = serving.iter().filter(|(_, serves)| !**serves).collect();
        ensure!(unready.len() < 2, "two pods are not ready at the same time: {unready:?}");
    }
    bail!("the watch ended")
}

fn serves(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|known| known.type_ == "Ready" && known.status == "True"));
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// The uid, class and size of every claim.
async fn claims(cluster: &OwnCluster) -> Result<BTreeMap<String, (String, String, String)>> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client().clone(), REGISTRY.namespace);
    let describe = |claim: PersistentVolumeClaim| {
        let (name, uid) = (claim.name_any(), claim.uid()?);
        let size = claim.status?.capacity?.get("storage")?.0.clone();
        Some((name, (uid, claim.spec?.storage_class_name?, size)))
    };
    Ok(claims.list(&REGISTRY.selector()).await?.items.into_iter().filter_map(describe).collect())
}
