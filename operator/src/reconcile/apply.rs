//! Applies what was built with as few writes as there are differences, so none if nothing differs.
//! A failure is recorded, and everything that does not depend on it continues.

pub mod compare;

use super::build::{Child, Kind};
use super::observe::Observed;
use super::precondition::Precondition;
use super::rollout;
use super::storage::{Step, Volume};
use super::{Context, Failure, Failures};
use crate::names::{Identity, MANAGER};
use crate::watch::resource;
use compare::{Difference, differences, restored};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams, PropagationPolicy};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An annotation of every child: the hash of the object that was applied last. If the hash differs
/// from the built object's, the spec or the operator has changed, even where that only removed
/// fields. If it does not, every other difference is a change by somebody else.
pub const APPLIED: &str = "entrepot.dev/applied";

/// A write that the user learns about by an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether the event is a warning.
    pub warning: bool,
    pub reason: &'static str,
    /// The object that was written. The recorder counts events about the same object together.
    pub object: String,
    pub note: String,
}

impl Change {
    /// Whether a child of that kind was written.
    pub fn is_of(&self, kind: Kind) -> bool {
        self.object.split_once(' ').is_some_and(|(name, _)| name == kind.name())
    }

    fn normal(reason: &'static str, object: &str, note: String) -> Change {
        Change { warning: false, reason, object: object.to_owned(), note }
    }

    fn warning(reason: &'static str, object: &str, note: String) -> Change {
        Change { warning: true, reason, object: object.to_owned(), note }
    }
}

/// What a reconciliation has written so far, and what failed.
#[derive(Debug, Default)]
pub struct Done {
    pub changes: Vec<Change>,
    pub failures: Failures,
}

/// Applies each child on its own, and deletes objects that are no longer among the children.
pub async fn apply(
    identity: &Identity,
    children: &[Child],
    observed: &Observed,
    step: &Step,
    context: &Context,
    done: &mut Done,
) {
    let mut dependencies_applied = true;
    for child in children {
        let is_set = child.kind == Kind::StatefulSet;
        if is_set && !step.keeps_set() {
            continue;
        }
        let applied = if is_set && !dependencies_applied {
            Err(Failure::DependencyFailed(child.label()))
        } else {
            apply_child(identity, child, observed, context).await
        };
        match applied {
            Ok(change) => done.changes.extend(change),
            Err(failure) => {
                dependencies_applied &= !nodes_depend_on(child, &failure);
                if child.kind.is_of_nodes() {
                    done.failures.push_of_nodes(failure);
                } else {
                    done.failures.push(failure);
                }
            }
        }
    }
    prune(identity, children, observed, context, done).await;
}

/// Nodes with a new configuration hash that start with the old ConfigMap would keep its
/// configuration, and pods need the cluster's own ServiceAccount. A registry whose Service names
/// belong to another owner is not started.
fn nodes_depend_on(child: &Child, failure: &Failure) -> bool {
    matches!(child.kind, Kind::ServiceAccount | Kind::ConfigMap)
        || (child.kind == Kind::Service && matches!(failure, Failure::OwnedByOther(_)))
}

fn with_hash(child: &Child) -> Value {
    let mut object = child.object.clone();
    let hash = hex::encode(&Sha256::digest(object.to_string().as_bytes())[..8]);
    object["metadata"]["annotations"][APPLIED] = json!(hash);
    object
}

