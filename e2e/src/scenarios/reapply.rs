//! A registry that is deleted, alone or with its namespace, and applied again.

use super::fixture::{Fixture, TIMEOUT};
use crate::cluster::{Cluster, Kubectl};
use crate::push::Image;
use crate::{Registry, wait};
use anyhow::{Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::api::Api;
use serde::de::DeserializeOwned;
use serde_json::json;

const REGISTRY: Fixture = Fixture::new("reapply");

/// Deleting the RegistryCluster deletes everything that the operator created; the bucket keeps
/// every image.
pub async fn a_deleted_registry_is_applied_again(cluster: &dyn Cluster) -> Result<()> {
    let spec = json!({"replicas": 2});
    let registry = REGISTRY.create(cluster, &spec).await?;
    let images: Vec<_> = (0..3).map(|_| Image::fresh(&[2_000_000, 10_000])).collect();
    for (number, image) in images.iter().enumerate() {
        registry.push_image(&format!("kept/{number}"), "1", image).await?;
    }
    let (children, keys) = (children(cluster).await?, keys(cluster).await?);
    ensure!(children.len() > 8, "a registry of two pods has only these objects: {children:?}");

    cluster.kubectl(["-n", REGISTRY.namespace, "delete", "rgc", REGISTRY.name, "--wait=false"]).await?;
    wait::until("all objects of the registry are deleted", TIMEOUT, || async {
        self::children(cluster).await.is_ok_and(|children| children.is_empty())
    })
    .await?;
    ensure!(keys == self::keys(cluster).await?, "the bucket has changed");
    can_pull_all(cluster, &REGISTRY.create(cluster, &spec).await?, &images).await?;

    cluster.kubectl(["delete", "namespace", REGISTRY.namespace, "--wait=false"]).await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client().clone());
    wait::until("the namespace is deleted", TIMEOUT, || async {
        namespaces.get_opt(REGISTRY.namespace).await.is_ok_and(|found| found.is_none())
    })
    .await?;
    ensure!(keys == self::keys(cluster).await?, "the bucket has changed");
    can_pull_all(cluster, &REGISTRY.create(cluster, &spec).await?, &images).await?;
    REGISTRY.remove(cluster).await
}

/// Pulls every image from every node; their stores are empty.
async fn can_pull_all(cluster: &dyn Cluster, registry: &Registry, images: &[Image]) -> Result<()> {
    let mut all = REGISTRY.node_registries(cluster).await?;
    all.push(registry.clone());
    for registry in all {
        for (number, image) in images.iter().enumerate() {
            registry.pull_image(&format!("kept/{number}"), "1", image).await?;
        }
    }
    Ok(())
}

async fn keys(cluster: &dyn Cluster) -> Result<Vec<String>> {
    cluster.s3().keys(&REGISTRY.prefix()).await
}

/// All objects with the registry's label, as kind and uid.
async fn children(cluster: &dyn Cluster) -> Result<Vec<String>> {
    let all = [
        of::<Pod>(cluster).await?,
        of::<PersistentVolumeClaim>(cluster).await?,
        of::<StatefulSet>(cluster).await?,
        of::<ConfigMap>(cluster).await?,
        of::<Service>(cluster).await?,
        of::<ServiceAccount>(cluster).await?,
        of::<PodDisruptionBudget>(cluster).await?,
    ];
    Ok(all.concat())
}

async fn of<K>(cluster: &dyn Cluster) -> Result<Vec<String>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(cluster.client().clone(), REGISTRY.namespace);
    let list = api.list(&REGISTRY.selector()).await?;
    Ok(list.iter().map(|object| format!("{} {:?}", K::kind(&()), object.meta().uid)).collect())
}
