//! `Ready`: whether all nodes serve, as the spec says; and if not, why.

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
        return Verdict::no(KIND, "ScaledToZero", "spec.replicas is 0: nobody serves");
    }
    let ready = facts.ready_replicas.min(replicas);
    let count = format!("{ready} of {replicas} nodes are ready");
    if let Some(bundle) = &facts.missing.ca_bundle {
        return Verdict::no(
            KIND,
            "CaBundleMissing",
            format!("nodes wait for {bundle}, which bucket.caBundleRef names"),
        );
    }
    if facts.class == Class::Missing && ready < replicas {
        let message = format!("{count}; the StorageClass of their volumes does not exist");
        return Verdict::no(KIND, "StorageClassMissing", message);
    }
    let unready = facts.pods.iter().filter(|pod| !is_ready(pod) && !is_deleting(pod));
    let mut troubled: Vec<_> = unready.filter_map(|pod| Some((pod.name_any(), trouble(pod)?))).collect();
    troubled.sort();
    if let Some((pod, why)) = troubled.first() {
        let reason = if why == UNSCHEDULABLE { "NodesUnschedulable" } else { "NodesFailing" };
        // A node of a revision that is being rolled out stands in its way; the others go on as before.
        let rolling = facts.updated_replicas < facts.replicas && reason == "NodesFailing";
        let reason = if rolling { "RolloutStuck" } else { reason };
        return Verdict::no(KIND, reason, format!("{count}; {pod}: {why}"));
    }
    if ready < replicas {
        return Verdict::no(KIND, "NodesNotReady", count);
    }
    if facts.updated_replicas < replicas {
        return Verdict::yes(KIND, "RollingOut", format!("{count}; a change is being rolled out, node after node"));
    }
    Verdict::yes(KIND, "AllNodesReady", count)
}
