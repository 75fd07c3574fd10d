//! Several registries in one bucket, and several in one namespace: none sees, changes or loses what
//! belongs to another.

use super::fixture::{Fixture, TIMEOUT};
use crate::cluster::{Cluster, Kubectl};
use crate::push::Image;
use crate::{Registry, wait};
use anyhow::{Context, Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::api::Api;
use serde::de::DeserializeOwned;
use serde_json::json;

const ONE: Fixture = Fixture::named("two-clusters", "one");
const TWO: Fixture = Fixture::named("two-clusters", "two");
/// The same name as the first, in another namespace.
const SAME_NAME: Fixture = Fixture::named("two-clusters-other", "one");
/// Its Service would have the name of a Service of the first.
const CLASH: Fixture = Fixture::named("two-clusters", "one-nodes");

/// The same repository and tag in each of three registries, with different content.
pub async fn registries_are_isolated_from_each_other(cluster: &dyn Cluster) -> Result<()> {
    let mut all = Vec::new();
    for named in [ONE, TWO, SAME_NAME] {
        let registry = named.create(cluster, &json!({"replicas": 1})).await?;
        let image = Image::fresh(&[300_000]);
        registry.push_image("shared", "1", &image).await?;
        registry.push_image(&format!("only/{}-{}", named.namespace, named.name), "1", &image).await?;
        all.push((named, registry, image));
    }
    for (named, registry, image) in &all {
        let own = format!("only/{}-{}", named.namespace, named.name);
        let catalog = registry.get("/v2/_catalog").await?.expect(200)?.json()?;
        ensure!(catalog["repositories"] == json!([own, "shared"]), "{named:?} lists {catalog}");
        registry.pull_image("shared", "1", image).await?;
        for (other, _, foreign) in all.iter().filter(|(other, ..)| other.prefix() != named.prefix()) {
            has_no_blob_of(registry, foreign).await.with_context(|| format!("content of {other:?} in {named:?}"))?;
        }
    }

    let untouched = [TWO, SAME_NAME];
    let before = all_of(cluster, &untouched).await?;
    ONE.change(cluster, &json!({"readOnly": true, "store": {"lowFree": "5%"}})).await?;
    ONE.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
    cluster.apply(&CLASH.manifest(&json!({"replicas": 1})).to_string()).await?;
    let message = CLASH.becomes(cluster, "Ready", "False", "ApplyFailed").await?;
    ensure!(message.contains("Service one-nodes"), "{message}");
    ONE.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
    for deleted in [CLASH, ONE] {
        cluster.kubectl(["-n", deleted.namespace, "delete", "rgc", deleted.name, "--wait=false"]).await?;
        wait::until("all objects of the registry are deleted", TIMEOUT, || async {
            all_of(cluster, &[deleted]).await.is_ok_and(|children| children.is_empty())
        })
        .await?;
    }
    let after = all_of(cluster, &untouched).await?;
    ensure!(before == after, "other registries were changed: {before:?}, then {after:?}");
    for (_, registry, image) in all.iter().filter(|(named, ..)| named.prefix() != ONE.prefix()) {
        registry.pull_image("shared", "1", image).await?;
    }
    let (_, registry, image) = &all[0];
    ensure!(registry.get("/v2/").await.is_err(), "a deleted registry responds");
    let again = ONE.create(cluster, &json!({"replicas": 1})).await?;
    again.pull_image("shared", "1", image).await.context("after the registry was applied again")?;
    SAME_NAME.remove(cluster).await?;
    ONE.remove(cluster).await
}

async fn has_no_blob_of(registry: &Registry, image: &Image) -> Result<()> {
    for blob in image.blobs() {
        ensure!(!registry.has_blob("shared", &blob.digest).await?, "it has a blob of another registry");
    }
    registry.manifest("shared", &image.digest.to_string()).await?.expect(404).map(drop)
}

/// Kind, name, uid and generation of all objects that the operator created for these registries.
/// Objects without a generation have their resource version instead, which every write changes.
async fn all_of(cluster: &dyn Cluster, registries: &[Fixture]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for named in registries {
        all.extend(of::<Pod>(cluster, *named, false).await?);
        all.extend(of::<PersistentVolumeClaim>(cluster, *named, false).await?);
        all.extend(of::<StatefulSet>(cluster, *named, false).await?);
        all.extend(of::<PodDisruptionBudget>(cluster, *named, false).await?);
        all.extend(of::<ConfigMap>(cluster, *named, true).await?);
        all.extend(of::<Service>(cluster, *named, true).await?);
        all.extend(of::<ServiceAccount>(cluster, *named, true).await?);
    }
    Ok(all)
}

async fn of<K>(cluster: &dyn Cluster, named: Fixture, versions: bool) -> Result<Vec<String>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(cluster.client().clone(), named.namespace);
    let describe = |object: &K| {
        let meta = object.meta();
        let version = meta.resource_version.as_ref().filter(|_| versions);
        format!("{} {:?} {:?} {:?} {version:?}", K::kind(&()), meta.name, meta.uid, meta.generation)
    };
    Ok(api.list(&named.selector()).await?.iter().map(describe).collect())
}
