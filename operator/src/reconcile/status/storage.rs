//! `StorageResized`: whether the volumes are as the spec says.

use super::{Facts, Verdict};
use crate::reconcile::storage::{Class, Step, Waiting};

pub(super) fn verdict(facts: &Facts<'_>) -> Verdict {
    const KIND: &str = "StorageResized";
    let no = |reason, message: &str| Verdict::no(KIND, reason, message);
    match facts.step {
        Step::Done if facts.class == Class::Missing => {
            no("StorageClassMissing", "the StorageClass of the volumes does not exist")
        }
        Step::Done => Verdict::yes(KIND, "AsDesired", "every volume is as cache asks for"),
        Step::Resize(_) | Step::Wait(Waiting::Growing) => no("Expanding", "volumes are being expanded"),
        Step::DeleteSet { .. } | Step::Wait(Waiting::Handover) => {
            no("Replacing", "the StatefulSet is made anew around its pods, to change its volumes")
        }
        Step::DeleteClaim(_) | Step::DeletePod(_) | Step::Wait(Waiting::Nodes) => {
            no("RecreatingNodes", "volumes are replaced, one node at a time")
        }
        Step::Wait(Waiting::CannotExpand) => no(
            "StorageClassCannotExpand",
            "the StorageClass does not allow expansion: nothing was changed; set cache.resizePolicy to Recreate, or \
             cache.size back",
        ),
        Step::Wait(Waiting::ClassMissing) => {
            no("StorageClassMissing", "the StorageClass of the volumes does not exist: nothing was changed")
        }
        Step::Wait(Waiting::ClassUnknown) => {
            no("StorageClassUnknown", "the StorageClass of the volumes could not be looked at: nothing was changed")
        }
        Step::Wait(Waiting::Unreadable) => {
            no("Unreadable", "an object of this registry cannot be read, as Applied says: volumes are left as they are")
        }
        Step::Wait(Waiting::Unbound) => no("VolumesPending", "a volume is not bound yet, and only then it can grow"),
    }
}