async fn apply_child(
    identity: &Identity,
    child: &Child,
    observed: &Observed,
    context: &Context,
) -> Result<Option<Change>, Failure> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &identity.namespace, &resource(child.kind));
    let label = child.label();
    let object = with_hash(child);
    let count = |verb| context.metrics.writes.with_label_values(&[child.kind.name(), verb]).inc();
    let Some(found) = observed.find(child) else {
        // The object may exist without the label. Then its owner decides: this cluster, or somebody
        // else.
        let unlabelled = find_unlabelled(&api, child).await?;
        if let Some(unlabelled) = &unlabelled
            && !identity.owns(unlabelled.owner_references())
        {
            return Err(Failure::OwnedByOther(label));
        }
        server_side_apply(&api, child, &object).await?;
        count("create");
        if unlabelled.is_some() {
            context.metrics.drifts.with_label_values(&[child.kind.name()]).inc();
            tracing::warn!(
                cluster = identity.name,
                namespace = identity.namespace,
                child = label,
                "restored labels that were removed"
            );
            return Ok(Some(Change::warning("Restored", &label, format!("Restored labels of {label}"))));
        }
        if observed.already_applied && !(child.kind == Kind::StatefulSet && observed.recreating_set) {
            context.metrics.drifts.with_label_values(&[child.kind.name()]).inc();
            tracing::warn!(
                cluster = identity.name,
                namespace = identity.namespace,
                child = label,
                "recreated an object that was deleted"
            );
            return Ok(Some(Change::warning("Restored", &label, format!("Recreated {label} after it was deleted"))));
        }
        tracing::info!(cluster = identity.name, namespace = identity.namespace, child = label, "created");
        return Ok(Some(Change::normal("Created", &label, format!("Created {label}"))));
    };
    let mut now = serde_json::to_value(found.as_ref()).map_err(Failure::Decode)?;
    // Members of a list have neither apiVersion nor kind.
    (now["apiVersion"], now["kind"]) = (json!(child.kind.api_version()), json!(child.kind.name()));
    let found_differences = differences(&object, &now);
    if found_differences.is_empty() {
        return Ok(None);
    }
    let applied = format!("metadata.annotations.{APPLIED}");
    let drifted = found_differences.iter().all(|difference| difference.path != applied);
    if found_differences.iter().any(|difference| difference.added) {
        // Server-side apply would keep what somebody else added, so replace the object. The replace
        // is conditional on the observed version, so that no unseen change is reverted.
        let restored: DynamicObject = serde_json::from_value(restored(&object, &now)).map_err(Failure::Decode)?;
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        api.replace(&child.name, &parameters, &restored).await.map_err(Failure::write("revert", &label))?;
        count("replace");
    } else {
        server_side_apply(&api, child, &object).await?;
        count("apply");
    }
    let fields = field_list(&found_differences, &applied);
    if drifted {
        let editor = last_editor(found);
        context.metrics.drifts.with_label_values(&[child.kind.name()]).inc();
        tracing::warn!(
            cluster = identity.name,
            namespace = identity.namespace,
            child = label,
            fields,
            editor = editor,
            "reverted changes by another field manager"
        );
        return Ok(Some(Change::warning(
            "Restored",
            &label,
            format!("Reverted {fields} of {label}, changed by {editor}"),
        )));
    }
    tracing::info!(cluster = identity.name, namespace = identity.namespace, child = label, fields, "updated");
    Ok(Some(Change::normal("Updated", &label, format!("Updated {label}: {fields}"))))
}

/// A child that exists although no watch shows it. If its CRD is not installed, it does not exist.
async fn find_unlabelled(api: &Api<DynamicObject>, child: &Child) -> Result<Option<DynamicObject>, Failure> {
    match api.get(&child.name).await {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(source) => Err(Failure::Read { what: format!("get {}", child.label()), source: Box::new(source) }),
    }
}

/// The first few fields, for a log line or an event.
fn field_list(found: &[Difference], applied: &str) -> String {
    let paths: Vec<_> = found.iter().map(|found| found.path.as_str()).filter(|path| *path != applied).collect();
    match paths.len() {
        0 => "removed fields".into(),
        1..=4 => paths.join(", "),
        more => format!("{} and {} more", paths[..3].join(", "), more - 3),
    }
}

/// The field manager of the last write, as far as the API server recorded it.
fn last_editor(object: &DynamicObject) -> String {
    let managers = object.managed_fields().iter().filter(|entry| entry.subresource.is_none());
    let last =
        managers.filter(|entry| entry.manager.as_deref() != Some(MANAGER)).max_by_key(|entry| entry.time.clone());
    last.and_then(|entry| entry.manager.clone()).unwrap_or_else(|| "an unknown field manager".into())
}

async fn server_side_apply(api: &Api<DynamicObject>, child: &Child, object: &Value) -> Result<(), Failure> {
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch(&child.name, &parameters, &Patch::Apply(object)).await.map(drop).map_err(Failure::apply(child))
}

/// Deletes objects that have the cluster's label and owner and are no longer built.
async fn prune(identity: &Identity, children: &[Child], observed: &Observed, context: &Context, done: &mut Done) {
    for (kind, object) in &observed.children {
        let name = object.name_any();
        let built = children.iter().any(|child| child.kind == *kind && child.name == name);
        if built || !identity.owns(object.owner_references()) || object.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let api: Api<DynamicObject> =
            Api::namespaced_with(context.client.clone(), &identity.namespace, &resource(*kind));
        let label = format!("{} {name}", kind.name());
        let Some(version) = Precondition::of(object.as_ref()) else { continue };
        match delete(&api, &name, &version, None, &label).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(failure) => {
                done.failures.push(failure);
                continue;
            }
        }
        context.metrics.writes.with_label_values(&[kind.name(), "delete"]).inc();
        tracing::info!(
            cluster = identity.name,
            namespace = identity.namespace,
            child = label,
            "deleted: no longer required by the spec"
        );
        done.changes.push(Change::normal(
            "Deleted",
            &label,
            format!("Deleted {label}, no longer required by the spec"),
        ));
    }
}

