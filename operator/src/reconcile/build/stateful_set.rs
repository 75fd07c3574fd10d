//! The StatefulSet of the nodes. Each node needs a stable name, which its upload sessions carry,
//! and a volume.

use super::child::{Child, Kind};
use super::pod;
use super::sources::Sources;
use crate::crd::ReclaimPolicy;
use crate::names::{Identity, VOLUME};
use crate::reconcile::storage::Volume;
use serde_json::{Value, json};
use std::time::Duration;

/// A pod counts as available only after this long, so that a rollout stops at one that starts and
/// then fails.
const SETTLED: Duration = Duration::from_secs(3);

pub(super) fn nodes(sources: &Sources<'_>) -> Child {
    let Sources { identity, spec, volume, .. } = sources;
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
        "template": pod::template(sources),
        "volumeClaimTemplates": [claim(identity, volume)],
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
