//! How existing volumes get a new size or StorageClass. The next step follows only from the
//! observed state, so that an operator that crashes between two steps continues where it stopped.
//!
//! Expand: every claim is resized. Then the StatefulSet, whose claim template is immutable, is
//! deleted without its pods and recreated. Recreate: the StatefulSet is replaced first; then the
//! claim and the pod of one node after the other are deleted.

#[cfg(test)]
mod tests;

use super::version::Version;
use crate::crd::{ResizePolicy, Store};
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
    pub version: Version,
    /// The volume of its claim template.
    pub volume: Volume,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// The PersistentVolumeClaim of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedClaim {
    pub name: String,
    pub version: Version,
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
    pub version: Version,
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
    NotAsked,
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

/// Why the volumes do not match the spec yet although there is nothing to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The StorageClass does not allow expansion.
    CannotExpand,
    /// The StorageClass does not exist.
    ClassMissing,
    /// The StorageClass could not be read.
    ClassUnknown,
    /// A pod, a claim or the StatefulSet cannot be decoded.
    Unreadable,
    /// A claim is not bound yet; it can grow only after that.
    Unbound,
    /// The storage driver is expanding volumes.
    Growing,
    /// The StatefulSet is being deleted without its pods.
    Handover,
    /// A node is being recreated, or is not ready.
    Nodes,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The volumes match the spec.
    Done,
    Wait(Waiting),
    /// Set the new size on these claims.
    Resize(Vec<ObservedClaim>),
    /// Delete this version of the StatefulSet, and keep its pods.
    DeleteSet(Version),
    /// Delete a claim; Kubernetes removes it when its pod is gone.
    DeleteClaim(ObservedClaim),
    /// Delete the pod of a claim that is being deleted.
    DeletePod(ObservedNode),
}

impl Step {
    /// The volume with which the StatefulSet is built now: the old one as long as the StatefulSet
    /// has it.
    pub fn volume(&self, observed: &Observed, desired: &Volume) -> Volume {
        match &observed.set {
            Some(set) if set.volume != *desired => set.volume.clone(),
            _ => desired.clone(),
        }
    }

    /// Whether the StatefulSet may be applied in this reconciliation: not while it is being
    /// deleted.
    pub fn keeps_set(&self) -> bool {
        !matches!(self, Step::DeleteSet(_) | Step::Wait(Waiting::Handover))
    }
}

/// Decides the next step.
pub fn next_step(observed: &Observed, desired: &Volume, policy: ResizePolicy) -> Step {
    if observed.unreadable {
        return Step::Wait(Waiting::Unreadable);
    }
    if observed.set.as_ref().is_some_and(|set| set.deleting) {
        return Step::Wait(Waiting::Handover);
    }
    match policy {
        ResizePolicy::Expand => expand(observed, desired),
        ResizePolicy::Recreate => recreate(observed, desired),
    }
}

/// The claims of nodes that the spec asks for. Claims that scaling down left behind are not
/// touched.
fn current(observed: &Observed) -> impl Iterator<Item = &ObservedClaim> {
    observed.claims.iter().filter(|claim| claim.ordinal < observed.replicas)
}

fn expand(observed: &Observed, desired: &Volume) -> Step {
    let small: Vec<_> =
        current(observed).filter(|claim| claim.requested < desired.size && !claim.deleting).cloned().collect();
    if small.iter().any(|claim| claim.capacity.is_none()) {
        return Step::Wait(Waiting::Unbound);
    }
    if !small.is_empty() {
        return match observed.class {
            Class::CannotExpand => Step::Wait(Waiting::CannotExpand),
            Class::Missing => Step::Wait(Waiting::ClassMissing),
            Class::Unknown => Step::Wait(Waiting::ClassUnknown),
            Class::Expands | Class::NotAsked => Step::Resize(small),
        };
    }
    // The new size changes the nodes' configuration and so restarts them: only when the volumes
    // have it.
    let grown = |claim: &ObservedClaim| {
        claim.grows_at_restart || claim.capacity.is_none_or(|capacity| capacity >= desired.size)
    };
    let set_differs = observed.set.as_ref().filter(|set| set.volume != *desired);
    match set_differs {
        _ if !current(observed).all(grown) => Step::Wait(Waiting::Growing),
        Some(set) => Step::DeleteSet(set.version.clone()),
        None if current(observed).any(|claim| claim.grows_at_restart) => Step::Wait(Waiting::Growing),
        None => Step::Done,
    }
}

fn recreate(observed: &Observed, desired: &Volume) -> Step {
    match &observed.set {
        Some(set) if set.volume != *desired => return Step::DeleteSet(set.version.clone()),
        Some(_) => {}
        // The StatefulSet is created first, so that there is a controller that recreates pods.
        None => return Step::Done,
    }
    let differs = |claim: &&ObservedClaim| {
        claim.requested != desired.size || (desired.class.is_some() && claim.class != desired.class)
    };
    let pod_of = |claim: &ObservedClaim| observed.nodes.iter().find(|node| node.ordinal == claim.ordinal);
    // A started replacement is finished before the next. A pod that is not scheduled does not hold
    // the claim.
    if let Some(going) = current(observed).find(|claim| claim.deleting) {
        return match pod_of(going) {
            Some(node) if node.scheduled && !node.deleting => Step::DeletePod(node.clone()),
            _ => Step::Wait(Waiting::Nodes),
        };
    }
    // From the highest ordinal, as in the StatefulSet's own rollout, so that the two never stop two
    // nodes at once.
    let Some(next) = current(observed).filter(differs).max_by_key(|claim| claim.ordinal) else { return Step::Done };
    let others_ready = (0..observed.replicas)
        .filter(|ordinal| *ordinal != next.ordinal)
        .all(|ordinal| observed.nodes.iter().any(|node| node.ordinal == ordinal && node.ready && !node.deleting));
    if others_ready { Step::DeleteClaim(next.clone()) } else { Step::Wait(Waiting::Nodes) }
}
