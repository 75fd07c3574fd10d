//! The response of a node's `/status`: JSON for the operator and for people.

use serde::{Deserialize, Serialize};

/// The whole response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// Name of the node (`node.name`).
    pub node: String,
    pub bucket: BucketStatus,
    pub config: ConfigStatus,
    pub store: StoreStatus,
    /// Number of blobs that this node has not yet sent to the bucket.
    pub pending_blobs: u64,
    /// Size of those blobs in bytes.
    pub pending_bytes: u64,
}

/// Result of the last check of the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BucketStatus {
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

/// Sizes of the store in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoreStatus {
    pub capacity: u64,
    pub used: u64,
    pub free: u64,
    pub low_free: u64,
    pub target_free: u64,
}
