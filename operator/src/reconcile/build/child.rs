//! One object of a cluster, and the kinds of such objects.

use crate::names::Identity;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Kinds of children in the order of their application: the objects that nodes need come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ServiceAccount,
    ConfigMap,
    Service,
    NetworkPolicy,
    PodDisruptionBudget,
    StatefulSet,
    Ingress,
    ServiceMonitor,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::ServiceAccount,
        Kind::ConfigMap,
        Kind::Service,
        Kind::NetworkPolicy,
        Kind::PodDisruptionBudget,
        Kind::StatefulSet,
        Kind::Ingress,
        Kind::ServiceMonitor,
    ];

    /// The name of the kind in the API.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ServiceAccount => "ServiceAccount",
            Kind::ConfigMap => "ConfigMap",
            Kind::Service => "Service",
            Kind::PodDisruptionBudget => "PodDisruptionBudget",
            Kind::StatefulSet => "StatefulSet",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::Ingress => "Ingress",
            Kind::ServiceMonitor => "ServiceMonitor",
        }
    }

    /// Whether nodes cannot run or be reached without it, or could be reached by too many. Without
    /// the other kinds they still serve.
    pub fn is_of_nodes(self) -> bool {
        let network = matches!(self, Kind::Service | Kind::NetworkPolicy);
        network || matches!(self, Kind::ServiceAccount | Kind::ConfigMap | Kind::StatefulSet)
    }

    /// Group and version of the kind.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::ServiceAccount | Kind::ConfigMap | Kind::Service => "v1",
            Kind::PodDisruptionBudget => "policy/v1",
            Kind::StatefulSet => "apps/v1",
            Kind::NetworkPolicy | Kind::Ingress => "networking.k8s.io/v1",
            Kind::ServiceMonitor => "monitoring.coreos.com/v1",
        }
    }
}

/// One object of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    pub kind: Kind,
    pub name: String,
    /// The whole object: exactly the fields that the operator owns.
    pub object: Value,
}

impl Child {
    /// Kind and name, for messages.
    pub fn label(&self) -> String {
        format!("{} {}", self.kind.name(), self.name)
    }

    /// `body` has all top-level fields except `apiVersion`, `kind` and `metadata`.
    pub(super) fn new(kind: Kind, identity: &Identity, name: String, body: Value) -> Child {
        let mut object = body;
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.name());
        object["metadata"] = identity.metadata(&name);
        Child { kind, name, object }
    }

    pub(super) fn annotate(mut self, annotations: &BTreeMap<String, String>) -> Child {
        if !annotations.is_empty() {
            self.object["metadata"]["annotations"] = json!(annotations);
        }
        self
    }
}
