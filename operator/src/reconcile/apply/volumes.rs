//! Carries out the next step of a volume change.

use super::change::{Action, Applied, Change};
use crate::reconcile::build::Kind;
use crate::reconcile::context::Context;
use crate::reconcile::error::Failure;
use crate::reconcile::pass::Pass;
use crate::reconcile::precondition::Precondition;
use crate::reconcile::storage::{ObservedClaim, ObservedNode, Step};
use crate::watch::resource;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DynamicObject, PropagationPolicy};
use serde_json::json;

const CLAIM: &str = "PersistentVolumeClaim";

/// Carries out the planned step. The first failure ends it.
pub async fn take_step(pass: &Pass<'_>, context: &Context) -> Applied {
    let mut applied = Applied::default();
    let result = match &pass.plan.step {
        Step::Done | Step::Wait(_) => Ok(None),
        Step::Resize(claims) => {
            for claim in claims {
                if !applied.record_result(resize(claim, pass, context).await, pass, context) {
                    break;
                }
            }
            Ok(None)
        }
        Step::DeleteSet(precondition) => delete_set(precondition, pass, context).await,
        Step::DeleteClaim(claim) => delete_claim(claim, pass, context).await,
        Step::DeletePod(node) => delete_pod(node, pass, context).await,
    };
    applied.record_result(result, pass, context);
    applied
}

fn claims(pass: &Pass<'_>, context: &Context) -> Api<PersistentVolumeClaim> {
    Api::namespaced(context.client.clone(), &pass.identity.namespace)
}

async fn resize(claim: &ObservedClaim, pass: &Pass<'_>, context: &Context) -> Result<Option<Change>, Failure> {
    let (name, size) = (&claim.name, pass.plan.desired.size);
    let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let resized = claim.precondition.patch(&claims(pass, context), name, patch).await;
    let resized = resized.map_err(Failure::write("resize PersistentVolumeClaim", name))?;
    let note = format!("Resizing PersistentVolumeClaim {name} from {} to {size}", claim.requested);
    Ok(resized.then(|| Change::new(Action::VolumeResized, ("resize", CLAIM), name, note)))
}

async fn delete_set(
    precondition: &Precondition,
    pass: &Pass<'_>,
    context: &Context,
) -> Result<Option<Change>, Failure> {
    let (name, namespace) = (&pass.identity.name, &pass.identity.namespace);
    let sets: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), namespace, &resource(Kind::StatefulSet));
    let deleted = precondition.delete(&sets, name, Some(PropagationPolicy::Orphan)).await;
    let deleted = deleted.map_err(Failure::write("delete", "StatefulSet"))?;
    let note = "Deleted the StatefulSet, keeping its pods, to recreate it with new volumeClaimTemplates".to_owned();
    Ok(deleted.then(|| Change::new(Action::SetDeleted, ("delete", Kind::StatefulSet.name()), name, note)))
}

async fn delete_claim(claim: &ObservedClaim, pass: &Pass<'_>, context: &Context) -> Result<Option<Change>, Failure> {
    let name = &claim.name;
    let deleted = claim.precondition.delete(&claims(pass, context), name, None).await;
    let deleted = deleted.map_err(Failure::write("delete", &format!("PersistentVolumeClaim {name}")))?;
    let size = pass.plan.desired.size;
    let note = format!("Deleted PersistentVolumeClaim {name}; it is recreated with {size}");
    Ok(deleted.then(|| Change::new(Action::NodeDeleted, ("delete", CLAIM), name, note)))
}

async fn delete_pod(node: &ObservedNode, pass: &Pass<'_>, context: &Context) -> Result<Option<Change>, Failure> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &pass.identity.namespace);
    let name = &node.name;
    let deleted = node.precondition.delete(&pods, name, None).await;
    let deleted = deleted.map_err(Failure::write("delete", &format!("Pod {name}")))?;
    let note = format!("Deleted Pod {name} so that it starts with a new volume");
    Ok(deleted.then(|| Change::new(Action::NodeDeleted, ("delete", "Pod"), name, note)))
}
