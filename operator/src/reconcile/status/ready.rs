//! `Ready`: whether all nodes serve and match the spec, and if not, why.

use super::{Facts, Verdict};
use crate::reconcile::rollout::{UNSCHEDULABLE, is_deleting, is_ready, trouble};
use crate::reconcile::storage::Class;
use kube::ResourceExt;

const KIND: &str = "Ready";

pub(super) fn verdict(replicas: i32, facts: &Facts<'_>) -> Verdict {
    if let Some(failed) = facts.failed_nodes {
        return Verdict::no(KIND, "ApplyFailed", failed);
    }
    if replicas == 0 {
        return Verdict::no(KIND, "ScaledToZero", "spec.replicas is 0; the registry is not served");
    }
    let ready = facts.ready_replicas.min(replicas);
    let count = format!("{ready} of {replicas} registry pods are ready");
    if let Some(bundle) = &facts.missing.ca_bundle {
        return Verdict::no(
            KIND,
            "CaBundleMissing",
            format!("waiting for {bundle} (spec.bucket.caBundleRef) to be created"),
        );
    }
    if facts.class == Class::Missing && ready < replicas {
        let message = format!("{count}; the StorageClass of their PersistentVolumeClaims does not exist");
        return Verdict::no(KIND, "StorageClassMissing", message);
    }
    let unready = facts.pods.iter().filter(|pod| !is_ready(pod) && !is_deleting(pod));
    let mut troubled: Vec<_> = unready.filter_map(|pod| Some((pod.name_any(), trouble(pod)?))).collect();
    troubled.sort();
    if let Some((pod, why)) = troubled.first() {
        let reason = if why == UNSCHEDULABLE { "NodesUnschedulable" } else { "NodesFailing" };
        // A failing node during a rollout blocks the rollout; the other nodes keep serving the
        // previous revision.
        let rolling = facts.updated_replicas < facts.replicas && reason == "NodesFailing";
        let reason = if rolling { "RolloutStuck" } else { reason };
        return Verdict::no(KIND, reason, format!("{count}; pod {pod}: {why}; see kubectl describe pod {pod}"));
    }
    if ready < replicas {
        return Verdict::no(KIND, "NodesNotReady", count);
    }
    if facts.updated_replicas < replicas {
        return Verdict::yes(KIND, "RollingOut", format!("{count}; a rolling update is in progress"));
    }
    Verdict::yes(KIND, "AllNodesReady", count)
}
