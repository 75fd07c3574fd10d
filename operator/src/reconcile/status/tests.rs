use super::*;
use crate::reconcile::observe::{Purpose, ReferencedSecret, SecretState};
use crate::reconcile::precondition::Precondition;
use crate::reconcile::storage::{Class, Step, Waiting};
use entrepot_config::{BucketState, BucketStatus, StoreStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

fn cluster() -> RegistryCluster {
    serde_json::from_value(json!({
        "apiVersion": "entrepot.dev/v1alpha1", "kind": "RegistryCluster",
        "metadata": {"name": "images", "namespace": "registry", "uid": "1", "generation": 2},
        "spec": {"bucket": {"name": "images", "auth": {"secretRef": {"name": "s3"}}}, "store": {"size": "10Gi"}},
    }))
    .unwrap()
}

fn report(state: BucketState) -> NodeStatus {
    let store =
        StoreStatus { capacity: 10 << 30, used: 7 << 30, free: 3 << 30, low_free: 1 << 30, target_free: 2 << 30 };
    NodeStatus { bucket: BucketStatus { state, message: "request 4711".into() }, store, ..NodeStatus::default() }
}

const HEALTHY: StatusInputs<'static> = StatusInputs {
    step: &Step::Done,
    class: Class::NotNeeded,
    pods: vec![],
    replicas: 3,
    ready_replicas: 3,
    updated_replicas: 3,
    reports: &[],
    secrets: &[],
    missing_ca: None,
    refusal: None,
    failed: None,
    failed_nodes: None,
};

fn at(time: &str) -> Time {
    Time(time.parse().unwrap())
}

fn status_of(cluster: &RegistryCluster, inputs: &StatusInputs<'_>) -> Status {
    new_status(cluster, "hash", inputs, &at("2026-01-01T00:00:00Z"))
}

/// Status and reason of a condition.
fn of<'a>(status: &'a Status, kind: &str) -> (&'a str, &'a str) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&condition.status, &condition.reason)
}

fn by_reports(states: &[BucketState], secret: SecretState) -> Status {
    let reports: Vec<_> = states.iter().map(|state| report(*state)).collect();
    let secrets = [ReferencedSecret { purpose: Purpose::Bucket, name: "s3".into(), state: secret }];
    status_of(&cluster(), &StatusInputs { reports: &reports, secrets: &secrets, ..HEALTHY })
}

#[test]
fn a_healthy_cluster_has_six_good_conditions() {
    let status = by_reports(&[BucketState::Reachable; 3], SecretState::Allowed);
    assert_eq!(of(&status, "Ready"), ("True", "AllNodesReady"));
    assert_eq!(of(&status, "Applied"), ("True", "AllApplied"));
    assert_eq!(of(&status, "BucketReachable"), ("True", "Reachable"));
    assert_eq!(of(&status, "CredentialsValid"), ("True", "Accepted"));
    assert_eq!(of(&status, "StorageResized"), ("True", "AsDesired"));
    assert_eq!(of(&status, "Paused"), ("False", "Reconciling"));
    let store = status.store.unwrap();
    assert_eq!((store.capacity.as_str(), store.fullest.as_str()), ("30Gi", "70%"));
    assert_eq!(store.thresholds, "1Gi / 2Gi");
    assert_eq!(status.endpoint, "http://images.registry.svc:5000");
}

#[test]
fn one_missing_report_of_a_ready_node_keeps_the_cache_summary() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "images-0"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap();
    let mut cluster = cluster();
    let status_with_reports = |cluster: &RegistryCluster, answers: usize| {
        let reports: Vec<_> = (0..answers).map(|_| report(BucketState::Reachable)).collect();
        status_of(cluster, &StatusInputs { pods: vec![&pod; 3], reports: &reports, ..HEALTHY })
    };
    let capacity = |status: &Status| status.store.as_ref().map(|store| store.capacity.clone());
    assert_eq!(
        capacity(&status_with_reports(&cluster, 2)).as_deref(),
        Some("20Gi"),
        "without a previous summary, the reports that arrived"
    );
    cluster.status = Some(status_with_reports(&cluster, 3));
    assert_eq!(status_with_reports(&cluster, 2), *cluster.status.as_ref().unwrap());
    assert_eq!(capacity(&status_with_reports(&cluster, 3)).as_deref(), Some("30Gi"));
}

