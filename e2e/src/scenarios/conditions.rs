//! Reads the status and events of RegistryClusters.

use super::given::{Named, SOON};
use crate::cluster::Cluster;
use crate::wait;
use anyhow::{Context, Result};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

/// The API for a kind in a namespace, for example RegistryClusters.
pub fn objects(cluster: &Cluster, namespace: &str, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(cluster.client().clone(), namespace, &resource)
}

/// A condition as reported in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub status: String,
    pub reason: String,
    pub message: String,
}

impl Named {
    /// The whole object.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn object(self, cluster: &Cluster) -> Result<Value> {
        let clusters = objects(cluster, self.namespace, "entrepot.dev", "v1alpha1", "RegistryCluster");
        Ok(serde_json::to_value(clusters.get(self.name).await?)?)
    }

    /// A condition of the present generation of the spec, if there is one.
    ///
    /// # Errors
    /// If the registry does not exist.
    pub async fn condition(self, cluster: &Cluster, kind: &str) -> Result<Option<Condition>> {
        let object = self.object(cluster).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let current = |condition: &&Value| {
            condition["type"] == kind && condition["observedGeneration"] == object["metadata"]["generation"]
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(conditions.iter().find(current).map(|condition| Condition {
            status: text(&condition["status"]),
            reason: text(&condition["reason"]),
            message: text(&condition["message"]),
        }))
    }

    /// Waits until a condition of the present generation has this status and reason. Returns its
    /// message.
    ///
    /// # Errors
    /// If it does not; the message contains the condition instead.
    pub async fn becomes(self, cluster: &Cluster, kind: &str, status: &str, reason: &str) -> Result<String> {
        let what = format!("{}/{} has {kind}={status} ({reason})", self.namespace, self.name);
        let seen = wait::value(&what, SOON, || async {
            let seen = self.condition(cluster, kind).await.ok().flatten()?;
            (seen.status == status && seen.reason == reason).then_some(seen.message)
        });
        match seen.await {
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
    pub async fn has_event(self, cluster: &Cluster, reason: &str) -> Result<()> {
        let events = objects(cluster, self.namespace, "events.k8s.io", "v1", "Event");
        wait::until(&format!("{}/{} has an event {reason}", self.namespace, self.name), SOON, || async {
            let Ok(list) = events.list(&kube::api::ListParams::default()).await else { return false };
            list.iter().any(|event| {
                let (regarding, named) = (&event.data["regarding"], &event.data["reason"]);
                regarding["kind"] == "RegistryCluster" && regarding["name"] == self.name && *named == reason
            })
        })
        .await
    }
}
