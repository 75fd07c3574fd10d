//! `RegistryCluster`: what a user asks for and what is told of it. What the schema can refuse it refuses, with a message
//! that names the rule; what only these types refuse, the object's own status tells. Defaults stand in the schema and
//! nowhere else.

mod bucket;
mod cache;
mod options;
mod quantity;
mod status;
mod strict;

pub use bucket::{Auth, Bucket, CaBundle, CaKind, Secret, WorkloadIdentity};
pub use cache::{Cache, ResizePolicy, Retention};
pub use options::{Disruption, Ingress, Monitoring, Resources, Scheduling, Service, ServiceType, Tags};
pub use quantity::{NotAQuantity, Quantity};
pub use status::{CacheSummary, Status};

use entrepot_config::ReplicationMode;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use serde::{Deserialize, Serialize};

/// A registry of Entrepot: nodes that share one bucket.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "entrepot.dev",
    version = "v1alpha1",
    kind = "RegistryCluster",
    namespaced,
    shortname = "rgc",
    category = "all",
    status = "Status",
    derive = "PartialEq",
    doc = "A registry of Entrepot: nodes that share one bucket.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(
        name = "Bucket",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"BucketReachable\")].status"
    ),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("metadata.name has at most 40 characters, for the names of pods and volumes are made of it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name begins with a letter and has only lower-case letters, digits and '-', for it names a Service"
    ),
    // A size that the StorageClass cannot give is set back: nothing has grown to it.
    validation = Rule::new(
        "self.spec.cache.resizePolicy == 'Recreate' || \
         quantity(self.spec.cache.size).compareTo(quantity(oldSelf.spec.cache.size)) >= 0 || \
         (has(self.status) && has(self.status.conditions) && self.status.conditions.exists(told, \
         told.type == 'StorageResized' && told.reason == 'StorageClassCannotExpand'))"
    ).message("cache.size never shrinks while cache.resizePolicy is Expand").field_path(".spec.cache.size")
)]
#[serde(rename_all = "camelCase")]
pub struct RegistryClusterSpec {
    /// Nodes. `kubectl scale` and a HorizontalPodAutoscaler write it.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Image of the nodes; without it, the one that the operator was released with.
    #[schemars(length(min = 1, max = 512))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The object storage that all nodes share.
    pub bucket: Bucket,
    /// Every node's local disk store.
    pub cache: Cache,
    /// When a blob is acknowledged. A manifest is acknowledged when it and all that it refers to is in the bucket, in
    /// either mode.
    #[serde(default)]
    pub replication: ReplicationMode,
    /// How tags are read and who may change them.
    #[serde(default)]
    pub tags: Tags,
    /// Names under which clients know this registry in addition to the address of the connection, such as
    /// `registry.example.com` in images that containerd pulls from a mirror (its `hosts.toml`). What containerd asks for
    /// in any other registry's name is answered 404.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)))]
    pub namespaces: Vec<String>,
    /// Reconcile nothing: whatever is there stays as it is, and edits by hand are left alone.
    #[serde(default)]
    pub paused: bool,
    /// Refuse everything that writes: pushes and deletions answer 405.
    #[serde(default)]
    pub read_only: bool,
    /// Requests and limits of a node.
    #[serde(default)]
    pub resources: Resources,
    /// Where nodes may run. They are spread over hosts and zones in any case.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// How many nodes may be taken away at once by a drain.
    #[serde(default)]
    pub pod_disruption_budget: Disruption,
    /// The Service that clients use.
    #[serde(default)]
    pub service: Service,
    /// An Ingress, when a host is named.
    #[serde(default)]
    pub ingress: Ingress,
    /// What Prometheus' operator is told.
    #[serde(default)]
    pub monitoring: Monitoring,
}

fn three() -> i32 {
    3
}

/// The definition as it is installed.
///
/// # Errors
/// When the generated schema is not one, which a test rules out.
pub fn definition() -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut definition = serde_json::to_value(RegistryCluster::crd())?;
    // The API server drops a null where a field is not nullable. Where it is, `has()` would be true of null.
    remove_nullable(&mut definition);
    definition["metadata"]["labels"] = serde_json::json!({"app.kubernetes.io/part-of": "entrepot"});
    serde_json::from_value(definition)
}

fn remove_nullable(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            if members.get("nullable") == Some(&serde_json::Value::Bool(true)) {
                members.remove("nullable");
            }
            members.values_mut().for_each(remove_nullable);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(remove_nullable),
        _ => {}
    }
}

/// Why the definition cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error("the schema: {0}")]
    Schema(#[from] serde_json::Error),
    #[error("the YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The definition as YAML, as `crds/` holds it.
///
/// # Errors
/// When it cannot be generated, which a test rules out.
pub fn definition_yaml() -> Result<String, DefinitionError> {
    // By way of JSON values, whose keys are in order.
    let text = serde_saphyr::to_string(&serde_json::to_value(definition()?)?)?;
    Ok(format!("# Generated by `entrepot-operator crd`; a test fails when it drifts. Do not edit.\n{text}"))
}
