//! Builds the status from what was observed. Pure. The status changes only when an observation
//! does.

mod bucket;
mod condition;
mod inputs;
mod ready;
mod storage_resized;
#[cfg(test)]
mod tests;

pub use condition::changed_conditions;

use super::apply::Applied;
use super::build::Kind;
use super::pass::Pass;
use super::permit::Refusal;
use super::rollout::is_ready;
use crate::crd::{RegistryCluster, Status, StoreSummary};
use crate::names::Identity;
use condition::NewCondition;
use entrepot_config::{ByteSize, NodeStatus};
use inputs::StatusInputs;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition for whether all of the spec is applied.
const APPLIED: &str = "Applied";
/// The message while a spec is refused.
const NOTHING_APPLIED: &str = "no part of this spec is applied; existing objects are not changed";

/// The status of a cluster that was reconciled.
pub fn of_pass(pass: &Pass<'_>, applied: &Applied, config_hash: &str, now: &Time) -> Status {
    let (failed, failed_nodes) = (applied.outcome.message(), applied.outcome.message_of_nodes());
    // If the StatefulSet was written just now, its observed counts are from before that write.
    let set_written = applied.changes.iter().any(|change| change.wrote(Kind::StatefulSet));
    let inputs = StatusInputs {
        failed: failed.as_deref(),
        failed_nodes: failed_nodes.as_deref(),
        ..StatusInputs::observed(pass, set_written)
    };
    new_status(pass.cluster, config_hash, &inputs, now)
}

/// The status of a cluster of which nothing was applied: the registry that runs goes on.
pub fn of_refused(pass: &Pass<'_>, refusal: &Refusal, now: &Time) -> Status {
    let before = pass.cluster.status.as_ref().map(|status| status.config_hash.clone());
    let inputs = StatusInputs { refusal: Some(refusal), ..StatusInputs::observed(pass, false) };
    new_status(pass.cluster, &before.unwrap_or_default(), &inputs, now)
}

/// Whether every condition is as it should be.
pub fn is_healthy(status: &Status) -> bool {
    status.conditions.iter().all(|condition| (condition.status == "True") == (condition.type_ != "Paused"))
}

fn new_status(cluster: &RegistryCluster, config_hash: &str, inputs: &StatusInputs<'_>, now: &Time) -> Status {
    let (identity, before) = (Identity::of(cluster), cluster.status.clone().unwrap_or_default());
    let new_conditions = vec![
        ready::condition(cluster.spec.replicas, inputs),
        match (inputs.refusal, inputs.failed) {
            (Some(refusal), _) => NewCondition::no(APPLIED, refusal.reason, NOTHING_APPLIED),
            (None, None) => NewCondition::yes(APPLIED, "AllApplied", "all objects match the spec"),
            (None, Some(failed)) => NewCondition::no(APPLIED, "ApplyFailed", failed),
        },
        bucket::reachable(inputs.reports, &before.conditions),
        bucket::credentials(&cluster.spec.bucket.auth, inputs.secrets, inputs.reports, &before.conditions),
        storage_resized::condition(inputs),
        NewCondition::no("Paused", "Reconciling", "reconciliation is active"),
    ];
    Status {
        // With a failure, not all of the spec was reconciled.
        observed_generation: if inputs.failed.is_none() {
            cluster.metadata.generation
        } else {
            before.observed_generation
        },
        replicas: inputs.replicas,
        ready_replicas: inputs.ready_replicas,
        selector: identity.selector_text(),
        endpoint: format!("http://{}.{}.svc:{}", identity.name, identity.namespace, cluster.spec.service.port),
        config_hash: config_hash.to_owned(),
        store: if report_missing(inputs) && before.store.is_some() {
            before.store.clone()
        } else {
            summary(inputs.reports)
        },
        conditions: condition::merged(&before.conditions, new_conditions, cluster.metadata.generation, now),
    }
}

/// The status of a paused cluster: all other conditions keep their last values.
pub fn paused(cluster: &RegistryCluster, now: &Time) -> Status {
    let condition = NewCondition::yes("Paused", "PausedByUser", "spec.paused is true; reconciliation is paused");
    only(cluster.status.clone(), cluster.metadata.generation, vec![condition], now)
}

/// The status of a cluster that cannot be decoded or whose configuration the nodes would reject: no
/// part of this generation is applied.
pub fn invalid(before: Option<Status>, generation: Option<i64>, message: &str, now: &Time) -> Status {
    let new_conditions = vec![
        NewCondition::no("Ready", "InvalidSpec", message),
        NewCondition::no(APPLIED, "InvalidSpec", NOTHING_APPLIED),
        NewCondition::no("Paused", "Reconciling", "reconciliation is active"),
    ];
    only(before, generation, new_conditions, now)
}

fn only(before: Option<Status>, generation: Option<i64>, new_conditions: Vec<NewCondition>, now: &Time) -> Status {
    let before = before.unwrap_or_default();
    let conditions = condition::merged(&before.conditions, new_conditions, generation, now);
    Status { observed_generation: generation, conditions, ..before }
}

/// Whether the report of a ready node is missing this time. Its store is then missing in the sum,
/// which says nothing about the store itself.
fn report_missing(inputs: &StatusInputs<'_>) -> bool {
    inputs.reports.len() < inputs.pods.iter().filter(|pod| is_ready(pod)).count()
}

/// Rounded, so that a cluster in use does not rewrite its status all the time.
fn summary(reports: &[NodeStatus]) -> Option<StoreSummary> {
    let first = reports.first()?;
    let capacity = reports.iter().map(|report| report.store.capacity).sum();
    let tenths = |report: &NodeStatus| {
        let free = report.store.free.min(report.store.capacity);
        (report.store.capacity - free) * 10 / report.store.capacity.max(1)
    };
    let fullest = reports.iter().map(tenths).max().unwrap_or_default().min(9) * 10;
    let thresholds = |report: &NodeStatus| (report.store.low_free, report.store.target_free);
    let agreed = reports.iter().all(|report| thresholds(report) == thresholds(first));
    let (low, target) = thresholds(first);
    Some(StoreSummary {
        capacity: ByteSize::bytes(capacity).to_string(),
        fullest: format!("{fullest}%"),
        thresholds: if agreed {
            format!("{} / {}", ByteSize::bytes(low), ByteSize::bytes(target))
        } else {
            String::new()
        },
    })
}
