//! The PodDisruptionBudget: how many registry pods a drain may evict at once.

use super::child::{Child, Kind};
use crate::crd::Disruption;
use crate::names::Identity;
use serde_json::json;

pub(super) fn budget(identity: &Identity, disruption: &Disruption) -> Child {
    let mut spec = json!({
        "selector": {"matchLabels": identity.selector()},
        // A registry pod that is not ready serves nothing, so it must not block the drain of its
        // Kubernetes node.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    match (&disruption.min_available, &disruption.max_unavailable) {
        (Some(min), _) => spec["minAvailable"] = json!(min),
        (None, Some(max)) => spec["maxUnavailable"] = json!(max),
        (None, None) => spec["maxUnavailable"] = json!(1),
    }
    Child::new(Kind::PodDisruptionBudget, identity, identity.name.clone(), json!({"spec": spec}))
}
