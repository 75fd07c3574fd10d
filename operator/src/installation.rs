//! What the operator's installation decides for every registry.

use crate::allowed::Allowed;
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use serde_json::{Value, json};
use std::str::FromStr;

/// What the operator's installation decides for every registry.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Image of the registry pods of clusters that have no spec.nodeImage.
    pub node_image: String,
    /// The namespace of the operator's pods.
    pub namespace: String,
    /// Who may read the metrics of registry pods that have a NetworkPolicy.
    pub monitoring: Peers,
    /// What RegistryClusters may use.
    pub allowed: Allowed,
}

impl Installation {
    /// The operator's pods, as a peer of a NetworkPolicy.
    pub fn operator(&self) -> Value {
        json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "entrepot-operator"}},
        })
    }
}

/// Peers of a NetworkPolicy, parsed from a JSON list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peers(pub Vec<NetworkPolicyPeer>);

impl FromStr for Peers {
    type Err = serde_json::Error;

    fn from_str(json: &str) -> Result<Peers, serde_json::Error> {
        serde_json::from_str(json).map(Peers)
    }
}
