//! Deletes objects that the spec no longer requires.

use super::change::{Action, Applied, Change};
use crate::reconcile::build::{Child, Kind};
use crate::reconcile::context::Context;
use crate::reconcile::error::Failure;
use crate::reconcile::pass::Pass;
use crate::reconcile::precondition::Precondition;
use crate::watch::resource;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};

/// Deletes objects that have the cluster's label and owner and are no longer built.
pub async fn prune(pass: &Pass<'_>, children: &[Child], context: &Context) -> Applied {
    let mut applied = Applied::default();
    for (kind, object) in &pass.observed.children {
        let name = object.name_any();
        let is_built = children.iter().any(|child| child.kind == *kind && child.name == name);
        let is_owned = pass.identity.owns(object.owner_references());
        if !is_built && is_owned && object.metadata.deletion_timestamp.is_none() {
            let result = delete(*kind, object, &pass.identity.namespace, context).await;
            applied.record_result(result, pass, context);
        }
    }
    applied
}

async fn delete(
    kind: Kind,
    object: &DynamicObject,
    namespace: &str,
    context: &Context,
) -> Result<Option<Change>, Failure> {
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource(kind));
    let name = object.name_any();
    let label = format!("{} {name}", kind.name());
    let Some(precondition) = Precondition::of(object) else { return Ok(None) };
    let deleted = precondition.delete(&api, &name, None).await.map_err(Failure::write("delete", &label))?;
    let note = format!("Deleted {label}, no longer required by the spec");
    Ok(deleted.then(|| Change::new(Action::Deleted, ("delete", kind.name()), &label, note)))
}
