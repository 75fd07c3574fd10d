//! `StorageResized`: whether the volumes match the spec.

use super::condition::NewCondition;
use super::inputs::StatusInputs;
use crate::reconcile::storage::{Class, Step, Waiting};

pub(super) fn condition(inputs: &StatusInputs<'_>) -> NewCondition {
    const KIND: &str = "StorageResized";
    let no = |reason, message: &str| NewCondition::no(KIND, reason, message);
    match inputs.step {
        Step::Done if inputs.class == Class::Missing => {
            no("StorageClassMissing", "the StorageClass of the PersistentVolumeClaims does not exist; create it")
        }
        Step::Done => NewCondition::yes(KIND, "AsDesired", "all PersistentVolumeClaims match spec.store"),
        Step::Resize(_) | Step::Wait(Waiting::Expanding) => {
            no("Expanding", "PersistentVolumeClaims are being expanded")
        }
        Step::DeleteSet { .. } | Step::Wait(Waiting::SetDeletion) => {
            no("Replacing", "recreating the StatefulSet to change its volumeClaimTemplates; pods keep running")
        }
        Step::DeleteClaim(_) | Step::DeletePod(_) | Step::Wait(Waiting::Nodes) => {
            no("RecreatingNodes", "volumes are being replaced, one registry pod at a time")
        }
        Step::Wait(Waiting::CannotExpand) => no(
            "StorageClassCannotExpand",
            "the StorageClass does not allow volume expansion, so no volume was changed; set spec.store.resizePolicy \
             to Recreate or restore spec.store.size",
        ),
        Step::Wait(Waiting::ClassMissing) => no(
            "StorageClassMissing",
            "the StorageClass of the PersistentVolumeClaims does not exist, so no volume was changed; create it",
        ),
        Step::Wait(Waiting::ClassUnknown) => {
            no("StorageClassUnknown", "cannot get the StorageClass, so no volume was changed; see condition Applied")
        }
        Step::Wait(Waiting::Unreadable) => no(
            "Unreadable",
            "an object of this registry cannot be decoded, so no volume was changed; see condition Applied",
        ),
        Step::Wait(Waiting::Unbound) => {
            no("VolumesPending", "waiting for a PersistentVolumeClaim to be bound before expanding it")
        }
    }
}
