//! The StatefulSet of the nodes. Each node needs a stable name, which its upload sessions carry,
//! and a volume.

use super::{Child, Kind, pod};
use crate::crd::{ReclaimPolicy, RegistryClusterSpec};
use crate::names::{Identity, VOLUME};
use crate::reconcile::storage::Volume;
use crate::reconcile::validate::Valid;
use serde_json::{Value, json};
use std::time::Duration;

/// Delay between the deletion of a pod and its SIGTERM. Endpoints and load balancers stop sending
/// requests meanwhile, and the node still serves.
pub(super) const PRE_STOP: Duration = Duration::from_secs(5);

/// Time that a node has after SIGTERM to finish requests in flight and pending uploads. It exits as
/// soon as it is done.
pub(crate) const DRAIN: Duration = Duration::from_secs(120);

/// When the kubelet kills the container: after the delay, the drain, and 10 s for the store to
/// close.
pub const TERMINATION_GRACE: Duration = PRE_STOP.saturating_add(DRAIN).saturating_add(Duration::from_secs(10));

/// A pod counts as available only after this long, so that a rollout stops at one that starts and
/// then fails.
const SETTLED: Duration = Duration::from_secs(3);

pub(super) fn nodes(identity: &Identity, spec: &RegistryClusterSpec, valid: &Valid) -> Child {
    let reclaim = match spec.store.reclaim_policy {
        ReclaimPolicy::Delete => "Delete",
        ReclaimPolicy::Retain => "Retain",
    };
    let body = json!({"spec": {
        "replicas": spec.replicas,
        "serviceName": identity.nodes_service(),
        "selector": {"matchLabels": identity.selector()},
        // Nodes do not wait for each other to start or to stop.
        "podManagementPolicy": "Parallel",
        // One pod at a time; the rollout pauses while any is not ready.
        "updateStrategy": {"type": "RollingUpdate"},
        "minReadySeconds": SETTLED.as_secs(),
        "revisionHistoryLimit": 5,
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": reclaim, "whenScaled": reclaim},
        "template": pod::template(identity, spec, valid),
        "volumeClaimTemplates": [claim(identity, &valid.volume)],
    }});
    Child::new(Kind::StatefulSet, identity, identity.name.clone(), body)
}

fn claim(identity: &Identity, volume: &Volume) -> Value {
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": volume.size}},
    });
    if let Some(class) = &volume.class {
        spec["storageClassName"] = json!(class);
    }
    let metadata = json!({"name": VOLUME, "labels": identity.labels()});
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
}
