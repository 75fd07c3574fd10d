//! The NetworkPolicy of the registry pods, if the spec requests one.

use super::child::{Child, Kind};
use crate::crd::NetworkPolicy;
use crate::installation::Installation;
use crate::names::{Identity, OPERATIONS_PORT, REGISTRY_PORT};
use serde_json::{Value, json};

/// The kubelet's probes need no rule: connections from a pod's own Kubernetes node are always
/// allowed.
pub(super) fn policy(identity: &Identity, policy: &NetworkPolicy, installation: &Installation) -> Option<Child> {
    if !policy.enabled {
        return None;
    }
    let own = json!({"podSelector": {"matchLabels": identity.selector()}});
    let mut registry = rule(REGISTRY_PORT);
    // Without `from`, everybody is allowed.
    if !policy.registry_from.is_empty() {
        let others = policy.registry_from.iter().map(|peer| json!(peer));
        registry["from"] = std::iter::once(own).chain(others).collect();
    }
    let mut operations = rule(OPERATIONS_PORT);
    let others = installation.monitoring.0.iter().chain(&policy.operations_from).map(|peer| json!(peer));
    operations["from"] = std::iter::once(installation.operator()).chain(others).collect();
    let body = json!({"spec": {
        "podSelector": {"matchLabels": identity.selector()},
        "policyTypes": ["Ingress"],
        "ingress": [registry, operations],
    }});
    Some(Child::new(Kind::NetworkPolicy, identity, identity.name.clone(), body))
}

fn rule(port: u16) -> Value {
    json!({"ports": [{"port": port, "protocol": "TCP"}]})
}
