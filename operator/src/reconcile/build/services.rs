//! The two Services: the headless one by which nodes find each other, and the one for clients.

use super::child::{Child, Kind};
use crate::crd::{Service, ServiceType};
use crate::names::{Identity, OPERATIONS_PORT, REGISTRY_PORT};
use serde_json::json;

/// Gives every node a DNS name, ready or not: a node that shuts down is not ready, and other nodes
/// still forward requests for its upload sessions.
pub(super) fn nodes(identity: &Identity) -> Child {
    let body = json!({"spec": {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": true,
        "selector": identity.selector(),
        "ports": [
            {"name": "registry", "port": REGISTRY_PORT, "targetPort": "registry", "protocol": "TCP"},
            {"name": "operations", "port": OPERATIONS_PORT, "targetPort": "operations", "protocol": "TCP"},
        ],
    }});
    Child::new(Kind::Service, identity, identity.nodes_service(), body)
}

/// The Service for pushes and pulls; it leads to any ready node.
pub(super) fn clients(identity: &Identity, service: &Service) -> Child {
    let kind = match service.kind {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let mut port = json!({"name": "registry", "port": service.port, "targetPort": "registry", "protocol": "TCP"});
    if let Some(node_port) = service.node_port {
        port["nodePort"] = json!(node_port);
    }
    let body = json!({"spec": {"type": kind, "selector": identity.selector(), "ports": [port]}});
    Child::new(Kind::Service, identity, identity.name.clone(), body).annotate(&service.annotations)
}
