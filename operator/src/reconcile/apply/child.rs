//! Applies one child. Each case has a function of its own: the child is created, recreated, gets
//! its labels back, is replaced, or is updated.

use super::change::{Action, Change};
use super::compare::{Difference, differences, restored};
use crate::names::MANAGER;
use crate::reconcile::build::{Child, Kind};
use crate::reconcile::context::Context;
use crate::reconcile::error::Failure;
use crate::reconcile::pass::Pass;
use crate::watch::resource;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An annotation of every child: the hash of the object that was applied last. If the hash differs
/// from the built object's, the spec or the operator has changed, even where that only removed
/// fields. If it does not, every other difference is a change by somebody else.
const APPLIED: &str = "entrepot.dev/applied";

/// One child, and where it is written.
struct Target<'a> {
    api: Api<DynamicObject>,
    kind: Kind,
    child: &'a Child,
    label: String,
    /// The built object with the annotation [`APPLIED`].
    object: Value,
}

/// Applies a child; `None` if it does not differ.
///
/// # Errors
/// If the child belongs to another owner, or the API server rejects a request or does not respond.
pub(super) async fn apply(pass: &Pass<'_>, child: &Child, context: &Context) -> Result<Option<Change>, Failure> {
    let target = Target::new(pass, child, context);
    let Some(found) = pass.observed.find(child) else {
        return target.restore_or_create(pass).await.map(Some);
    };
    let mut present = serde_json::to_value(found.as_ref()).map_err(Failure::Decode)?;
    // Members of a list have neither apiVersion nor kind.
    (present["apiVersion"], present["kind"]) = (json!(child.kind.api_version()), json!(child.kind.name()));
    let found_differences = differences(&target.object, &present);
    if found_differences.is_empty() {
        return Ok(None);
    }
    let change = if found_differences.iter().any(|difference| difference.added) {
        target.replace(&present, &found_differences, found).await?
    } else {
        target.update(&found_differences, found).await?
    };
    Ok(Some(change))
}

impl<'a> Target<'a> {
    fn new(pass: &Pass<'_>, child: &'a Child, context: &Context) -> Target<'a> {
        let namespace = &pass.identity.namespace;
        let api = Api::namespaced_with(context.client.clone(), namespace, &resource(child.kind));
        Target { api, kind: child.kind, child, label: child.label(), object: with_hash(child) }
    }

    /// Writes a child that no watch shows.
    async fn restore_or_create(&self, pass: &Pass<'_>) -> Result<Change, Failure> {
        // The object may exist without the label. Then its owner decides: this cluster, or somebody
        // else.
        let unlabelled = self.find_unlabelled().await?;
        let by_operator = self.kind == Kind::StatefulSet && pass.observed.recreating_set;
        match unlabelled {
            Some(other) if !pass.identity.owns(other.owner_references()) => {
                Err(Failure::OwnedByOther(self.label.clone()))
            }
            Some(_) => self.restore_labels().await,
            None if pass.observed.already_applied && !by_operator => self.recreate().await,
            None => self.create().await,
        }
    }

    /// A child that exists although no watch shows it. If its CRD is not installed, it does not
    /// exist.
    async fn find_unlabelled(&self) -> Result<Option<DynamicObject>, Failure> {
        match self.api.get(&self.child.name).await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(source) => Err(Failure::Read { what: format!("get {}", self.label), source: Box::new(source) }),
        }
    }

    async fn create(&self) -> Result<Change, Failure> {
        self.server_side_apply().await?;
        Ok(self.change(Action::Created, "create", format!("Created {}", self.label)))
    }

    /// Restores an object that somebody else deleted.
    async fn recreate(&self) -> Result<Change, Failure> {
        self.server_side_apply().await?;
        Ok(self.change(Action::Recreated, "create", format!("Recreated {} after it was deleted", self.label)))
    }

    async fn restore_labels(&self) -> Result<Change, Failure> {
        self.server_side_apply().await?;
        Ok(self.change(Action::LabelsRestored, "create", format!("Restored labels of {}", self.label)))
    }

    /// Replaces the object, because a server-side apply would keep what somebody else added. The
    /// replace is conditional on the observed version, so that no unseen change is reverted.
    async fn replace(
        &self,
        present: &Value,
        differences: &[Difference],
        found: &DynamicObject,
    ) -> Result<Change, Failure> {
        let restored: DynamicObject =
            serde_json::from_value(restored(&self.object, present)).map_err(Failure::Decode)?;
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let replaced = self.api.replace(&self.child.name, &parameters, &restored).await;
        replaced.map_err(Failure::write("revert", &self.label))?;
        Ok(self.change_of_fields("replace", differences, found))
    }

    async fn update(&self, differences: &[Difference], found: &DynamicObject) -> Result<Change, Failure> {
        self.server_side_apply().await?;
        Ok(self.change_of_fields("apply", differences, found))
    }

    /// A change of an existing object: an update if the built object has changed, else the revert
    /// of a change by another field manager.
    fn change_of_fields(&self, verb: &'static str, differences: &[Difference], found: &DynamicObject) -> Change {
        let applied = format!("metadata.annotations.{APPLIED}");
        let fields = field_list(differences, &applied);
        let change = if differences.iter().any(|difference| difference.path == applied) {
            self.change(Action::Updated, verb, format!("Updated {}: {fields}", self.label))
        } else {
            let editor = last_editor(found);
            let note = format!("Reverted {fields} of {}, changed by {editor}", self.label);
            Change { editor: Some(editor), ..self.change(Action::Reverted, verb, note) }
        };
        Change { fields: Some(fields), ..change }
    }

    fn change(&self, action: Action, verb: &'static str, note: String) -> Change {
        Change::new(action, (verb, self.kind.name()), &self.label, note)
    }

    async fn server_side_apply(&self) -> Result<(), Failure> {
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = self.api.patch(&self.child.name, &parameters, &Patch::Apply(&self.object)).await;
        applied.map(drop).map_err(Failure::apply(self.child))
    }
}

fn with_hash(child: &Child) -> Value {
    let mut object = child.object.clone();
    let hash = hex::encode(&Sha256::digest(object.to_string().as_bytes())[..8]);
    object["metadata"]["annotations"][APPLIED] = json!(hash);
    object
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
