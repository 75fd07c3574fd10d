//! `RegistryCluster`: the desired and the observed state of a registry. The schema rejects invalid
//! values where it can, with a message that names the rule. Values that only these types reject are
//! reported in the status of the object. Defaults are in the schema and nowhere else.

mod bucket;
mod count;
mod network;
mod options;
mod quantity;
mod status;
mod store;
mod strict;

pub use bucket::{Auth, Bucket, CaKind, WorkloadIdentity};
pub use network::NetworkPolicy;
pub use options::{Disruption, Ingress, Links, Monitoring, Resources, Scheduling, Service, ServiceType, Tags};
pub use quantity::Quantity;
pub use status::{Status, StoreSummary};
pub use store::{ReclaimPolicy, ResizePolicy, Store};

use entrepot_config::ReplicationMode;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use serde::{Deserialize, Serialize};

/// Desired state of the RegistryCluster.
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
    doc = "RegistryCluster is a container registry: pods that store images in one S3 bucket and cache them \
           on local volumes.",
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
        .message("metadata.name must be no more than 40 characters, because pod and volume names are derived from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name must consist of lowercase letters, digits or '-', start with a letter and end with a letter or \
         digit, because a Service is named after it"
    ),
    // While the StorageClass cannot expand, `size` may shrink: no volume has the larger size yet.
    validation = Rule::new(
        "self.spec.store.resizePolicy == 'Recreate' || \
         quantity(self.spec.store.size).compareTo(quantity(oldSelf.spec.store.size)) >= 0 || \
         (has(self.status) && has(self.status.conditions) && self.status.conditions.exists(told, \
         told.type == 'StorageResized' && told.reason == 'StorageClassCannotExpand'))"
    ).message(
        "must not be decreased while spec.store.resizePolicy is Expand; set it to Recreate to shrink the volumes"
    )
    .field_path(".spec.store.size")
)]
#[serde(rename_all = "camelCase")]
pub struct RegistryClusterSpec {
    /// Number of registry pods. Defaults to 3. Supports `kubectl scale` and
    /// HorizontalPodAutoscalers.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Container image of the registry pods. Defaults to the operator's `--node-image` (`nodeImage`
    /// in the chart). The operator must allow it: another tag or digest of its own `--node-image`, or
    /// an image of `allowed.nodeImages` in the chart. Changing it restarts the pods, one at a time.
    #[schemars(length(min = 1, max = 512))]
    // `image` is its former name.
    #[serde(skip_serializing_if = "Option::is_none", alias = "image")]
    pub node_image: Option<String>,
    /// S3 bucket that stores the images. It must exist; the operator neither creates nor deletes
    /// it.
    pub bucket: Bucket,
    /// Local disk store of each registry pod, on a PersistentVolumeClaim of its own: it caches content
    /// of the bucket and receives uploads.
    // `cache` is its former name, which scripts that run against every build still write.
    #[serde(alias = "cache")]
    pub store: Store,
    /// When a pushed blob is acknowledged. `WriteThrough` (default): when it is in the bucket.
    /// `WriteBack`: when it is on the local volume of the pod that received it; the pod sends it to
    /// the bucket afterwards, and losing the volume before that loses the blob. Manifests are
    /// acknowledged only when they and everything they reference are in the bucket.
    #[serde(default)]
    pub replication: ReplicationMode,
    /// How long pods rely on what they have read of a repository.
    #[serde(default)]
    pub links: Links,
    /// Tag caching and immutable tags.
    #[serde(default)]
    pub tags: Tags,
    /// Names of this registry in addition to the address to which the client connects, such as
    /// `registry.example.com`. Required if containerd reaches the registry through a mirror
    /// (`hosts.toml`) under a name that differs from the one in the image reference. Requests that
    /// containerd sends for any other registry name get 404. Defaults to none.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)))]
    pub namespaces: Vec<String>,
    /// Pause reconciliation: existing objects are kept, and manual changes are not reverted.
    /// Defaults to false.
    #[serde(default)]
    pub paused: bool,
    /// Reject pushes and deletions with 405 Method Not Allowed. Defaults to false.
    #[serde(default)]
    pub read_only: bool,
    /// Resource requests and limits of the registry container.
    #[serde(default)]
    pub resources: Resources,
    /// Scheduling constraints of the registry pods. Pods are also spread over hosts and zones where
    /// possible.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// PodDisruptionBudget of the registry pods. Defaults to `maxUnavailable: 1`.
    #[serde(default)]
    pub pod_disruption_budget: Disruption,
    /// The Service that clients use.
    #[serde(default)]
    pub service: Service,
    /// Ingress for the Service. Not created unless `host` is set.
    #[serde(default)]
    pub ingress: Ingress,
    /// ServiceMonitor for the Prometheus Operator.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// NetworkPolicy of the registry pods. Not created unless `enabled` is true.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
}

fn three() -> i32 {
    3
}

/// The CustomResourceDefinition as it is installed.
///
/// # Errors
/// If the generated schema is not valid, which a test rules out.
pub fn definition() -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut definition = serde_json::to_value(RegistryCluster::crd())?;
    // The API server drops a null value of a field that is not nullable. For a nullable field,
    // `has()` would be true for null.
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

/// Why the CustomResourceDefinition cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error("cannot generate the schema of RegistryCluster: {0}")]
    Schema(#[from] serde_json::Error),
    #[error("cannot write the CustomResourceDefinition as YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// The CustomResourceDefinition as YAML, as in `crds/`.
///
/// # Errors
/// If it cannot be generated, which a test rules out.
pub fn definition_yaml() -> Result<String, DefinitionError> {
    // Through JSON values, because their keys are sorted.
    let text = serde_saphyr::to_string(&serde_json::to_value(definition()?)?)?;
    Ok(format!("# Generated by `entrepot-operator crd`; a test fails if this file differs. Do not edit.\n{text}"))
}
