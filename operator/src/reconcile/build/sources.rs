//! What the StatefulSet and its pods are built from.

use crate::crd::RegistryClusterSpec;
use crate::names::Identity;
use crate::reconcile::storage::Volume;

/// What the StatefulSet and its pods are built from.
pub(super) struct Sources<'a> {
    pub(super) identity: &'a Identity,
    pub(super) spec: &'a RegistryClusterSpec,
    /// The volumes to apply now; during an expansion still the old ones.
    pub(super) volume: &'a Volume,
    pub(super) image: &'a str,
    /// Hash of the part of the configuration that requires a restart when it changes.
    pub(super) config_hash: &'a str,
}
