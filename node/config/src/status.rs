//! The response of a node's `/status`: JSON for the operator and for people.

use serde::{Deserialize, Serialize};

/// The whole response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// Name of the node (`node.name`).
    pub node: String,
    /// The last check of the bucket.
    pub bucket: BucketStatus,
    /// The configuration in effect.
    pub config: ConfigStatus,
    /// The access control in force.
    pub auth: AuthStatus,
    /// The space of the store.
    pub store: StoreStatus,
    /// Absent if the node uses TLS neither for clients nor for other nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
    /// Number of blobs that this node has not yet sent to the bucket.
    pub pending_blobs: u64,
    /// Size of those blobs in bytes.
    pub pending_bytes: u64,
}

/// Result of the last check of the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BucketStatus {
    /// Whether the check succeeded, or why not.
    pub state: BucketState,
    /// The error of the last check, for people. Empty if the check succeeded.
    pub message: String,
}

/// State of the bucket as a node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BucketState {
    /// The bucket responds and accepts the credentials of this node.
    Reachable,
    /// The service responds with errors of its own.
    Failing,
    /// No connection, or no response in time.
    Unreachable,
    /// The service responds, but the bucket does not exist.
    Missing,
    /// The bucket is in another region than the configured one.
    WrongRegion,
    /// The service rejects the credentials, or they lack permissions on the bucket.
    Denied,
    /// The node has no credentials, so it cannot check the bucket.
    NoCredentials,
    /// Not checked yet, or a state that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Result of the last reading of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigStatus {
    /// Why the file is invalid. The node keeps the previous configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Changed fields that take effect after a restart.
    pub waiting_for_restart: Vec<String>,
}

/// The access control in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthStatus {
    /// Identifies the configuration in force (`auth`). Unset if every client may do everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Why the current configuration or its files are invalid. The node keeps the previous policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Sizes of the store in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoreStatus {
    /// What the store may use.
    pub capacity: u64,
    /// What it uses.
    pub used: u64,
    /// What it may still use. The file system may have less free space than `capacity - used`.
    pub free: u64,
    /// Eviction starts when less than this is free.
    pub low_free: u64,
    /// Eviction stops when this is free.
    pub target_free: u64,
}

/// TLS of the registry API and of the connections to other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsStatus {
    /// The certificate in use. Absent if the registry API is plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// Why the current files are not in use; it begins with the name of the field. The node keeps
    /// the previous ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A certificate in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Start of its validity (RFC 3339).
    pub not_before: String,
    /// End of its validity (RFC 3339).
    pub not_after: String,
    /// The distinguished name of the authority that signed it.
    pub issuer: String,
    /// The DNS names, addresses and URIs for which it is valid.
    pub names: Vec<String>,
}
