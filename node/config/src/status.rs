//! What a node says of itself at `/status`: for the operator and for people, in JSON.

use serde::{Deserialize, Serialize};

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    pub bucket: BucketStatus,
    pub config: ConfigStatus,
    pub store: StoreStatus,
    /// Blobs that are not yet durable.
    pub pending_blobs: u64,
    /// Their bytes.
    pub pending_bytes: u64,
}

/// How the bucket answered when it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BucketStatus {
    pub state: BucketState,
    /// What went wrong, for a person; empty when nothing did.
    pub message: String,
}

/// What a node can say of its bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BucketState {
    /// It answers, and takes this node's credentials.
    Reachable,
    /// It answers with failures of its own.
    Failing,
    /// No answer, or no connection.
    Unreachable,
    /// There is no such bucket.
    Missing,
    /// It lies in another region than the configured one.
    WrongRegion,
    /// It answers and refuses these credentials, or what they may do.
    Denied,
    /// There are no credentials to ask it with.
    NoCredentials,
    /// Not asked yet, or the node is of a version that says something else.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What became of the last configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigStatus {
    /// Why the file was refused, so that the configuration before it is still in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Fields of the file that are in force only after a restart.
    pub waiting_for_restart: Vec<String>,
}

/// The store, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StoreStatus {
    pub capacity: u64,
    pub used: u64,
    pub free: u64,
    pub low_free: u64,
    pub target_free: u64,
}
