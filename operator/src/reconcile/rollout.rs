//! Replaces at once the pods that a StatefulSet would replace one after the other: pods of an
//! outdated revision that cannot become ready. They serve no requests, so the second need not wait
//! until the first is ready. Pure.

use crate::names::REVISION;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// Waiting reasons of a container that do not go away by themselves.
const UNRECOVERABLE: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// The scheduler's reason for a pod that fits on no Kubernetes node.
pub const UNSCHEDULABLE: &str = "Unschedulable";

/// A pod of an outdated revision that was not ready for this long is replaced, whatever the reason.
const NOT_READY_LIMIT: SignedDuration = SignedDuration::from_mins(10);

/// Whether the pod's condition `Ready` is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a k8s_openapi::api::core::v1::PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether the pod is being deleted.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Why the pod cannot become ready: a reason of the kubelet or of the scheduler.
pub fn failure_reason(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref().unwrap_or_default();
    if let Some(reason) = statuses.iter().find_map(unrecoverable_reason) {
        return Some(reason);
    }
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "False")?;
    let reason = scheduled.reason.as_deref().unwrap_or(UNSCHEDULABLE);
    // The scheduler itself failed, mostly because a claim changed meanwhile, and retries at once.
    (reason != "SchedulerError").then(|| reason.to_owned())
}

fn unrecoverable_reason(status: &ContainerStatus) -> Option<String> {
    let reason = status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()?;
    UNRECOVERABLE.contains(&reason).then(|| reason.to_owned())
}

/// Number of nodes of the wanted revision. 0 until the StatefulSet controller has observed the
/// present generation, because its status counts the previous revision until then.
pub fn updated(set: &StatefulSet) -> i32 {
    let status = set.status.as_ref().filter(|status| status.observed_generation == set.metadata.generation);
    status.and_then(|status| status.updated_replicas).unwrap_or_default()
}

/// Pods to delete, so that pods of the wanted revision replace them.
pub fn stuck_pods<'a>(pods: impl IntoIterator<Item = &'a Pod>, wanted: &str, now: Timestamp) -> Vec<&'a Pod> {
    pods.into_iter()
        .filter(|pod| pod.labels().get(REVISION).is_some_and(|revision| revision != wanted))
        .filter(|pod| !is_ready(pod) && !is_deleting(pod))
        // A StatefulSet that replaces a lost pod during a rollout may create it from the old
        // revision. Such a pod is only starting: deleting it over and over would keep it from ever
        // becoming ready.
        .filter(|pod| {
            let made = pod.metadata.creation_timestamp.as_ref();
            let unready_since = condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref()).or(made);
            let is_unrecoverable = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref())
                .is_some_and(|statuses| statuses.iter().any(|status| unrecoverable_reason(status).is_some()));
            is_unrecoverable || unready_since.is_some_and(|since| now.duration_since(since.0) > NOT_READY_LIMIT)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(revision: &str, ready: bool, waiting: Option<&str>) -> Pod {
        let state = waiting.map_or(json!({"running": {}}), |reason| json!({"waiting": {"reason": reason}}));
        let status = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {
                "name": "images-0", "labels": {REVISION: revision}, "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "status": {
                "conditions": [
                    {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T01:00:00Z"},
                ],
                "containerStatuses": [
                    {"name": "node", "image": "i", "imageID": "", "ready": ready, "restartCount": 0, "state": state},
                ],
            },
        }))
        .unwrap()
    }

    fn is_stuck(pod: &Pod, minutes: i64) -> bool {
        let since: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let now = since.checked_add(SignedDuration::from_mins(minutes)).unwrap();
        !stuck_pods([pod], "new", now).is_empty()
    }

    #[test]
    fn an_outdated_pod_that_cannot_start_is_deleted_and_a_current_one_is_not() {
        assert!(is_stuck(&pod("old", false, Some("ImagePullBackOff")), 0));
        assert!(!is_stuck(&pod("new", false, Some("ImagePullBackOff")), 60));
    }

    #[test]
    fn an_outdated_pod_that_serves_or_is_only_starting_is_kept() {
        assert!(!is_stuck(&pod("old", true, None), 60));
        assert!(!is_stuck(&pod("old", false, None), 9));
        assert!(!is_stuck(&pod("old", false, Some("ContainerCreating")), 9));
        assert!(is_stuck(&pod("old", false, Some("ContainerCreating")), 11));
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_not_deleted_again() {
        let mut going = pod("old", false, Some("ErrImagePull"));
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        assert!(!is_stuck(&going, 60));
    }

    #[test]
    fn a_change_that_the_controller_has_not_observed_does_not_count_as_rolled_out() {
        let set = |seen: i64| {
            let set = json!({
                "metadata": {"generation": 2},
                "status": {"observedGeneration": seen, "replicas": 3, "updatedReplicas": 3},
            });
            updated(&serde_json::from_value(set).unwrap())
        };
        assert_eq!((set(1), set(2)), (0, 3));
        assert_eq!(updated(&StatefulSet::default()), 0);
    }

    #[test]
    fn the_trouble_is_the_kubelets_reason() {
        assert_eq!(failure_reason(&pod("new", false, Some("ErrImagePull"))).as_deref(), Some("ErrImagePull"));
        assert_eq!(failure_reason(&pod("new", false, None)), None);
    }

    #[test]
    fn an_unschedulable_pod_is_in_trouble_and_one_after_a_scheduler_error_is_not() {
        let unscheduled = |reason: &str| {
            let scheduled = json!([{"type": "PodScheduled", "status": "False", "reason": reason}]);
            let pod = json!({"metadata": {"name": "images-0"}, "status": {"conditions": scheduled}});
            failure_reason(&serde_json::from_value(pod).unwrap())
        };
        assert_eq!(unscheduled(UNSCHEDULABLE).as_deref(), Some(UNSCHEDULABLE));
        assert_eq!(unscheduled("SchedulerError"), None);
    }
}
