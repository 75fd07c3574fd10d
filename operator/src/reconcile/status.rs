//! What a user is told: pure, from what was observed. It changes only when something does.

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
use crate::crd::{CacheSummary, RegistryCluster, Status};
use crate::names::Identity;
use entrepot_config::{ByteSize, NodeStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Whether all of the spec is applied.
const APPLIED: &str = "Applied";

/// All that the status depends on.
pub struct Facts<'a> {
    pub step: &'a Step,
    /// How many volumes wait for a StorageClass that is not there is told apart from other waiting.
    pub class: super::storage::Class,
    /// Pods there are, ready or not.
    pub pods: Vec<&'a Pod>,
    /// Nodes that the StatefulSet counts.
    pub replicas: i32,
    pub ready_replicas: i32,
    /// Nodes of the wanted revision; all of them, when a rollout is over.
    pub updated_replicas: i32,
    pub reports: &'a [NodeStatus],
    pub missing: &'a Missing,
    /// What could not be done, all of it.
    pub failed: Option<&'a str>,
    /// That part of it without which the nodes are not as the spec says.
    pub failed_nodes: Option<&'a str>,
}

/// The status of a cluster that was reconciled.
pub fn status(cluster: &RegistryCluster, valid: &Valid, facts: &Facts<'_>, now: &Time) -> Status {
    let verdicts = vec![
        ready::verdict(cluster.spec.replicas, facts),
        match facts.failed {
            None => Verdict::yes(APPLIED, "AllApplied", "every object is as the spec asks for"),
            Some(failed) => Verdict::no(APPLIED, "ApplyFailed", failed),
        },
        bucket::reachable(facts.reports),
        bucket::credentials(&cluster.spec.bucket.auth, facts.missing, facts.reports),
        storage::verdict(facts),
        Verdict::no("Paused", "Reconciling", "changes are applied"),
    ];
    let (identity, before) = (Identity::of(cluster), cluster.status.clone().unwrap_or_default());
    Status {
        // A pass in which something failed has not seen to all of the spec.
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
        cache: if unanswered(facts) && before.cache.is_some() { before.cache.clone() } else { summary(facts.reports) },
        conditions: conditions::merged(&before.conditions, verdicts, cluster.metadata.generation, now),
    }
}

/// The status of a cluster that is paused: what is known of it stays as it was.
pub fn paused(cluster: &RegistryCluster, now: &Time) -> Status {
    let verdict = Verdict::yes("Paused", "PausedByUser", "spec.paused is set: nothing is changed until it is not");
    only(cluster.status.clone(), cluster.metadata.generation, vec![verdict], now)
}

/// The status of a cluster that cannot be read, or that nodes would refuse: nothing of this generation is applied.
pub fn invalid(before: Option<Status>, generation: Option<i64>, message: &str, now: &Time) -> Status {
    let verdicts = vec![
        Verdict::no("Ready", "InvalidSpec", message),
        Verdict::no(APPLIED, "InvalidSpec", "nothing of this spec is applied; what was there is left as it is"),
        Verdict::no("Paused", "Reconciling", "changes are applied"),
    ];
    only(before, generation, verdicts, now)
}

fn only(before: Option<Status>, generation: Option<i64>, verdicts: Vec<Verdict>, now: &Time) -> Status {
    let before = before.unwrap_or_default();
    let conditions = conditions::merged(&before.conditions, verdicts, generation, now);
    Status { observed_generation: generation, conditions, ..before }
}

/// Whether a node that serves did not tell of itself this time. That its store is not in the sum is no news of stores.
fn unanswered(facts: &Facts<'_>) -> bool {
    facts.reports.len() < facts.pods.iter().filter(|pod| is_ready(pod)).count()
}

/// In coarse steps, so that a cluster in use does not rewrite its status all the time.
fn summary(reports: &[NodeStatus]) -> Option<CacheSummary> {
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
    Some(CacheSummary {
        capacity: ByteSize::bytes(capacity).to_string(),
        fullest: format!("{fullest}%"),
        thresholds: if agreed {
            format!("{} / {}", ByteSize::bytes(low), ByteSize::bytes(target))
        } else {
            String::new()
        },
    })
}
