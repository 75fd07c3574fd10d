//! What a cluster is made of. Pure: the same cluster gives the same children, and nothing in here can fail, for what
//! could be wrong was refused by `validate`.

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

/// Kinds of children, in the order in which they are applied: what nodes need comes before the nodes.
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

    /// Its name in the API.
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

    /// Whether nodes are made of it or reached by it. Without the others they serve all the same.
    pub fn is_of_nodes(self) -> bool {
        matches!(self, Kind::ServiceAccount | Kind::ConfigMap | Kind::Service | Kind::StatefulSet)
    }

    /// Its group and version.
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
    /// The whole object: every field that is the operator's, and none that is not.
    pub object: Value,
}

impl Child {
    /// What it is called in messages.
    pub fn label(&self) -> String {
        format!("{} {}", self.kind.name(), self.name)
    }

    /// `body` has what comes beside `metadata`.
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

/// All children, in the order in which they are applied.
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
    // Nodes never speak to the API server.
    let body = json!({"automountServiceAccountToken": false});
    let child = Child::new(Kind::ServiceAccount, identity, identity.name.clone(), body);
    match workload {
        Some(workload) => child.annotate(&workload.service_account_annotations),
        None => child,
    }
}
