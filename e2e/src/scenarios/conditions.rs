//! Reads the RegistryCluster of a fixture: its conditions and events.

use super::fixture::{Fixture, TIMEOUT};
use crate::cluster::Cluster;
use crate::wait;
use anyhow::{Context, Result};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;

/// The RegistryClusters of a namespace.
pub fn registry_clusters(cluster: &dyn Cluster, namespace: &str) -> Api<DynamicObject> {
    objects(cluster, namespace, "entrepot.dev", "v1alpha1", "RegistryCluster")
}

fn objects(cluster: &dyn Cluster, namespace: &str, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(cluster.client().clone(), namespace, &resource)
}

impl Fixture {
    /// The RegistryCluster.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn object(self, cluster: &dyn Cluster) -> Result<DynamicObject> {
        Ok(registry_clusters(cluster, self.namespace).get(self.name).await?)
    }

    /// The status of the RegistryCluster.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn status(self, cluster: &dyn Cluster) -> Result<Value> {
        Ok(self.object(cluster).await?.data["status"].clone())
    }

    /// A condition of the present generation of the spec, if there is one.
    ///
    /// # Errors
    /// If the registry does not exist.
    pub async fn condition(self, cluster: &dyn Cluster, kind: &str) -> Result<Option<Condition>> {
        let object = self.object(cluster).await?;
        let conditions = match &object.data["status"]["conditions"] {
            Value::Null => Vec::new(),
            conditions => serde_json::from_value::<Vec<Condition>>(conditions.clone())?,
        };
        let is_current = |condition: &Condition| {
            condition.type_ == kind && condition.observed_generation == object.metadata.generation
        };
        Ok(conditions.into_iter().find(is_current))
    }

    /// Waits until a condition of the present generation has this status and reason. Returns its
    /// message.
    ///
    /// # Errors
    /// If it does not; the message contains the condition instead.
    pub async fn becomes(self, cluster: &dyn Cluster, kind: &str, status: &str, reason: &str) -> Result<String> {
        let what = format!("{}/{} has {kind}={status} ({reason})", self.namespace, self.name);
        let found = wait::value(&what, TIMEOUT, || async {
            let condition = self.condition(cluster, kind).await.ok().flatten()?;
            (condition.status == status && condition.reason == reason).then_some(condition.message)
        });
        match found.await {
            Ok(message) => Ok(message),
            Err(error) => {
                let instead = self.condition(cluster, kind).await?;
                Err(error).with_context(|| format!("last seen {kind}: {instead:?}"))
            }
        }
    }

    /// Waits until an event with this reason exists for the registry.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn has_event(self, cluster: &dyn Cluster, reason: &str) -> Result<()> {
        let events = objects(cluster, self.namespace, "events.k8s.io", "v1", "Event");
        wait::until(&format!("{}/{} has an event {reason}", self.namespace, self.name), TIMEOUT, || async {
            let Ok(list) = events.list(&ListParams::default()).await else { return false };
            list.iter().any(|event| {
                let (regarding, of_event) = (&event.data["regarding"], &event.data["reason"]);
                regarding["kind"] == "RegistryCluster" && regarding["name"] == self.name && *of_event == reason
            })
        })
        .await
    }
}
