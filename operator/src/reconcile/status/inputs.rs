//! Everything that the status depends on.

use crate::reconcile::observe::ReferencedSecret;
use crate::reconcile::pass::Pass;
use crate::reconcile::permit::Refusal;
use crate::reconcile::rollout;
use crate::reconcile::storage::{Class, Step};
use entrepot_config::NodeStatus;
use k8s_openapi::api::core::v1::Pod;

/// Everything that the status depends on.
pub(super) struct StatusInputs<'a> {
    pub(super) step: &'a Step,
    /// The StorageClass. Volumes that wait for one that does not exist get a reason of their own.
    pub(super) class: Class,
    /// All pods, ready or not.
    pub(super) pods: Vec<&'a Pod>,
    /// Number of nodes in the status of the StatefulSet.
    pub(super) replicas: i32,
    pub(super) ready_replicas: i32,
    /// Number of nodes of the wanted revision; all of them after a rollout.
    pub(super) updated_replicas: i32,
    pub(super) reports: &'a [NodeStatus],
    pub(super) secrets: &'a [ReferencedSecret],
    /// The ConfigMap with CA certificates that the spec refers to, if it does not exist.
    pub(super) missing_ca: Option<&'a str>,
    /// Why nothing of the spec is applied.
    pub(super) refusal: Option<&'a Refusal>,
    /// All failures as one message.
    pub(super) failed: Option<&'a str>,
    /// The failures because of which the nodes do not match the spec.
    pub(super) failed_nodes: Option<&'a str>,
}

impl<'a> StatusInputs<'a> {
    /// What a reconciliation observed and planned. `set_written` tells that it wrote the
    /// StatefulSet after it was observed.
    pub(super) fn observed(pass: &'a Pass<'_>, set_written: bool) -> StatusInputs<'a> {
        let observed = &pass.observed;
        let set = observed.set.as_ref().and_then(|set| set.status.as_ref());
        // Between deletion and recreation of the StatefulSet its pods keep serving.
        let ready = observed.storage.nodes.iter().filter(|node| node.ready).count();
        let counted = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        StatusInputs {
            step: &pass.plan.step,
            class: observed.storage.class,
            pods: observed.pods.iter().map(AsRef::as_ref).collect(),
            replicas: set.map_or(counted(observed.pods.len()), |set| set.replicas),
            ready_replicas: set.map_or(counted(ready), |set| set.ready_replicas.unwrap_or_default()),
            updated_replicas: observed.set.as_ref().filter(|_| !set_written).map_or(0, rollout::updated),
            reports: &observed.reports,
            secrets: &observed.secrets,
            missing_ca: observed.missing_ca.as_deref(),
            refusal: None,
            failed: None,
            failed_nodes: None,
        }
    }
}
