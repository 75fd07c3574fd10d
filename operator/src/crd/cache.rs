//! The nodes' local disk stores.

use entrepot_config::{ByteSize, EvictionPolicy, Threshold};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Every node's local disk store. What it holds is in the bucket as well, but for uploads under way.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "(self.targetFree.endsWith('%') ? quantity(self.size).asInteger() / 100 * int(self.targetFree.replace('%', '')) \
         : quantity(self.targetFree).asInteger()) > \
         (self.lowFree.endsWith('%') ? quantity(self.size).asInteger() / 100 * int(self.lowFree.replace('%', '')) \
         : quantity(self.lowFree).asInteger())"
    ).message("cache.targetFree must be above cache.lowFree").field_path(".targetFree"),
    validation = Rule::new(
        "(self.targetFree.endsWith('%') ? quantity(self.size).asInteger() / 100 * int(self.targetFree.replace('%', '')) \
         : quantity(self.targetFree).asInteger()) < quantity(self.size).asInteger()"
    ).message("cache.targetFree must be below cache.size: nothing could be kept").field_path(".targetFree"),
    validation = Rule::new(
        "self.resizePolicy == 'Recreate' || (has(self.storageClassName) == has(oldSelf.storageClassName) && \
         (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName))"
    ).message("cache.storageClassName changes only while cache.resizePolicy is Recreate")
        .field_path(".storageClassName"),
)]
pub struct Cache {
    /// Size of a node's volume.
    #[schemars(length(max = 24))]
    pub size: ByteSize,
    /// StorageClass of the volumes; without it, the cluster's default.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// The first threshold: when less than this is free, cleaning starts. Bytes or a part of the size.
    #[serde(default = "ten_percent")]
    #[schemars(length(max = 24))]
    pub low_free: Threshold,
    /// The second threshold: cleaning stops when this much is free.
    #[serde(default = "twenty_percent")]
    #[schemars(length(max = 24))]
    pub target_free: Threshold,
    /// Which content is removed first.
    #[serde(default)]
    pub eviction_policy: EvictionPolicy,
    /// How another size gets to the volumes that are there.
    #[serde(default)]
    pub resize_policy: ResizePolicy,
    /// What becomes of a volume when its node goes, by scaling or by deletion.
    #[serde(default)]
    pub retention: Retention,
}

fn ten_percent() -> Threshold {
    Threshold::percent(10)
}

fn twenty_percent() -> Threshold {
    Threshold::percent(20)
}

/// `Expand` grows the volumes in place; `Recreate` replaces them, one node at a time, for the store is disposable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResizePolicy {
    #[default]
    Expand,
    Recreate,
}

/// Whether a volume goes with its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retention {
    #[default]
    Delete,
    Retain,
}
