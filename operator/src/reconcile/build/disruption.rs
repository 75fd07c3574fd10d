//! How many nodes a drain may take away at once.

use super::{Child, Kind};
use crate::crd::Disruption;
use crate::names::Identity;
use serde_json::json;

pub(super) fn budget(identity: &Identity, disruption: &Disruption) -> Child {
    let mut spec = json!({
        "selector": {"matchLabels": identity.selector()},
        // A node that is not ready serves nobody: it must not keep a machine from being drained.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    match (&disruption.min_available, &disruption.max_unavailable) {
        (Some(least), _) => spec["minAvailable"] = json!(least),
        (None, Some(most)) => spec["maxUnavailable"] = json!(most),
        (None, None) => spec["maxUnavailable"] = json!(1),
    }
    Child::new(Kind::PodDisruptionBudget, identity, identity.name.clone(), json!({"spec": spec}))
}
