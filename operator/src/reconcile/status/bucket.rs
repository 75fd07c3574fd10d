//! `BucketReachable` and `CredentialsValid`, from what the nodes say, who alone speak to the bucket.

use super::Verdict;
use crate::crd::Auth;
use crate::reconcile::observe::Missing;
use entrepot_config::{BucketState, NodeStatus};

/// The worst that a node says, and how many nodes say so. Not their words, which differ from one request to the next.
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
    Some((state, format!("{count} of {} nodes that answer say so", reports.len())))
}

pub(super) fn reachable(reports: &[NodeStatus]) -> Verdict {
    const KIND: &str = "BucketReachable";
    let Some((state, who)) = worst(reports) else {
        return Verdict::unknown(KIND, "NoNodeReports", "no node answers yet");
    };
    match state {
        BucketState::Reachable => Verdict::yes(KIND, "Reachable", "the bucket answers every node"),
        BucketState::Unknown => Verdict::unknown(KIND, "NotAsked", "no node has asked the bucket yet"),
        BucketState::Failing => {
            Verdict::no(KIND, "BucketFailing", format!("the bucket answers with failures of its own: {who}"))
        }
        BucketState::Unreachable => {
            Verdict::no(KIND, "Unreachable", format!("no answer from the bucket's endpoint: {who}"))
        }
        BucketState::Missing => Verdict::no(KIND, "BucketMissing", format!("there is no bucket of that name: {who}")),
        BucketState::WrongRegion => {
            Verdict::no(KIND, "WrongRegion", format!("the bucket lies in another region than bucket.region: {who}"))
        }
        BucketState::Denied => {
            Verdict::no(KIND, "AccessDenied", format!("the bucket refuses the nodes' credentials: {who}"))
        }
        BucketState::NoCredentials => {
            Verdict::unknown(KIND, "NoCredentials", "nodes have no credentials to ask the bucket with")
        }
    }
}

pub(super) fn credentials(auth: &Auth, missing: &Missing, reports: &[NodeStatus]) -> Verdict {
    const KIND: &str = "CredentialsValid";
    if let Some(secret) = &missing.secret {
        return Verdict::no(
            KIND,
            "SecretMissing",
            format!("there is no Secret {secret}, which bucket.auth.secretRef names"),
        );
    }
    let Some((state, who)) = worst(reports) else {
        return Verdict::unknown(KIND, "NoNodeReports", "no node answers yet");
    };
    match state {
        BucketState::Reachable => Verdict::yes(KIND, "Accepted", "the bucket accepts every node"),
        BucketState::Denied => {
            Verdict::no(KIND, "Denied", format!("the bucket refuses them, or what they may do: {who}"))
        }
        BucketState::NoCredentials => match &auth.secret_ref {
            Some(secret) => Verdict::no(
                KIND,
                "KeysMissing",
                format!(
                    "Secret {} lacks {} or {}, or it has not reached the nodes yet: {who}",
                    secret.name, secret.access_key_id_key, secret.secret_access_key_key
                ),
            ),
            None => Verdict::no(KIND, "NoIdentity", format!("the nodes have no identity: {who}")),
        },
        _ => Verdict::unknown(KIND, "BucketNotReached", "the bucket does not say; see BucketReachable"),
    }
}
