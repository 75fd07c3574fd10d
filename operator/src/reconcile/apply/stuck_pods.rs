//! Deletes pods that block the rollout of the wanted revision.

use super::change::{Action, Applied, Change};
use crate::reconcile::context::Context;
use crate::reconcile::error::Failure;
use crate::reconcile::pass::Pass;
use crate::reconcile::precondition::Precondition;
use crate::reconcile::rollout;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;

/// Deletes pods that block the rollout of the wanted revision. The first failure ends the step.
pub async fn delete_stuck_pods(pass: &Pass<'_>, context: &Context) -> Applied {
    let mut applied = Applied::default();
    let Some(wanted) = wanted_revision(pass) else { return applied };
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &pass.identity.namespace);
    for pod in rollout::stuck_pods(pass.observed.pods.iter().map(AsRef::as_ref), wanted, Timestamp::now()) {
        if !applied.record_result(delete(&api, pod).await, pass, context) {
            break;
        }
    }
    applied
}

/// The revision that the StatefulSet rolls out. Until the controller has observed the present
/// StatefulSet, the revisions in its status are outdated.
fn wanted_revision<'a>(pass: &'a Pass<'_>) -> Option<&'a str> {
    let set = pass.observed.set.as_ref().filter(|set| pass.identity.owns(set.owner_references()))?;
    let status = set.status.as_ref().filter(|status| status.observed_generation == set.metadata.generation)?;
    status.update_revision.as_deref()
}

async fn delete(api: &Api<Pod>, pod: &Pod) -> Result<Option<Change>, Failure> {
    let name = pod.name_any();
    let Some(precondition) = Precondition::of(pod) else { return Ok(None) };
    let deleted = precondition.delete(api, &name, None).await;
    let deleted = deleted.map_err(Failure::write("delete", &format!("Pod {name}")))?;
    let reason = rollout::failure_reason(pod).unwrap_or_else(|| "not ready".into());
    let note = format!("Deleted Pod {name}: it has an outdated revision and cannot become ready ({reason})");
    Ok(deleted.then(|| Change::new(Action::Unblocked, ("delete", "Pod"), &name, note)))
}
