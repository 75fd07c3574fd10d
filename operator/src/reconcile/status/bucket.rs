//! `BucketReachable` and `CredentialsValid`, from the nodes' reports, because only the nodes access
//! the bucket.

use super::condition::NewCondition;
use crate::crd::Auth;
use crate::reconcile::observe::{Purpose, ReferencedSecret, SecretState};
use entrepot_config::{BucketState, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

const REACHABLE: &str = "BucketReachable";
const CREDENTIALS: &str = "CredentialsValid";

/// The reason while no node has ever reported.
const NO_REPORTS: &str = "NoNodeReports";

/// The worst state that a node reports, and how many nodes report it. Without the nodes' messages,
/// which differ from one request to the next and would rewrite the status each time.
fn worst(reports: &[NodeStatus]) -> Option<(BucketState, String)> {
    let severity = |state: BucketState| match state {
        BucketState::Reachable => 0,
        // A newer node may report a state that this operator does not know. It may be a problem.
        BucketState::Unknown => 1,
        BucketState::Failing => 2,
        BucketState::Unreachable => 3,
        BucketState::NoCredentials => 4,
        BucketState::Denied => 5,
        BucketState::WrongRegion => 6,
        BucketState::Missing => 7,
    };
    let state = reports.iter().map(|report| report.bucket.state).max_by_key(|state| severity(*state))?;
    let count = reports.iter().filter(|report| report.bucket.state == state).count();
    Some((state, format!("reported by {count} of the {} registry pods that responded", reports.len())))
}

/// The condition while no node reports. The previous `BucketReachable` shows whether one has ever
/// reported, because all its other reasons come from reports.
fn without_reports(kind: &'static str, before: &[Condition]) -> NewCondition {
    if before.iter().any(|condition| condition.type_ == REACHABLE && condition.reason != NO_REPORTS) {
        let message = "registry pods have reported earlier, but none responds now";
        NewCondition::unknown(kind, "NodesNotReporting", message)
    } else {
        NewCondition::unknown(kind, NO_REPORTS, "no registry pod has reported yet")
    }
}

pub(super) fn reachable(reports: &[NodeStatus], before: &[Condition]) -> NewCondition {
    let Some((state, reporters)) = worst(reports) else {
        return without_reports(REACHABLE, before);
    };
    match state {
        BucketState::Reachable => NewCondition::yes(REACHABLE, "Reachable", "the bucket is reachable"),
        BucketState::Unknown => NewCondition::unknown(
            REACHABLE,
            "NotAsked",
            format!("the bucket has not been checked yet, or its state is unknown to this operator, {reporters}"),
        ),
        BucketState::Failing => NewCondition::no(
            REACHABLE,
            "BucketFailing",
            format!("the S3 service returns errors, {reporters}; see the pods' logs"),
        ),
        BucketState::Unreachable => {
            NewCondition::no(REACHABLE, "Unreachable", format!("no response from the bucket's endpoint, {reporters}"))
        }
        BucketState::Missing => NewCondition::no(
            REACHABLE,
            "BucketMissing",
            format!("the bucket of spec.bucket.name does not exist, {reporters}; create it"),
        ),
        BucketState::WrongRegion => NewCondition::no(
            REACHABLE,
            "WrongRegion",
            format!("the bucket is in another region, {reporters}; set spec.bucket.region to it"),
        ),
        BucketState::Denied => NewCondition::no(
            REACHABLE,
            "AccessDenied",
            format!("S3 denied access, {reporters}; see condition CredentialsValid"),
        ),
        BucketState::NoCredentials => NewCondition::unknown(
            REACHABLE,
            "NoCredentials",
            "not checked because the registry pods have no credentials; see condition CredentialsValid",
        ),
    }
}

pub(super) fn credentials(
    auth: &Auth,
    secrets: &[ReferencedSecret],
    reports: &[NodeStatus],
    before: &[Condition],
) -> NewCondition {
    if let Some(problem) = secrets.iter().find_map(of_secret) {
        return problem;
    }
    let Some((state, reporters)) = worst(reports) else {
        return without_reports(CREDENTIALS, before);
    };
    match state {
        BucketState::Reachable => NewCondition::yes(CREDENTIALS, "Accepted", "the bucket accepted the credentials"),
        BucketState::Denied => NewCondition::no(
            CREDENTIALS,
            "Denied",
            format!("S3 denied access, {reporters}: the credentials are invalid or lack permissions on the bucket"),
        ),
        BucketState::NoCredentials => match &auth.secret_ref {
            Some(secret) => NewCondition::no(
                CREDENTIALS,
                "KeysMissing",
                format!(
                    "Secret {} lacks {} or {}, or it has not reached the registry pods yet, {reporters}",
                    secret.name, secret.access_key_id_key, secret.secret_access_key_key
                ),
            ),
            None => NewCondition::no(
                CREDENTIALS,
                "NoIdentity",
                format!(
                    "the registry pods have no workload identity, {reporters}; check spec.bucket.auth.workloadIdentity \
                     and the role's trust policy"
                ),
            ),
        },
        _ => NewCondition::unknown(
            CREDENTIALS,
            "BucketNotReached",
            "credentials were not checked; see condition BucketReachable",
        ),
    }
}

/// The condition for a Secret with credentials that cannot be used.
fn of_secret(secret: &ReferencedSecret) -> Option<NewCondition> {
    let (name, field) = (&secret.name, secret.purpose.field());
    match (secret.purpose, secret.state) {
        (Purpose::Bucket, SecretState::Missing) => {
            let message = format!("Secret {name} ({field}) does not exist; create it; see condition Ready");
            Some(NewCondition::no(CREDENTIALS, "SecretMissing", message))
        }
        (Purpose::Bucket, SecretState::NotLabelled) => {
            let message = format!("Secret {name} ({field}) does not allow its use by registries; see condition Ready");
            Some(NewCondition::no(CREDENTIALS, "SecretNotLabelled", message))
        }
        _ => None,
    }
}
