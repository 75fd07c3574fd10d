//! `BucketReachable` and `CredentialsValid`, from the nodes' reports, because only the nodes access
//! the bucket.

use super::condition::NewCondition;
use crate::crd::Auth;
use crate::reconcile::observe::Missing;
use entrepot_config::{BucketState, NodeStatus};

/// The worst state that a node reports, and how many nodes report it. Without the nodes' messages,
/// which differ from one request to the next and would rewrite the status each time.
fn worst(reports: &[NodeStatus]) -> Option<(BucketState, String)> {
    let severity = |state: BucketState| match state {
        BucketState::Unknown => 0,
        BucketState::Reachable => 1,
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

pub(super) fn reachable(reports: &[NodeStatus]) -> NewCondition {
    const KIND: &str = "BucketReachable";
    let Some((state, reporters)) = worst(reports) else {
        return NewCondition::unknown(KIND, "NoNodeReports", "no registry pod has reported yet");
    };
    match state {
        BucketState::Reachable => NewCondition::yes(KIND, "Reachable", "the bucket is reachable"),
        BucketState::Unknown => NewCondition::unknown(KIND, "NotAsked", "the bucket has not been checked yet"),
        BucketState::Failing => NewCondition::no(
            KIND,
            "BucketFailing",
            format!("the S3 service returns errors, {reporters}; see the pods' logs"),
        ),
        BucketState::Unreachable => {
            NewCondition::no(KIND, "Unreachable", format!("no response from the bucket's endpoint, {reporters}"))
        }
        BucketState::Missing => NewCondition::no(
            KIND,
            "BucketMissing",
            format!("the bucket of spec.bucket.name does not exist, {reporters}; create it"),
        ),
        BucketState::WrongRegion => NewCondition::no(
            KIND,
            "WrongRegion",
            format!("the bucket is in another region, {reporters}; set spec.bucket.region to it"),
        ),
        BucketState::Denied => NewCondition::no(
            KIND,
            "AccessDenied",
            format!("S3 denied access, {reporters}; see condition CredentialsValid"),
        ),
        BucketState::NoCredentials => NewCondition::unknown(
            KIND,
            "NoCredentials",
            "not checked because the registry pods have no credentials; see condition CredentialsValid",
        ),
    }
}

pub(super) fn credentials(auth: &Auth, missing: &Missing, reports: &[NodeStatus]) -> NewCondition {
    const KIND: &str = "CredentialsValid";
    if let Some(secret) = &missing.secret {
        return NewCondition::no(
            KIND,
            "SecretMissing",
            format!("Secret {secret} (spec.bucket.auth.secretRef) does not exist; create it"),
        );
    }
    let Some((state, reporters)) = worst(reports) else {
        return NewCondition::unknown(KIND, "NoNodeReports", "no registry pod has reported yet");
    };
    match state {
        BucketState::Reachable => NewCondition::yes(KIND, "Accepted", "the bucket accepted the credentials"),
        BucketState::Denied => NewCondition::no(
            KIND,
            "Denied",
            format!("S3 denied access, {reporters}: the credentials are invalid or lack permissions on the bucket"),
        ),
        BucketState::NoCredentials => match &auth.secret_ref {
            Some(secret) => NewCondition::no(
                KIND,
                "KeysMissing",
                format!(
                    "Secret {} lacks {} or {}, or it has not reached the registry pods yet, {reporters}",
                    secret.name, secret.access_key_id_key, secret.secret_access_key_key
                ),
            ),
            None => NewCondition::no(
                KIND,
                "NoIdentity",
                format!(
                    "the registry pods have no workload identity, {reporters}; check spec.bucket.auth.workloadIdentity \
                     and the role's trust policy"
                ),
            ),
        },
        _ => NewCondition::unknown(
            KIND,
            "BucketNotReached",
            "credentials were not checked; see condition BucketReachable",
        ),
    }
}
