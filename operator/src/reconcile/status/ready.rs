//! `Ready`: whether all nodes serve and match the spec, and if not, why.

use super::condition::NewCondition;
use super::inputs::StatusInputs;
use crate::reconcile::rollout::{UNSCHEDULABLE, failure_reason, is_deleting, is_ready};
use crate::reconcile::storage::Class;
use kube::ResourceExt;

const KIND: &str = "Ready";

pub(super) fn condition(replicas: i32, inputs: &StatusInputs<'_>) -> NewCondition {
    if let Some(refusal) = inputs.refusal {
        return NewCondition::no(KIND, refusal.reason, &refusal.message);
    }
    if let Some(failed) = inputs.failed_nodes {
        return NewCondition::no(KIND, "ApplyFailed", failed);
    }
    if replicas == 0 {
        return NewCondition::no(KIND, "ScaledToZero", "spec.replicas is 0; the registry is not served");
    }
    let ready = inputs.ready_replicas.min(replicas);
    let count = format!("{ready} of {replicas} registry pods are ready");
    if let Some(bundle) = inputs.missing_ca {
        return NewCondition::no(
            KIND,
            "CaBundleMissing",
            format!("waiting for {bundle} (spec.bucket.caBundleRef) to be created"),
        );
    }
    if inputs.class == Class::Missing && ready < replicas {
        let message = format!("{count}; the StorageClass of their PersistentVolumeClaims does not exist");
        return NewCondition::no(KIND, "StorageClassMissing", message);
    }
    let unready = inputs.pods.iter().filter(|pod| !is_ready(pod) && !is_deleting(pod));
    let mut failing: Vec<_> = unready.filter_map(|pod| Some((pod.name_any(), failure_reason(pod)?))).collect();
    failing.sort();
    if let Some((pod, why)) = failing.first() {
        let reason = if why == UNSCHEDULABLE { "NodesUnschedulable" } else { "NodesFailing" };
        // A failing node during a rollout blocks the rollout; the other nodes keep serving the
        // previous revision.
        let rolling = inputs.updated_replicas < inputs.replicas && reason == "NodesFailing";
        let reason = if rolling { "RolloutStuck" } else { reason };
        return NewCondition::no(KIND, reason, format!("{count}; pod {pod}: {why}; see kubectl describe pod {pod}"));
    }
    if ready < replicas {
        return NewCondition::no(KIND, "NodesNotReady", count);
    }
    if inputs.updated_replicas < replicas {
        return NewCondition::yes(KIND, "RollingOut", format!("{count}; a rolling update is in progress"));
    }
    NewCondition::yes(KIND, "AllNodesReady", count)
}
