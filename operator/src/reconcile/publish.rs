//! Reports to the user: writes the status if it changed, and publishes an event for every write and
//! every changed condition.

use super::apply::Change;
use super::context::Context;
use super::error::Failure;
use super::status::changed_conditions;
use crate::crd::{RegistryCluster, Status};
use crate::names::MANAGER;
use crate::watch::Cluster;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde_json::json;

/// Maximum length of an event's note in the API, in bytes.
const MAX_NOTE_LENGTH: usize = 1024;

/// Maximum length of an event's action in the API.
const MAX_ACTION_LENGTH: usize = 128;

/// Writes the status unless it equals `before`, and publishes an event for each condition that
/// changed.
pub(super) async fn status(
    cluster: &impl Resource<DynamicType = ()>,
    before: Option<&Status>,
    status: Status,
    context: &Context,
) -> Result<(), Failure> {
    if before == Some(&status) {
        return Ok(());
    }
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    // The response is the whole object, which may be one that cannot be decoded.
    let clusters: Api<Cluster> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": RegistryCluster::api_version(&()),
        "kind": RegistryCluster::kind(&()),
        "status": status,
    });
    clusters
        .patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch))
        .await
        .map_err(Failure::write("write", "the status"))?;
    context.metrics.writes.with_label_values(&["RegistryCluster", "status"]).inc();
    for condition in changed_conditions(before, &status) {
        let good = (condition.status == "True") == (condition.type_ != "Paused");
        tracing::info!(
            cluster = name,
            namespace,
            condition = condition.type_,
            status = condition.status,
            reason = condition.reason,
            detail = condition.message,
            "condition changed"
        );
        let note = format!("{}={}: {}", condition.type_, condition.status, condition.message);
        let warning = !good && condition.type_ != "Paused";
        event(cluster, warning, &condition.reason, &condition.type_, note, context).await;
    }
    Ok(())
}

/// Publishes an event for each write.
pub(super) async fn changes(cluster: &RegistryCluster, changes: &[Change], context: &Context) {
    for change in changes {
        event(cluster, change.is_warning(), change.reason(), &change.event_action(), change.note.clone(), context)
            .await;
    }
}

/// The `action` keeps events about different objects apart; the recorder would count them as one
/// otherwise.
async fn event(
    cluster: &impl Resource<DynamicType = ()>,
    warning: bool,
    reason: &str,
    action: &str,
    mut note: String,
    context: &Context,
) {
    while note.len() > MAX_NOTE_LENGTH {
        note.pop();
    }
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        note: Some(note),
        action: action.chars().take(MAX_ACTION_LENGTH).collect(),
        secondary: None,
    };
    // A lost event only means that the user knows less; the reconciliation itself succeeded.
    if let Err(error) = context.recorder.publish(&event, &cluster.object_ref(&())).await {
        tracing::warn!(cluster = cluster.name_any(), reason, %error, "failed to publish an event");
    }
}
