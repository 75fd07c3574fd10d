//! The bucket, and how nodes show who they are to it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The object storage that all nodes share. It must exist; deleting a RegistryCluster keeps it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.name == oldSelf.name")
        .message("bucket.name cannot be changed: make another RegistryCluster").field_path(".name"),
    validation = Rule::new("self.prefix == oldSelf.prefix")
        .message("bucket.prefix cannot be changed: make another RegistryCluster").field_path(".prefix"),
    validation = Rule::new("self.prefix == '' || (self.prefix.endsWith('/') && !self.prefix.startsWith('/'))")
        .message("bucket.prefix is empty or a path that ends with '/' and does not begin with it")
        .field_path(".prefix"),
    validation = Rule::new("!self.prefix.contains('//') && !self.prefix.matches('(^|/)[.][.]?/')")
        .message("bucket.prefix has no empty part and none that is '.' or '..'").field_path(".prefix"),
)]
pub struct Bucket {
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub name: String,
    /// What all keys begin with, before `docker/registry/v2/`: empty, or a path that ends with `/`.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub prefix: String,
    /// Region of the bucket.
    #[schemars(length(min = 1, max = 64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// URL of a service that is compatible with S3; without it, Amazon's for the region.
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^/?#\s]+/?$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether the bucket's name goes into the path and not into the host name; most compatible services need it.
    #[serde(default)]
    pub path_style: bool,
    /// Certificate authorities to trust beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundle>,
    /// Exactly one of `secretRef` and `workloadIdentity`.
    pub auth: Auth,
}

/// Who the nodes are to the bucket.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.workloadIdentity)")
    .message("bucket.auth has exactly one of secretRef and workloadIdentity"))]
pub struct Auth {
    /// Static keys in a Secret of the same namespace. It may be made later and changed at any time: nodes read it
    /// again, without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<Secret>,
    /// The cloud knows the nodes by their ServiceAccount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<WorkloadIdentity>,
}

/// A Secret with static keys.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key that holds the access key id.
    #[serde(default = "access_key_id")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub access_key_id_key: String,
    /// Its key that holds the secret access key.
    #[serde(default = "secret_access_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub secret_access_key_key: String,
    /// Its key that holds a session token, if there is one.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token_key: Option<String>,
}

fn access_key_id() -> String {
    "accessKeyId".into()
}

fn secret_access_key() -> String {
    "secretAccessKey".into()
}

/// An identity of the cloud, bound to the nodes' ServiceAccount.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentity {
    /// Annotations of the ServiceAccount, such as `eks.amazonaws.com/role-arn`.
    #[serde(default)]
    pub service_account_annotations: BTreeMap<String, String>,
}

/// A PEM file in a ConfigMap or Secret of the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// What it lies in.
    #[serde(default)]
    pub kind: CaKind,
    /// Name of the ConfigMap or Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key that holds the certificates.
    #[serde(default = "ca_crt")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn ca_crt() -> String {
    "ca.crt".into()
}

/// What certificates lie in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaKind {
    #[default]
    ConfigMap,
    Secret,
}
