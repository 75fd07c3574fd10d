//! How another size or class gets to volumes that are there. The next step is found from what is observed alone, so
//! that an operator which dies between two steps goes on where it was.
//!
//! Expand: every claim is resized, then the StatefulSet, whose claim template cannot change, is deleted without its
//! pods, then made again. Recreate: the StatefulSet first, then node after node loses its claim and its pod.

#[cfg(test)]
mod tests;

use super::version::Version;
use crate::crd::{Cache, ResizePolicy};
use entrepot_config::ByteSize;

/// What a node's volume is to be, or is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub size: ByteSize,
    /// `None`: the cluster's default.
    pub class: Option<String>,
}

impl Volume {
    /// What a spec asks for.
    pub fn desired(cache: &Cache) -> Volume {
        Volume { size: cache.size, class: cache.storage_class_name.clone() }
    }
}

/// The StatefulSet as far as volumes are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSet {
    pub version: Version,
    /// Of its claim template.
    pub volume: Volume,
    /// Its deletion has begun.
    pub deleting: bool,
}

/// A node's claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedClaim {
    pub name: String,
    pub version: Version,
    pub ordinal: i32,
    pub requested: ByteSize,
    /// What there is; `None` before it is bound.
    pub capacity: Option<ByteSize>,
    /// The class that it has by now; a claim that named none got the default.
    pub class: Option<String>,
    /// The volume has grown, and its file system grows when the pod starts anew.
    pub grows_at_restart: bool,
    pub deleting: bool,
}

/// A node's pod, as far as volumes are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedNode {
    pub name: String,
    pub version: Version,
    pub ordinal: i32,
    pub ready: bool,
    pub scheduled: bool,
    pub deleting: bool,
}

/// What is known of the StorageClass of claims that are to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Expands,
    CannotExpand,
    Missing,
    /// Nobody needed to look.
    NotAsked,
    /// The look failed.
    Unknown,
}

/// All that the next step depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub replicas: i32,
    pub set: Option<ObservedSet>,
    pub claims: Vec<ObservedClaim>,
    pub nodes: Vec<ObservedNode>,
    pub class: Class,
    /// A pod, a claim or the StatefulSet cannot be read.
    pub unreadable: bool,
}

/// Why volumes are not yet what they are to be, and nothing is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The StorageClass does not allow expansion.
    CannotExpand,
    /// There is no such StorageClass.
    ClassMissing,
    /// Nothing is known of the StorageClass.
    ClassUnknown,
    /// Something that counts cannot be read.
    Unreadable,
    /// A claim is not bound yet, and only then it can grow.
    Unbound,
    /// The storage driver is at it.
    Growing,
    /// The StatefulSet is being deleted without its pods.
    Handover,
    /// A node is being recreated, or is not ready.
    Nodes,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All is as it is to be.
    Done,
    Wait(Waiting),
    /// Ask for the new size.
    Resize(Vec<ObservedClaim>),
    /// Delete the StatefulSet, of that version and no other, and leave its pods.
    DeleteSet(Version),
    /// Delete a claim; it goes when its pod does.
    DeleteClaim(ObservedClaim),
    /// Delete the pod whose claim is going.
    DeletePod(ObservedNode),
}

impl Step {
    /// The volumes that the StatefulSet is built with now. As they were until nothing stands in the way of the new.
    pub fn volume(&self, observed: &Observed, desired: &Volume) -> Volume {
        match &observed.set {
            Some(set) if set.volume != *desired => set.volume.clone(),
            _ => desired.clone(),
        }
    }

    /// Whether the StatefulSet may be applied in this pass: not while it is on its way out.
    pub fn keeps_set(&self) -> bool {
        !matches!(self, Step::DeleteSet(_) | Step::Wait(Waiting::Handover))
    }
}

/// Finds the next step.
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

/// Claims of nodes that there are to be: what scaling down left behind is nobody's concern.
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
    // Nodes are told of the new size, and so restarted, only once it is there.
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
        // It is made first, so that there is somebody to make pods anew.
        None => return Step::Done,
    }
    let differs = |claim: &&ObservedClaim| {
        claim.requested != desired.size || (desired.class.is_some() && claim.class != desired.class)
    };
    let pod_of = |claim: &ObservedClaim| observed.nodes.iter().find(|node| node.ordinal == claim.ordinal);
    // One that was begun is finished before the next. A pod that is not scheduled does not hold the claim.
    if let Some(going) = current(observed).find(|claim| claim.deleting) {
        return match pod_of(going) {
            Some(node) if node.scheduled && !node.deleting => Step::DeletePod(node.clone()),
            _ => Step::Wait(Waiting::Nodes),
        };
    }
    // From the highest, as a StatefulSet's own rollout goes: the two never take two nodes at once.
    let Some(next) = current(observed).filter(differs).max_by_key(|claim| claim.ordinal) else { return Step::Done };
    let others_ready = (0..observed.replicas)
        .filter(|ordinal| *ordinal != next.ordinal)
        .all(|ordinal| observed.nodes.iter().any(|node| node.ordinal == ordinal && node.ready && !node.deleting));
    if others_ready { Step::DeleteClaim(next.clone()) } else { Step::Wait(Waiting::Nodes) }
}
