//! The local disk store of a node.

use crate::{ByteSize, Duration, Threshold};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The local disk store of this node. It can be deleted while the node is stopped. Deleting it
/// loses unfinished uploads and, with `replication.mode: WriteBack`, blobs that the bucket does not
/// have yet. Everything else in it is also in the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Store {
    /// The directory. It is created if it does not exist. Only one node can use it at a time.
    pub path: PathBuf,
    /// Maximum size of the store. If unset: the bytes already stored plus the free space of the
    /// file system.
    pub capacity: Option<ByteSize>,
    /// Free space below which eviction starts: bytes (`10Gi`) or a percentage of the capacity
    /// (`10%`). A running node applies a change of this field without a restart.
    pub low_free: Threshold,
    /// Free space at which eviction stops: bytes or a percentage of the capacity. It must be greater
    /// than `lowFree` and less than the capacity. A running node applies a change of this field
    /// without a restart.
    pub target_free: Threshold,
    /// Which content is evicted first.
    pub eviction_policy: EvictionPolicy,
    /// Verification of stored content in the background.
    pub scrub: Scrub,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            path: "entrepot-data/store".into(),
            capacity: None,
            low_free: Threshold::percent(10),
            target_free: Threshold::percent(20),
            eviction_policy: EvictionPolicy::default(),
            scrub: Scrub::default(),
        }
    }
}

/// Verification of stored content in the background: the node reads the content and compares it
/// with its digest. Damaged content is removed and downloaded from the bucket again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Scrub {
    /// Duration of one round over all stored content. The shorter the period, the higher the read
    /// rate: 1Ti in 168h (a week) is 1.8 MB/s. At least `1h`; `0s` disables the verification.
    pub period: Duration,
}

impl Default for Scrub {
    fn default() -> Scrub {
        Scrub { period: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Which content is evicted first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EvictionPolicy {
    /// Evict the content whose last request is the oldest.
    LeastRecentlyUsed,
    /// Evict the least frequently requested content. Counts decay with use: an earlier request
    /// counts half after as many further requests as eight times the number of stored blobs and
    /// manifests.
    #[default]
    LeastFrequentlyUsed,
}
