//! The bucket, and how registry pods authenticate to it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// S3 bucket that stores the images. It must exist. Deleting the RegistryCluster does not delete
/// it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.name == oldSelf.name")
        .message("field is immutable; create another RegistryCluster").field_path(".name"),
    validation = Rule::new("self.prefix == oldSelf.prefix")
        .message("field is immutable; create another RegistryCluster").field_path(".prefix"),
    validation = Rule::new("self.prefix == '' || (self.prefix.endsWith('/') && !self.prefix.startsWith('/'))")
        .message("must be empty or a relative path that ends with '/'")
        .field_path(".prefix"),
    validation = Rule::new("!self.prefix.contains('//') && !self.prefix.matches('(^|/)[.][.]?/')")
        .message("must not contain empty, '.' or '..' path segments").field_path(".prefix"),
    validation = Rule::new("!has(self.endpoint) || self.endpoint.startsWith('https://') || self.insecure")
        .message("must be https://, or set spec.bucket.insecure: true to accept that others can read the traffic")
        .field_path(".endpoint"),
    validation = Rule::new(
        "!has(self.endpoint) || self.endpoint.startsWith('https://') || !has(self.auth.secretRef) || \
         !has(self.auth.secretRef.sessionTokenKey)"
    ).message("requires an https:// endpoint, because a session token is sent as it is")
        .field_path(".auth.secretRef.sessionTokenKey"),
)]
pub struct Bucket {
    /// Name of the bucket: 3 to 255 letters, digits, `-`, `.` or `_`. Immutable.
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub name: String,
    /// Prefix of all object keys, before `docker/registry/v2/`. Empty (default), or a relative path
    /// that ends with `/`. Immutable.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub prefix: String,
    /// Region of the bucket. If unset: the region from the AWS environment of the pod, else,
    /// without `endpoint`, the region from the instance metadata, else us-east-1.
    #[schemars(length(min = 1, max = 64))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// URL of an S3-compatible service, without a path, for example `https://minio.storage:9000`.
    /// If unset, the AWS endpoint of the region is used. An `http://` endpoint requires `insecure:
    /// true`. The operator must allow the host (`allowed.endpoints` in the chart; by default any).
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^/?#@\s]+/?$"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Allow an `http://` endpoint. Everybody on the way can then read the images and the access key
    /// ID, and can change what the pods read. Defaults to false.
    #[serde(default)]
    pub insecure: bool,
    /// Use path-style instead of virtual-hosted-style addressing. Most S3-compatible services
    /// require it. Defaults to false.
    #[serde(default)]
    pub path_style: bool,
    /// CA certificates to trust in addition to the system's, for connections to the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<CaBundle>,
    /// How pods authenticate to the bucket. Exactly one of `secretRef` and `workloadIdentity` must
    /// be set.
    pub auth: Auth,
}

/// How registry pods authenticate to the bucket.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.workloadIdentity)")
    .message("exactly one of secretRef and workloadIdentity must be set"))]
pub struct Auth {
    /// Secret in the same namespace that holds static keys. It must have the label `entrepot.dev/use:
    /// bucket`, with which its owner allows registries to send its keys to their endpoints. Pods pick
    /// up changed keys without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<Secret>,
    /// Use the cloud provider's workload identity (for example IRSA on EKS) of the pods'
    /// ServiceAccount instead of static keys.
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
    /// Key in the Secret that holds the access key ID. Defaults to `accessKeyId`.
    #[serde(default = "access_key_id")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub access_key_id_key: String,
    /// Key in the Secret that holds the secret access key. Defaults to `secretAccessKey`.
    #[serde(default = "secret_access_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub secret_access_key_key: String,
    /// Key in the Secret that holds the session token. If unset, no session token is used.
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

/// Workload identity of a cloud provider, bound to the ServiceAccount of the registry pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentity {
    /// Annotations of the pods' ServiceAccount, which is named after the RegistryCluster, such as
    /// `eks.amazonaws.com/role-arn`. The operator must allow each
    /// (`allowed.serviceAccountAnnotations` in the chart).
    #[serde(default)]
    pub service_account_annotations: BTreeMap<String, String>,
}

/// A PEM file in a ConfigMap or Secret of the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// Kind of the object that holds the CA certificates: `ConfigMap` (default) or `Secret`.
    #[serde(default)]
    pub kind: CaKind,
    /// Name of the ConfigMap or Secret, in the same namespace. Pods do not start before it exists. A
    /// Secret must have the label `entrepot.dev/use: ca`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the ConfigMap or Secret that holds the PEM-encoded certificates. Defaults to
    /// `ca.crt`.
    #[serde(default = "ca_crt")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn ca_crt() -> String {
    "ca.crt".into()
}

/// Kind of the object that holds CA certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CaKind {
    #[default]
    ConfigMap,
    Secret,
}
