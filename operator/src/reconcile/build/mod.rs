//! Builds the objects of a cluster. Pure: the same cluster gives the same objects, and nothing here
//! can fail, because `validate` has rejected every invalid cluster.

mod disruption;
mod ingress;
mod monitor;
mod pod;
mod services;
mod stateful_set;
#[cfg(test)]
mod tests;

use super::validate::Valid;
use crate::crd::RegistryCluster;
use crate::names::Identity;
use serde_json::{Value, json};

pub(crate) use pod::{ACCESS_KEY_ID, CA_FILE, SECRET_ACCESS_KEY, SESSION_TOKEN, STORE_FOLDER};
pub(crate) use stateful_set::DRAIN;
pub use stateful_set::TERMINATION_GRACE;

/// Kinds of children in the order of their application: the objects that nodes need come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ServiceAccount,
    ConfigMap,
    Service,
    PodDisruptionBudget,
    StatefulSet,
    Ingress,
    ServiceMonitor,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::ServiceAccount,
        Kind::ConfigMap,
        Kind::Service,
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
            Kind::Ingress => "Ingress",
            Kind::ServiceMonitor => "ServiceMonitor",
        }
    }

    /// Whether nodes cannot run or be reached without it. Without the other kinds they still serve.
    pub fn is_of_nodes(self) -> bool {
        matches!(self, Kind::ServiceAccount | Kind::ConfigMap | Kind::Service | Kind::StatefulSet)
    }

    /// Group and version of the kind.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::ServiceAccount | Kind::ConfigMap | Kind::Service => "v1",
            Kind::PodDisruptionBudget => "policy/v1",
            Kind::StatefulSet => "apps/v1",
            Kind::Ingress => "networking.k8s.io/v1",
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
    fn new(kind: Kind, identity: &Identity, name: String, body: Value) -> Child {
        let mut object = body;
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.name());
        object["metadata"] = identity.metadata(&name);
        Child { kind, name, object }
    }

    fn annotate(mut self, annotations: &std::collections::BTreeMap<String, String>) -> Child {
        if !annotations.is_empty() {
            self.object["metadata"]["annotations"] = json!(annotations);
        }
        self
    }
}

/// All children in the order of their application.
pub fn build(cluster: &RegistryCluster, valid: &Valid) -> Vec<Child> {
    let identity = &valid.identity;
    let spec = &cluster.spec;
    let mut children = vec![
        service_account(identity, spec.bucket.auth.workload_identity.as_ref()),
        Child::new(
            Kind::ConfigMap,
            identity,
            identity.config_map(),
            json!({"data": {pod::CONFIG_FILE: valid.config_text}}),
        ),
        services::nodes(identity),
        services::clients(identity, &spec.service),
        disruption::budget(identity, &spec.pod_disruption_budget),
        stateful_set::nodes(identity, spec, valid),
    ];
    children.extend(ingress::ingress(identity, spec));
    children.extend(monitor::monitor(identity, &spec.monitoring));
    children
}

fn service_account(identity: &Identity, workload: Option<&crate::crd::WorkloadIdentity>) -> Child {
    // Nodes do not use the API server.
    let body = json!({"automountServiceAccountToken": false});
    let child = Child::new(Kind::ServiceAccount, identity, identity.name.clone(), body);
    match workload {
        Some(workload) => child.annotate(&workload.service_account_annotations),
        None => child,
    }
}
