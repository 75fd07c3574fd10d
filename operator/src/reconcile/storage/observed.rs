//! The state that the next step of a volume change depends on.

use crate::crd::Store;
use crate::reconcile::precondition::Precondition;
use entrepot_config::ByteSize;

/// The size and class of a node's volume, desired or present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub size: ByteSize,
    /// `None`: the default StorageClass.
    pub class: Option<String>,
}

impl Volume {
    /// The volume in the spec.
    pub fn desired(store: &Store) -> Volume {
        Volume { size: store.size, class: store.storage_class_name.clone() }
    }
}

/// The parts of the StatefulSet that concern volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSet {
    pub precondition: Precondition,
    /// The volume of its claim template.
    pub volume: Volume,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// The PersistentVolumeClaim of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedClaim {
    pub name: String,
    pub precondition: Precondition,
    pub ordinal: i32,
    pub requested: ByteSize,
    /// The present capacity; `None` until the claim is bound.
    pub capacity: Option<ByteSize>,
    /// The present class; a claim that named none has been given the default.
    pub class: Option<String>,
    /// The volume has grown, and its file system grows when the pod restarts.
    pub grows_at_restart: bool,
    pub deleting: bool,
}

/// The parts of a node's pod that concern volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedNode {
    pub name: String,
    pub precondition: Precondition,
    pub ordinal: i32,
    pub ready: bool,
    pub scheduled: bool,
    pub deleting: bool,
}

/// What is known about the StorageClass of claims that have to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Expands,
    CannotExpand,
    Missing,
    /// No claim needs the information.
    NotNeeded,
    /// The read failed.
    Unknown,
}

/// Everything that the next step depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub replicas: i32,
    pub set: Option<ObservedSet>,
    pub claims: Vec<ObservedClaim>,
    pub nodes: Vec<ObservedNode>,
    pub class: Class,
    /// A pod, a claim or the StatefulSet cannot be decoded.
    pub unreadable: bool,
}
