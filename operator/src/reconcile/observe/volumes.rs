//! What the plan of the volumes needs of the StatefulSet, the claims and the pods.

use crate::names::{Identity, VOLUME};
use crate::reconcile::precondition::Precondition;
use crate::reconcile::rollout::{is_deleting, is_ready};
use crate::reconcile::storage::{ObservedClaim, ObservedNode, ObservedSet, Volume};
use entrepot_config::ByteSize;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimCondition, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// The number at the end of a name.
fn ordinal(name: &str, prefix: &str) -> Option<i32> {
    name.strip_prefix(prefix)?.strip_prefix('-')?.parse().ok()
}

pub(super) fn set(set: &StatefulSet) -> Option<ObservedSet> {
    let template = set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?.spec.as_ref()?;
    let size = template.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()?;
    Some(ObservedSet {
        precondition: Precondition::of(set)?,
        volume: Volume { size, class: template.storage_class_name.clone() },
        deleting: set.metadata.deletion_timestamp.is_some(),
    })
}

pub(super) fn claim(identity: &Identity, claim: &PersistentVolumeClaim) -> Option<ObservedClaim> {
    let name = claim.name_any();
    let size = |sizes: &BTreeMap<String, Quantity>| sizes.get("storage")?.0.parse::<ByteSize>().ok();
    let spec = claim.spec.as_ref()?;
    let status = claim.status.clone().unwrap_or_default();
    let waits = |condition: &PersistentVolumeClaimCondition| {
        condition.type_ == "FileSystemResizePending" && condition.status == "True"
    };
    Some(ObservedClaim {
        ordinal: ordinal(&name, &format!("{VOLUME}-{}", identity.name))?,
        precondition: Precondition::of(claim)?,
        requested: size(spec.resources.as_ref()?.requests.as_ref()?)?,
        capacity: status.capacity.as_ref().and_then(size),
        class: spec.storage_class_name.clone(),
        grows_at_restart: status.conditions.as_deref().unwrap_or_default().iter().any(waits),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        name,
    })
}

pub(super) fn node(identity: &Identity, pod: &Pod) -> Option<ObservedNode> {
    let name = pod.name_any();
    Some(ObservedNode {
        ordinal: ordinal(&name, &identity.name)?,
        precondition: Precondition::of(pod)?,
        ready: is_ready(pod),
        scheduled: pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()),
        deleting: is_deleting(pod),
        name,
    })
}
