//! Builds the status from what was observed. Pure. The status changes only when an observation
//! does.

mod bucket;
mod conditions;
mod ready;
mod storage;
#[cfg(test)]
mod tests;

pub use conditions::{Verdict, changes};

use super::observe::Missing;
use super::rollout::is_ready;
use super::storage::Step;
use super::validate::Valid;
use crate::crd::{RegistryCluster, Status, StoreSummary};
use crate::names::Identity;
use entrepot_config::{ByteSize, NodeStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition for whether all of the spec is applied.
const APPLIED: &str = "Applied";

/// Everything that the status depends on.
pub struct Facts<'a> {
    pub step: &'a Step,
    /// The StorageClass. Volumes that wait for one that does not exist get a reason of their own.
    pub class: super::storage::Class,
    /// All pods, ready or not.
    pub pods: Vec<&'a Pod>,
    /// Number of nodes in the status of the StatefulSet.
    pub replicas: i32,
    pub ready_replicas: i32,
    /// Number of nodes of the wanted revision; all of them after a rollout.
    pub updated_replicas: i32,
    pub reports: &'a [NodeStatus],
    pub missing: &'a Missing,
    /// All failures as one message.
    pub failed: Option<&'a str>,
    /// The failures because of which the nodes do not match the spec.
    pub failed_nodes: Option<&'a str>,
}

/// The status of a cluster that was reconciled.
pub fn status(cluster: &RegistryCluster, valid: &Valid, facts: &Facts<'_>, now: &Time) -> Status {
    let verdicts = vec![
        ready::verdict(cluster.spec.replicas, facts),
        match facts.failed {
            None => Verdict::yes(APPLIED, "AllApplied", "all objects match the spec"),
            Some(failed) => Verdict::no(APPLIED, "ApplyFailed", failed),
        },
        bucket::reachable(facts.reports),
        bucket::credentials(&cluster.spec.bucket.auth, facts.missing, facts.reports),
        storage::verdict(facts),
        Verdict::no("Paused", "Reconciling", "reconciliation is active"),
    ];
    let (identity, before) = (Identity::of(cluster), cluster.status.clone().unwrap_or_default());
    Status {
        // With a failure, not all of the spec was reconciled.
        observed_generation: if facts.failed.is_none() {
            cluster.metadata.generation
        } else {
            before.observed_generation
        },
        replicas: facts.replicas,
        ready_replicas: facts.ready_replicas,
        selector: identity.selector_text(),
        endpoint: format!("http://{}.{}.svc:{}", identity.name, identity.namespace, cluster.spec.service.port),
        config_hash: valid.config_hash.clone(),
        store: if unanswered(facts) && before.store.is_some() { before.store.clone() } else { summary(facts.reports) },
        conditions: conditions::merged(&before.conditions, verdicts, cluster.metadata.generation, now),
    }
}

/// The status of a paused cluster: all other conditions keep their last values.
pub fn paused(cluster: &RegistryCluster, now: &Time) -> Status {
    let verdict = Verdict::yes("Paused", "PausedByUser", "spec.paused is true; reconciliation is paused");
    only(cluster.status.clone(), cluster.metadata.generation, vec![verdict], now)
}

/// The status of a cluster that cannot be decoded or whose configuration the nodes would reject: no
/// part of this generation is applied.
pub fn invalid(before: Option<Status>, generation: Option<i64>, message: &str, now: &Time) -> Status {
    let verdicts = vec![
        Verdict::no("Ready", "InvalidSpec", message),
        Verdict::no(APPLIED, "InvalidSpec", "no part of this spec is applied; existing objects are not changed"),
        Verdict::no("Paused", "Reconciling", "reconciliation is active"),
    ];
    only(before, generation, verdicts, now)
}

fn only(before: Option<Status>, generation: Option<i64>, verdicts: Vec<Verdict>, now: &Time) -> Status {
    let before = before.unwrap_or_default();
    let conditions = conditions::merged(&before.conditions, verdicts, generation, now);
    Status { observed_generation: generation, conditions, ..before }
}

/// Whether the report of a ready node is missing this time. Its store is then missing in the sum,
/// which says nothing about the store itself.
fn unanswered(facts: &Facts<'_>) -> bool {
    facts.reports.len() < facts.pods.iter().filter(|pod| is_ready(pod)).count()
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