#[test]
fn every_problem_of_the_bucket_has_its_own_reason() {
    let (allowed, missing, unlabelled) = (SecretState::Allowed, SecretState::Missing, SecretState::NotLabelled);
    for (states, secret, bucket, credentials) in [
        (vec![], allowed, ("Unknown", "NoNodeReports"), ("Unknown", "NoNodeReports")),
        (vec![BucketState::NoCredentials], missing, ("Unknown", "NoCredentials"), ("False", "SecretMissing")),
        (vec![BucketState::Reachable], unlabelled, ("True", "Reachable"), ("False", "SecretNotLabelled")),
        (vec![BucketState::NoCredentials], allowed, ("Unknown", "NoCredentials"), ("False", "KeysMissing")),
        (vec![BucketState::Denied], allowed, ("False", "AccessDenied"), ("False", "Denied")),
        (vec![BucketState::Missing], allowed, ("False", "BucketMissing"), ("Unknown", "BucketNotReached")),
        (vec![BucketState::WrongRegion], allowed, ("False", "WrongRegion"), ("Unknown", "BucketNotReached")),
        (vec![BucketState::Unreachable], allowed, ("False", "Unreachable"), ("Unknown", "BucketNotReached")),
        (vec![BucketState::Failing], allowed, ("False", "BucketFailing"), ("Unknown", "BucketNotReached")),
    ] {
        let status = by_reports(&states, secret);
        assert_eq!(
            (of(&status, "BucketReachable"), of(&status, "CredentialsValid")),
            (bucket, credentials),
            "{states:?}"
        );
        // The nodes still serve what they have stored.
        assert_eq!(of(&status, "Ready").0, "True");
    }
}

#[test]
fn one_node_that_cannot_reach_the_bucket_is_reported() {
    let states = [BucketState::Reachable, BucketState::Unreachable, BucketState::Reachable];
    let status = by_reports(&states, SecretState::Allowed);
    let condition = status.conditions.iter().find(|condition| condition.type_ == "BucketReachable").unwrap();
    assert!(condition.message.contains("1 of the 3 registry pods"), "{}", condition.message);
}

#[test]
fn a_state_that_the_operator_does_not_know_hides_no_failure_and_is_not_hidden() {
    use BucketState::{Failing, Reachable, Unknown};
    for (states, expected) in [
        ([Reachable, Unknown, Reachable], ("Unknown", "NotAsked")),
        ([Reachable, Unknown, Failing], ("False", "BucketFailing")),
    ] {
        let status = by_reports(&states, SecretState::Allowed);
        assert_eq!(of(&status, "BucketReachable"), expected, "{states:?}");
        assert_eq!(of(&status, "CredentialsValid"), ("Unknown", "BucketNotReached"));
    }
}

#[test]
fn pods_that_stopped_responding_are_not_said_to_have_never_reported() {
    let mut cluster = cluster();
    let silent = |cluster: &RegistryCluster| status_of(cluster, &HEALTHY);
    cluster.status = Some(silent(&cluster));
    assert_eq!(of(&silent(&cluster), "BucketReachable"), ("Unknown", "NoNodeReports"));
    let reports = [report(BucketState::Denied)];
    cluster.status = Some(status_of(&cluster, &StatusInputs { reports: &reports, ..HEALTHY }));
    // At once, and in every later reconciliation.
    for _ in 0..2 {
        let status = silent(&cluster);
        for kind in ["BucketReachable", "CredentialsValid"] {
            assert_eq!(of(&status, kind), ("Unknown", "NodesNotReporting"));
        }
        cluster.status = Some(status);
    }
}

#[test]
fn volumes_that_do_not_match_the_spec_have_a_reason() {
    for (step, class, reason) in [
        (Step::Done, Class::Missing, "StorageClassMissing"),
        (Step::Resize(vec![]), Class::Expands, "Expanding"),
        (Step::Wait(Waiting::Expanding), Class::NotNeeded, "Expanding"),
        (Step::Wait(Waiting::CannotExpand), Class::CannotExpand, "StorageClassCannotExpand"),
        (Step::Wait(Waiting::ClassMissing), Class::Missing, "StorageClassMissing"),
        (Step::Wait(Waiting::Unbound), Class::Expands, "VolumesPending"),
        (
            Step::DeleteSet(Precondition { uid: "1".into(), resource_version: "1".into() }),
            Class::NotNeeded,
            "Replacing",
        ),
        (Step::Wait(Waiting::Nodes), Class::NotNeeded, "RecreatingNodes"),
    ] {
        let status = status_of(&cluster(), &StatusInputs { step: &step, class, ..HEALTHY });
        assert_eq!(of(&status, "StorageResized"), ("False", reason));
    }
}

