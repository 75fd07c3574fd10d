//! A registry that is deleted, alone or with its namespace, and applied again.

use super::given::{self, Named, SOON};
use crate::cluster::Cluster;
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

const AGAIN: Named = Named { namespace: "again", name: "images" };

/// Deleting the RegistryCluster deletes everything that the operator created; the bucket keeps
/// every image.
pub async fn deleted_and_applied_again(cluster: &Cluster) -> Result<()> {
    let manifest = AGAIN.manifest(2);
    let registry = AGAIN.is_ready(cluster, &manifest).await?;
    let images: Vec<_> = (0..3).map(|_| Image::fresh(&[2_000_000, 10_000])).collect();
    for (number, image) in images.iter().enumerate() {
        registry.push_image(&format!("kept/{number}"), "1", image).await?;
    }
    let (children, keys) = (children(cluster).await?, keys(cluster).await?);
    ensure!(children.len() > 8, "a registry of two pods has only these objects: {children:?}");

    cluster.kubectl(["-n", AGAIN.namespace, "delete", "rgc", AGAIN.name, "--wait=false"]).await?;
    wait::until("all objects of the registry are deleted", SOON, || async {
        self::children(cluster).await.is_ok_and(|children| children.is_empty())
    })
    .await?;
    ensure!(keys == self::keys(cluster).await?, "the bucket has changed");
    are_there(cluster, &AGAIN.is_ready(cluster, &manifest).await?, &images).await?;

    cluster.kubectl(["delete", "namespace", AGAIN.namespace, "--wait=false"]).await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client().clone());
    wait::until("the namespace is deleted", SOON, || async {
        namespaces.get_opt(AGAIN.namespace).await.is_ok_and(|found| found.is_none())
    })
    .await?;
    ensure!(keys == self::keys(cluster).await?, "the bucket has changed");
    are_there(cluster, &AGAIN.is_ready(cluster, &manifest).await?, &images).await?;
    given::gone(cluster, &[AGAIN.namespace]).await
}

/// Pulls every image from every node; their stores are empty.
async fn are_there(cluster: &Cluster, registry: &Registry, images: &[Image]) -> Result<()> {
    let mut all = AGAIN.nodes(cluster).await?;
    all.push(registry.clone());
    for registry in all {
        for (number, image) in images.iter().enumerate() {
            registry.pull_image(&format!("kept/{number}"), "1", image).await?;
        }
    }
    Ok(())
}

async fn keys(cluster: &Cluster) -> Result<Vec<String>> {
    cluster.s3().keys(&AGAIN.prefix()).await
}

/// All objects with the registry's label, as kind and uid.
async fn children(cluster: &Cluster) -> Result<Vec<String>> {
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

async fn of<K>(cluster: &Cluster) -> Result<Vec<String>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(cluster.client().clone(), AGAIN.namespace);
    let list = api.list(&AGAIN.selector()).await?;
    Ok(list.iter().map(|object| format!("{} {:?}", K::kind(&()), object.meta().uid)).collect())
}