/// [`Precondition::delete`] with its error as a [`Failure`].
async fn delete<K>(
    api: &Api<K>,
    name: &str,
    precondition: &Precondition,
    propagation: Option<PropagationPolicy>,
    label: &str,
) -> Result<bool, Failure>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    precondition.delete(api, name, propagation).await.map_err(Failure::write("delete", label))
}

/// Carries out the next step of a volume change.
///
/// # Errors
/// If the API server rejects a write or does not respond.
pub async fn take_step(
    identity: &Identity,
    step: &Step,
    desired: &Volume,
    context: &Context,
    changes: &mut Vec<Change>,
) -> Result<(), Failure> {
    let namespace = identity.namespace.as_str();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let count = |kind, verb| context.metrics.writes.with_label_values(&[kind, verb]).inc();
    let log = |note: &str| tracing::info!(cluster = identity.name, namespace, "{note}");
    match step {
        Step::Done | Step::Wait(_) => {}
        Step::Resize(small) => {
            for claim in small {
                let patch = json!({"spec": {"resources": {"requests": {"storage": desired.size}}}});
                let resized = claim.precondition.patch(&claims, &claim.name, patch).await;
                if resized.map_err(Failure::write("resize PersistentVolumeClaim", &claim.name))? {
                    count("PersistentVolumeClaim", "resize");
                    let note = format!(
                        "Resizing PersistentVolumeClaim {} from {} to {}",
                        claim.name, claim.requested, desired.size
                    );
                    log(&note);
                    changes.push(Change::normal("Resizing", &claim.name, note));
                }
            }
        }
        Step::DeleteSet(version) => {
            let sets: Api<DynamicObject> =
                Api::namespaced_with(context.client.clone(), namespace, &resource(Kind::StatefulSet));
            let orphan = Some(PropagationPolicy::Orphan);
            if delete(&sets, &identity.name, version, orphan, "StatefulSet").await? {
                count("StatefulSet", "delete");
                let note = "Deleted the StatefulSet, keeping its pods, to recreate it with new volumeClaimTemplates"
                    .to_owned();
                log(&note);
                changes.push(Change::normal("Recreating", &identity.name, note));
            }
        }
        Step::DeleteClaim(claim) => {
            let label = format!("PersistentVolumeClaim {}", claim.name);
            if delete(&claims, &claim.name, &claim.precondition, None, &label).await? {
                count("PersistentVolumeClaim", "delete");
                let note =
                    format!("Deleted PersistentVolumeClaim {}; it is recreated with {}", claim.name, desired.size);
                log(&note);
                changes.push(Change::normal("RecreatingNode", &claim.name, note));
            }
        }
        Step::DeletePod(node) => {
            let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
            if delete(&pods, &node.name, &node.precondition, None, &format!("Pod {}", node.name)).await? {
                count("Pod", "delete");
                let note = format!("Deleted Pod {} so that it starts with a new volume", node.name);
                log(&note);
                changes.push(Change::normal("RecreatingNode", &node.name, note));
            }
        }
    }
    Ok(())
}

/// Deletes pods that block the rollout of the wanted revision.
///
/// # Errors
/// If the API server rejects a deletion or does not respond.
pub async fn delete_stuck_pods(
    identity: &Identity,
    observed: &Observed,
    context: &Context,
    changes: &mut Vec<Change>,
) -> Result<(), Failure> {
    let Some(set) = &observed.set else { return Ok(()) };
    let Some(status) = &set.status else { return Ok(()) };
    // Until the controller has observed the present StatefulSet, the revisions in its status are
    // outdated.
    if status.observed_generation != set.metadata.generation || !identity.owns(set.owner_references()) {
        return Ok(());
    }
    let Some(wanted) = &status.update_revision else { return Ok(()) };
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &identity.namespace);
    for pod in rollout::stuck_pods(observed.pods.iter().map(AsRef::as_ref), wanted, Timestamp::now()) {
        let name = pod.name_any();
        let Some(version) = Precondition::of(pod) else { continue };
        if delete(&pods, &name, &version, None, &format!("Pod {name}")).await? {
            context.metrics.writes.with_label_values(&["Pod", "delete"]).inc();
            let why = rollout::failure_reason(pod).unwrap_or_else(|| "not ready".into());
            let note = format!("Deleted Pod {name}: it has an outdated revision and cannot become ready ({why})");
            tracing::info!(cluster = identity.name, namespace = identity.namespace, "{note}");
            changes.push(Change::warning("Unblocked", &name, note));
        }
    }
    Ok(())
}