#[test]
fn a_cluster_that_is_not_ready_has_a_reason() {
    let failing: Pod = serde_json::from_value(json!({
        "metadata": {"name": "images-2"},
        "status": {"containerStatuses": [{
            "name": "node", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull"}},
        }]},
    }))
    .unwrap();
    let ready = |inputs: StatusInputs<'_>| {
        let status = status_of(&cluster(), &inputs);
        let (status, reason) = of(&status, "Ready");
        (status.to_owned(), reason.to_owned())
    };
    let answer = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(ready(StatusInputs { ready_replicas: 2, ..HEALTHY }), answer("False", "NodesNotReady"));
    assert_eq!(ready(StatusInputs { updated_replicas: 1, ..HEALTHY }), answer("True", "RollingOut"));
    assert_eq!(ready(StatusInputs { failed_nodes: Some("quota"), ..HEALTHY }), answer("False", "ApplyFailed"));
    assert_eq!(ready(StatusInputs { failed: Some("no ServiceMonitor"), ..HEALTHY }), answer("True", "AllNodesReady"));
    let bad = |updated_replicas| StatusInputs { ready_replicas: 2, updated_replicas, pods: vec![&failing], ..HEALTHY };
    assert_eq!(ready(bad(1)), answer("False", "RolloutStuck"));
    assert_eq!(ready(bad(3)), answer("False", "NodesFailing"));
    let class = StatusInputs { ready_replicas: 0, class: Class::Missing, ..HEALTHY };
    assert_eq!(ready(class), answer("False", "StorageClassMissing"));
    let bundle = StatusInputs { missing_ca: Some("ConfigMap ca"), ..HEALTHY };
    assert_eq!(ready(bundle), answer("False", "CaBundleMissing"));
}

#[test]
fn the_same_facts_give_the_same_status_at_any_time() {
    let mut cluster = cluster();
    let first = new_status(&cluster, "hash", &HEALTHY, &at("2026-01-01T00:00:00Z"));
    assert_eq!(changed_conditions(None, &first).len(), 1);
    cluster.status = Some(first.clone());
    assert_eq!(new_status(&cluster, "hash", &HEALTHY, &at("2026-01-02T00:00:00Z")), first);
    let later =
        new_status(&cluster, "hash", &StatusInputs { ready_replicas: 1, ..HEALTHY }, &at("2026-01-02T00:00:00Z"));
    let changed = changed_conditions(Some(&first), &later);
    assert_eq!((changed.len(), changed[0].reason.as_str()), (1, "NodesNotReady"));
    assert_eq!(changed[0].last_transition_time, at("2026-01-02T00:00:00Z"));
}

#[test]
fn a_reconciliation_with_a_failure_has_not_observed_the_generation() {
    let status = status_of(&cluster(), &StatusInputs { failed: Some("quota"), ..HEALTHY });
    assert_eq!((status.observed_generation, of(&status, "Applied")), (None, ("False", "ApplyFailed")));
    assert_eq!(status_of(&cluster(), &HEALTHY).observed_generation, Some(2));
}

#[test]
fn a_paused_or_invalid_cluster_keeps_its_previous_status() {
    let mut cluster = cluster();
    cluster.status = Some(status_of(&cluster, &HEALTHY));
    let now = at("2026-01-02T00:00:00Z");
    let status = paused(&cluster, &now);
    assert_eq!((of(&status, "Paused"), of(&status, "Ready")), (("True", "PausedByUser"), ("True", "AllNodesReady")));
    let status = invalid(cluster.status, Some(3), "tags.immutable: no", &now);
    assert_eq!((of(&status, "Ready"), status.observed_generation), (("False", "InvalidSpec"), Some(3)));
    assert_eq!((of(&status, "Applied"), status.ready_replicas), (("False", "InvalidSpec"), 3));
}

#[test]
fn a_refused_spec_is_reported_and_the_registry_that_runs_still_is() {
    let refusal = Refusal { reason: "NotAllowed", message: "spec.nodeImage: no".into() };
    let reports = [report(BucketState::Reachable)];
    let inputs = StatusInputs { refusal: Some(&refusal), reports: &reports, ..HEALTHY };
    let status = status_of(&cluster(), &inputs);
    assert_eq!((of(&status, "Ready"), of(&status, "Applied")), (("False", "NotAllowed"), ("False", "NotAllowed")));
    assert_eq!((of(&status, "BucketReachable").0, status.ready_replicas), ("True", 3));
    assert_eq!(status.observed_generation, Some(2));
    assert!(!is_healthy(&status));
}
