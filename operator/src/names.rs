//! Names, labels and annotations of what the operator makes. Others rely on them: they never change.

use crate::crd::RegistryCluster;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

/// The field manager of every apply, the label `managed-by`, and the controller that events name.
pub const MANAGER: &str = "entrepot-operator";
/// The label by which all that the operator makes is watched.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label that names the RegistryCluster.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// On the pod template: the hash of that part of the nodes' configuration whose change restarts them.
pub const CONFIG_HASH: &str = "entrepot.dev/config-hash";
/// The revision of the StatefulSet that a pod was made of.
pub const REVISION: &str = "controller-revision-hash";
/// The node's container.
pub const CONTAINER: &str = "node";
/// The claim template: a node's volume is `store-<cluster>-<ordinal>`.
pub const VOLUME: &str = "store";
/// Where clients push and pull, at a node.
pub const REGISTRY_PORT: u16 = 5000;
/// Where probes, metrics and `/status` are, at a node.
pub const OPERATIONS_PORT: u16 = 5001;

/// Who a cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

impl Identity {
    pub fn of(cluster: &impl ResourceExt) -> Identity {
        Identity {
            name: cluster.name_any(),
            namespace: cluster.namespace().unwrap_or_default(),
            uid: cluster.uid().unwrap_or_default(),
        }
    }

    /// The headless Service, in which every node has a name.
    pub fn nodes_service(&self) -> String {
        format!("{}-nodes", self.name)
    }

    pub fn config_map(&self) -> String {
        format!("{}-config", self.name)
    }

    /// Name of a node's volume claim.
    pub fn claim(&self, ordinal: i32) -> String {
        format!("{VOLUME}-{}-{ordinal}", self.name)
    }

    /// Labels that select the nodes of this cluster and nothing else; they never change, for a StatefulSet's cannot.
    pub fn selector(&self) -> Value {
        json!({
            "app.kubernetes.io/name": "entrepot",
            INSTANCE: self.name,
            "app.kubernetes.io/component": "node",
        })
    }

    /// The selector as the scale subresource wants it.
    pub fn selector_text(&self) -> String {
        format!("app.kubernetes.io/name=entrepot,{INSTANCE}={},app.kubernetes.io/component=node", self.name)
    }

    /// Labels of everything.
    pub fn labels(&self) -> Value {
        let mut labels = self.selector();
        labels[MANAGED_BY] = json!(MANAGER);
        labels["app.kubernetes.io/part-of"] = json!("entrepot");
        labels
    }

    /// Metadata of a child.
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

    /// Whether an object belongs to this cluster.
    pub fn owns(&self, owners: &[OwnerReference]) -> bool {
        owners.iter().any(|owner| owner.uid == self.uid)
    }
}
