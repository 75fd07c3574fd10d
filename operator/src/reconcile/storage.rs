//! How existing volumes get a new size or StorageClass. The next step follows only from the
//! observed state, so that an operator that crashes between two steps continues where it stopped.
//!
//! Expand: every claim is resized. Then the StatefulSet, whose claim template is immutable, is
//! deleted without its pods and recreated. Recreate: the StatefulSet is replaced first; then the
//! claim and the pod of one node after the other are deleted.

mod observed;
#[cfg(test)]
mod tests;

pub use observed::{Class, Observed, ObservedClaim, ObservedNode, ObservedSet, Volume};

use super::precondition::Precondition;
use crate::crd::{ResizePolicy, Store};

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
    Expanding,
    /// The StatefulSet is being deleted without its pods.
    SetDeletion,
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
    DeleteSet(Precondition),
    /// Delete a claim; Kubernetes removes it when its pod is gone.
    DeleteClaim(ObservedClaim),
    /// Delete the pod of a claim that is being deleted.
    DeletePod(ObservedNode),
}

impl Step {
    /// Whether the StatefulSet may be applied in this reconciliation: not while it is being
    /// deleted.
    pub fn keeps_set(&self) -> bool {
        !matches!(self, Step::DeleteSet(_) | Step::Wait(Waiting::SetDeletion))
    }
}

/// What a reconciliation does with the volumes.
pub struct Plan {
    /// The volume in the spec.
    pub desired: Volume,
    /// The volume with which the StatefulSet is built now: the old one as long as the StatefulSet
    /// has it.
    pub volume: Volume,
    pub step: Step,
}

/// Plans the next step towards the volume in the spec.
pub fn plan(observed: &Observed, store: &Store) -> Plan {
    let desired = Volume::desired(store);
    let step = next_step(observed, &desired, store.resize_policy);
    Plan { volume: volume_now(observed, &desired), desired, step }
}

fn volume_now(observed: &Observed, desired: &Volume) -> Volume {
    match &observed.set {
        Some(set) if set.volume != *desired => set.volume.clone(),
        _ => desired.clone(),
    }
}

/// Decides the next step.
pub fn next_step(observed: &Observed, desired: &Volume, policy: ResizePolicy) -> Step {
    if observed.unreadable {
        return Step::Wait(Waiting::Unreadable);
    }
    if observed.set.as_ref().is_some_and(|set| set.deleting) {
        return Step::Wait(Waiting::SetDeletion);
    }
    match policy {
        ResizePolicy::Expand => expand(observed, desired),
        ResizePolicy::Recreate => recreate(observed, desired),
    }
}

/// The claims of nodes that the spec asks for. Claims that scaling down left behind are not
/// touched.
fn claims_in_spec(observed: &Observed) -> impl Iterator<Item = &ObservedClaim> {
    observed.claims.iter().filter(|claim| claim.ordinal < observed.replicas)
}

fn expand(observed: &Observed, desired: &Volume) -> Step {
    let too_small: Vec<_> =
        claims_in_spec(observed).filter(|claim| claim.requested < desired.size && !claim.deleting).cloned().collect();
    if too_small.iter().any(|claim| claim.capacity.is_none()) {
        return Step::Wait(Waiting::Unbound);
    }
    if !too_small.is_empty() {
        return match observed.class {
            Class::CannotExpand => Step::Wait(Waiting::CannotExpand),
            Class::Missing => Step::Wait(Waiting::ClassMissing),
            Class::Unknown => Step::Wait(Waiting::ClassUnknown),
            Class::Expands | Class::NotNeeded => Step::Resize(too_small),
        };
    }
    // The new size changes the nodes' configuration and so restarts them: only when the volumes
    // have it.
    let has_grown = |claim: &ObservedClaim| {
        claim.grows_at_restart || claim.capacity.is_none_or(|capacity| capacity >= desired.size)
    };
    let set_differs = observed.set.as_ref().filter(|set| set.volume != *desired);
    match set_differs {
        _ if !claims_in_spec(observed).all(has_grown) => Step::Wait(Waiting::Expanding),
        Some(set) => Step::DeleteSet(set.precondition.clone()),
        None if claims_in_spec(observed).any(|claim| claim.grows_at_restart) => Step::Wait(Waiting::Expanding),
        None => Step::Done,
    }
}

fn recreate(observed: &Observed, desired: &Volume) -> Step {
    match &observed.set {
        Some(set) if set.volume != *desired => return Step::DeleteSet(set.precondition.clone()),
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
    if let Some(deleting) = claims_in_spec(observed).find(|claim| claim.deleting) {
        return match pod_of(deleting) {
            Some(node) if node.scheduled && !node.deleting => Step::DeletePod(node.clone()),
            _ => Step::Wait(Waiting::Nodes),
        };
    }
    // From the highest ordinal, as in the StatefulSet's own rollout, so that the two never stop two
    // nodes at once.
    let Some(next) = claims_in_spec(observed).filter(differs).max_by_key(|claim| claim.ordinal) else {
        return Step::Done;
    };
    let others_ready = (0..observed.replicas)
        .filter(|ordinal| *ordinal != next.ordinal)
        .all(|ordinal| observed.nodes.iter().any(|node| node.ordinal == ordinal && node.ready && !node.deleting));
    if others_ready { Step::DeleteClaim(next.clone()) } else { Step::Wait(Waiting::Nodes) }
}
