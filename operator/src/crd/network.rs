//! Who may connect to the registry pods.

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// NetworkPolicy of the registry pods. NetworkPolicies add up: a connection is allowed if any policy
/// allows it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.enabled || (size(self.registryFrom) == 0 && size(self.operationsFrom) == 0)")
    .message("registryFrom and operationsFrom require spec.networkPolicy.enabled: true").field_path(".enabled"))]
pub struct NetworkPolicy {
    /// Create a NetworkPolicy. Defaults to false, because a policy that opens the registry's port
    /// would also open what other policies of the namespace keep closed.
    #[serde(default)]
    pub enabled: bool,
    /// Who may connect to port 5000 (pushes and pulls), as in `from` of a NetworkPolicy. Registry pods
    /// may always connect to each other. Defaults to everybody.
    #[serde(default)]
    #[schemars(schema_with = "peers")]
    pub registry_from: Vec<NetworkPolicyPeer>,
    /// Who may connect to port 5001 (probes, metrics and status), in addition to the operator and to
    /// `networkPolicy.monitoring` in the chart, which by default is Prometheus. Defaults to nobody.
    #[serde(default)]
    #[schemars(schema_with = "peers")]
    pub operations_from: Vec<NetworkPolicyPeer>,
}

/// The schema of the Kubernetes API without its descriptions, which would be longer than all others
/// of this resource.
fn peers(_: &mut SchemaGenerator) -> Schema {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let expression = json!({
        "type": "object", "required": ["key", "operator"],
        "properties": {
            "key": {"type": "string"},
            "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            "values": texts,
        },
    });
    let selector = json!({
        "type": "object",
        "properties": {
            "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
            "matchExpressions": {"type": "array", "items": expression},
        },
    });
    let block = json!({
        "type": "object", "required": ["cidr"], "properties": {"cidr": {"type": "string"}, "except": texts},
    });
    json_schema!({
        "type": "array", "maxItems": 64,
        "items": {
            "type": "object",
            "properties": {"ipBlock": block, "namespaceSelector": selector, "podSelector": selector},
        },
    })
}
