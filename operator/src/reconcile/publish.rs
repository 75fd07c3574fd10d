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
use kube::runtime::events::{Event, EventType, Recorder};
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
    let clusters: Api<Cluster> = Api::namespaced_with(context.client.clone(), &namespace, &());
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
        let event = event(warning, &condition.reason, &condition.type_, note);
        publish(&event, cluster, &context.recorder).await;
    }
    Ok(())
}

/// Publishes an event for each write.
pub(super) async fn changes(cluster: &RegistryCluster, changes: &[Change], context: &Context) {
    for change in changes {
        publish(&event_of(change), cluster, &context.recorder).await;
    }
}

fn event_of(change: &Change) -> Event {
    event(change.is_warning(), change.reason(), &change.event_action(), change.note.clone())
}

/// The `action` keeps events about different objects apart; the recorder would count them as one
/// otherwise.
fn event(warning: bool, reason: &str, action: &str, mut note: String) -> Event {
    while note.len() > MAX_NOTE_LENGTH {
        note.pop();
    }
    Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason: reason.to_owned(),
        note: Some(note),
        action: action.chars().take(MAX_ACTION_LENGTH).collect(),
        secondary: None,
    }
}

async fn publish(event: &Event, cluster: &impl Resource<DynamicType = ()>, recorder: &Recorder) {
    // A lost event only means that the user knows less; the reconciliation itself succeeded.
    if let Err(error) = recorder.publish(event, &cluster.object_ref(&())).await {
        tracing::warn!(cluster = cluster.name_any(), reason = event.reason, %error, "failed to publish an event");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::apply::change::Action;
    use crate::testing::cluster;
    use http::{Method, Request, Response};
    use http_body_util::BodyExt;
    use kube::Client;
    use kube::client::Body;
    use serde_json::Value;
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    /// Each request of the recorder: an event is created, or the count of an earlier one grows.
    type Requests = Arc<Mutex<Vec<(Method, Value)>>>;

    fn recorder(requests: &Requests) -> Recorder {
        let requests = requests.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let requests = requests.clone();
            async move {
                let (head, body) = request.into_parts();
                let sent: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
                requests.lock().unwrap().push((head.method, sent.clone()));
                Ok::<_, Infallible>(Response::new(Body::from(sent.to_string().into_bytes())))
            }
        });
        Recorder::new(Client::new(service, "a"), MANAGER.into())
    }

    #[tokio::test]
    async fn each_kind_of_restore_of_one_object_is_an_event_with_its_own_note() {
        let cluster: RegistryCluster = serde_json::from_value(cluster("images", &json!({}))).unwrap();
        let (requests, restores) = (Requests::default(), [Action::LabelsRestored, Action::Recreated, Action::Reverted]);
        let recorder = recorder(&requests);
        for action in restores {
            let change = Change::new(action, ("apply", "Service"), "Service images", format!("{action:?}"));
            publish(&event_of(&change), &cluster, &recorder).await;
        }
        let requests = requests.lock().unwrap();
        let notes: Vec<_> = requests.iter().map(|(method, event)| (method, event["note"].as_str().unwrap())).collect();
        let new = &Method::POST;
        assert_eq!(notes, [(new, "LabelsRestored"), (new, "Recreated"), (new, "Reverted")]);
        assert!(requests.iter().all(|(_, event)| event["reason"] == "Restored"));
    }
}
