//! The local disk stores of the registry pods.

use entrepot_config::{ByteSize, EvictionPolicy, Threshold};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Local disk store of each registry pod. Its content is also in the bucket, except for unfinished
/// uploads and, with WriteBack, blobs that the pod has not sent to the bucket yet.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "(self.targetFree.endsWith('%') ? quantity(self.size).asInteger() / 100 * int(self.targetFree.replace('%', '')) \
         : quantity(self.targetFree).asInteger()) > \
         (self.lowFree.endsWith('%') ? quantity(self.size).asInteger() / 100 * int(self.lowFree.replace('%', '')) \
         : quantity(self.lowFree).asInteger())"
    ).message("must be greater than spec.store.lowFree").field_path(".targetFree"),
    validation = Rule::new(
        "(self.targetFree.endsWith('%') ? quantity(self.size).asInteger() / 100 * int(self.targetFree.replace('%', '')) \
         : quantity(self.targetFree).asInteger()) < quantity(self.size).asInteger()"
    ).message("must be less than spec.store.size, or nothing could be stored").field_path(".targetFree"),
    validation = Rule::new(
        "self.resizePolicy == 'Recreate' || (has(self.storageClassName) == has(oldSelf.storageClassName) && \
         (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName))"
    ).message("can be changed only while spec.store.resizePolicy is Recreate")
        .field_path(".storageClassName"),
)]
pub struct Store {
    /// Size of the PersistentVolumeClaim of each pod, as a quantity such as `50Gi`. It is also the
    /// most that a pod caches, even if the storage driver does not limit the volume. Cannot be
    /// decreased while resizePolicy is Expand.
    #[schemars(length(max = 24))]
    pub size: ByteSize,
    /// StorageClass of the PersistentVolumeClaims. If unset, the default StorageClass is used. Can
    /// be changed only while resizePolicy is Recreate.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Free space below which eviction starts: a quantity (`10Gi`) or a percentage of size (`10%`).
    /// Defaults to 10%. Pods apply a change without a restart.
    #[serde(default = "ten_percent")]
    #[schemars(length(max = 24))]
    pub low_free: Threshold,
    /// Free space at which eviction stops: a quantity or a percentage of size. Must be greater than
    /// lowFree and less than size. Defaults to 20%. Pods apply a change without a restart.
    #[serde(default = "twenty_percent")]
    #[schemars(length(max = 24))]
    pub target_free: Threshold,
    /// Which cached content is evicted first: `LeastFrequentlyUsed` (default) or
    /// `LeastRecentlyUsed`.
    #[serde(default)]
    pub eviction_policy: EvictionPolicy,
    /// How changes of size or storageClassName are applied to existing volumes. `Expand` (default):
    /// expand the PersistentVolumeClaims in place; the StorageClass must set allowVolumeExpansion.
    /// `Recreate`: replace the volumes, one pod at a time; the cached content is lost, and the
    /// bucket keeps it.
    #[serde(default)]
    pub resize_policy: ResizePolicy,
    /// What happens to a PersistentVolumeClaim when its pod is removed by scaling down or by
    /// deleting the RegistryCluster: `Delete` (default) or `Retain`.
    // `retention` is its former name, which scripts that run against every build still write.
    #[serde(default, alias = "retention")]
    pub reclaim_policy: ReclaimPolicy,
}

fn ten_percent() -> Threshold {
    Threshold::percent(10)
}

fn twenty_percent() -> Threshold {
    Threshold::percent(20)
}

/// `Expand` expands the volumes in place. `Recreate` replaces them, one pod at a time, because the
/// store is disposable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResizePolicy {
    #[default]
    Expand,
    Recreate,
}

/// Whether a volume is deleted with its pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReclaimPolicy {
    #[default]
    Delete,
    Retain,
}
