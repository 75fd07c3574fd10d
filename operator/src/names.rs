//! Names, labels and annotations of the objects that the operator creates. Users and other programs
//! rely on them, so they never change.

use crate::crd::RegistryCluster;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

/// The field manager of every apply, the value of the label `managed-by`, and the controller named
/// in events.
pub const MANAGER: &str = "entrepot-operator";
/// The label by which the operator's watches select its objects.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label with the name of the RegistryCluster.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// On the pod template: hash of the part of the nodes' configuration that requires a restart when
/// it changes.
pub const CONFIG_HASH: &str = "entrepot.dev/config-hash";
/// On a Secret: the purpose for which its owner allows registries to use it. A Secret without it is
/// never mounted, because who may create a RegistryCluster may not read Secrets for that reason.
pub const USE: &str = "entrepot.dev/use";
/// The revision of the StatefulSet from which a pod was created.
pub const REVISION: &str = "controller-revision-hash";
/// Name of the node's container.
pub const CONTAINER: &str = "node";
/// Name of the claim template; the claim of a node is `store-<cluster>-<ordinal>`.
pub const VOLUME: &str = "store";
/// A node's port for pushes and pulls.
pub const REGISTRY_PORT: u16 = 5000;
/// A node's port for probes, metrics and `/status`.
pub const OPERATIONS_PORT: u16 = 5001;

/// Name, namespace and uid of a RegistryCluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the cluster.
    pub name: String,
    /// Namespace of the cluster and of all its objects.
    pub namespace: String,
    /// The uid: another cluster of the same name has another.
    pub uid: String,
}

impl Identity {
    /// The identity of a RegistryCluster from the API server.
    pub fn of(cluster: &impl ResourceExt) -> Identity {
        Identity {
            name: cluster.name_any(),
            namespace: cluster.namespace().unwrap_or_default(),
            uid: cluster.uid().unwrap_or_default(),
        }
    }

    /// The headless Service, which gives every node a DNS name.
    pub fn nodes_service(&self) -> String {
        format!("{}-nodes", self.name)
    }

    /// The ConfigMap with the configuration of the nodes.
    pub fn config_map(&self) -> String {
        format!("{}-config", self.name)
    }

    /// Labels that select only the nodes of this cluster. They never change, because the selector
    /// of a StatefulSet is immutable.
    pub fn selector(&self) -> Value {
        json!({
            "app.kubernetes.io/name": "entrepot",
            INSTANCE: self.name,
            "app.kubernetes.io/component": "node",
        })
    }

    /// The selector in the form of the scale subresource.
    pub fn selector_text(&self) -> String {
        format!("app.kubernetes.io/name=entrepot,{INSTANCE}={},app.kubernetes.io/component=node", self.name)
    }

    /// Labels of every object of the cluster.
    pub fn labels(&self) -> Value {
        let mut labels = self.selector();
        labels[MANAGED_BY] = json!(MANAGER);
        labels["app.kubernetes.io/part-of"] = json!("entrepot");
        labels
    }

    /// Metadata of an object of the cluster, with the RegistryCluster as its controller.
    pub fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(),
            "ownerReferences": [{
                "apiVersion": RegistryCluster::api_version(&()),
                "kind": RegistryCluster::kind(&()),
                "name": self.name,
                "uid": self.uid,
                "controller": true,
            }],
        })
    }

    /// Whether an object with these owners belongs to this cluster.
    pub fn owns(&self, owners: &[OwnerReference]) -> bool {
        owners.iter().any(|owner| owner.uid == self.uid)
    }
}
