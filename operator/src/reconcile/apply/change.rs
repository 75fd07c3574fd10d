//! What a reconciliation wrote, and what failed. Every write is logged and counted here.

use crate::reconcile::build::Kind;
use crate::reconcile::context::Context;
use crate::reconcile::error::{Failure, Failures};
use crate::reconcile::pass::Pass;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Created,
    Updated,
    Deleted,
    /// Labels that were removed are back.
    LabelsRestored,
    /// An object that was deleted is back.
    Recreated,
    /// Fields that another field manager changed have the operator's values.
    Reverted,
    VolumeResized,
    /// The StatefulSet was deleted, without its pods.
    SetDeleted,
    /// A claim or a pod was deleted, so that the node gets a new volume.
    NodeDeleted,
    /// A pod was deleted that blocked a rollout.
    Unblocked,
}

impl Action {
    /// Whether somebody else had changed the object.
    fn is_drift(self) -> bool {
        matches!(self, Action::LabelsRestored | Action::Recreated | Action::Reverted)
    }

    /// The reason of the event.
    fn reason(self) -> &'static str {
        match self {
            Action::Created => "Created",
            Action::Updated => "Updated",
            Action::Deleted => "Deleted",
            Action::LabelsRestored | Action::Recreated | Action::Reverted => "Restored",
            Action::VolumeResized => "Resizing",
            Action::SetDeleted => "Recreating",
            Action::NodeDeleted => "RecreatingNode",
            Action::Unblocked => "Unblocked",
        }
    }

    /// The message of the log line; without one, the note is the message.
    fn log_message(self) -> Option<&'static str> {
        match self {
            Action::Created => Some("created"),
            Action::Updated => Some("updated"),
            Action::Deleted => Some("deleted: no longer required by the spec"),
            Action::LabelsRestored => Some("restored labels that were removed"),
            Action::Recreated => Some("recreated an object that was deleted"),
            Action::Reverted => Some("reverted changes by another field manager"),
            Action::VolumeResized | Action::SetDeleted | Action::NodeDeleted | Action::Unblocked => None,
        }
    }
}

/// A write that the user learns about by an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub action: Action,
    /// Kind of the object.
    pub kind: &'static str,
    /// The verb by which the write is counted.
    pub verb: &'static str,
    /// The object, for logs and events.
    pub object: String,
    /// The text of the event.
    pub note: String,
    /// The fields that differed.
    pub fields: Option<String>,
    /// The field manager that had changed the fields.
    pub editor: Option<String>,
}

impl Change {
    pub fn new(action: Action, (verb, kind): (&'static str, &'static str), object: &str, note: String) -> Change {
        Change { action, kind, verb, object: object.to_owned(), note, fields: None, editor: None }
    }

    /// Whether a child of that kind was written, and not deleted.
    pub fn wrote(&self, kind: Kind) -> bool {
        self.kind == kind.name() && self.verb != "delete"
    }

    /// Whether the event is a warning.
    pub fn is_warning(&self) -> bool {
        self.action.is_drift() || self.action == Action::Unblocked
    }

    /// The reason of the event.
    pub fn reason(&self) -> &'static str {
        self.action.reason()
    }

    /// The action of the event. The recorder counts events with the same reason and action as one
    /// and keeps only the first note. So the action names the object, and for the reason `Restored`
    /// also what was restored.
    pub fn event_action(&self) -> String {
        match self.action {
            Action::LabelsRestored => format!("RestoreLabels {}", self.object),
            Action::Recreated => format!("Recreate {}", self.object),
            Action::Reverted => format!("Revert {}", self.object),
            _ => self.object.clone(),
        }
    }

    fn log(&self, pass: &Pass<'_>) {
        let (cluster, namespace) = (pass.identity.name.as_str(), pass.identity.namespace.as_str());
        let (fields, editor) = (self.fields.as_deref(), self.editor.as_deref());
        let (child, message) = (&self.object, self.action.log_message().unwrap_or(&self.note));
        if self.action.is_drift() {
            tracing::warn!(cluster, namespace, child, fields, editor, "{message}");
        } else {
            tracing::info!(cluster, namespace, child, fields, "{message}");
        }
    }
}

/// What one or more steps wrote, and what failed. What was written is known even if a later write
/// failed.
#[derive(Debug, Default)]
pub struct Applied {
    pub changes: Vec<Change>,
    pub outcome: Failures,
}

impl Applied {
    /// Logs, counts and keeps a change.
    pub fn record(&mut self, change: Change, pass: &Pass<'_>, context: &Context) {
        context.metrics.writes.with_label_values(&[change.kind, change.verb]).inc();
        if change.action.is_drift() {
            context.metrics.drifts.with_label_values(&[change.kind]).inc();
        }
        change.log(pass);
        self.changes.push(change);
    }

    /// Records the result of a write that may have been unnecessary. Returns whether it succeeded.
    pub fn record_result(
        &mut self,
        result: Result<Option<Change>, Failure>,
        pass: &Pass<'_>,
        context: &Context,
    ) -> bool {
        match result {
            Ok(change) => change.into_iter().for_each(|change| self.record(change, pass, context)),
            Err(failure) => {
                self.outcome.push(failure);
                return false;
            }
        }
        true
    }

    /// Adds what a later step wrote, and what failed in it.
    pub fn add(&mut self, later: Applied) {
        self.changes.extend(later.changes);
        self.outcome.add(later.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_of_the_kind_that_is_not_a_deletion_counts_as_written() {
        let change = |verb, kind| Change::new(Action::Updated, (verb, kind), "images", String::new());
        assert!(change("apply", "StatefulSet").wrote(Kind::StatefulSet));
        assert!(!change("delete", "StatefulSet").wrote(Kind::StatefulSet));
        assert!(!change("apply", "Service").wrote(Kind::StatefulSet));
    }
}
