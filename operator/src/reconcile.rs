//! One pass over a cluster: observe, validate, build, apply, status. Each pass starts from what is there, so that it
//! does not matter which replica of the operator made the last one, or where that was cut off.

pub mod apply;
pub mod build;
pub mod observe;
pub mod rollout;
pub mod status;
pub mod storage;
pub mod validate;
pub mod version;

mod backoff;
mod error;
mod tell;

pub use backoff::Backoff;
pub use error::ReconcileError;

use crate::crd::{RegistryCluster, Status};
use crate::metrics::Metrics;
use crate::names::Identity;
use crate::nodes::Nodes;
use crate::watch::Stores;
use apply::Deed;
use build::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use observe::Observed;
use std::sync::Arc;
use std::time::Duration;
use storage::{Step, Volume};

/// What nodes say, and Secrets that come and go, are looked at this often.
const LOOK: Duration = Duration::from_secs(30);
/// While something is not as it should be.
const CLOSE_LOOK: Duration = Duration::from_secs(10);

/// What every pass needs.
pub struct Context {
    pub client: Client,
    pub stores: Stores,
    pub nodes: Nodes,
    pub metrics: Arc<Metrics>,
    pub recorder: Recorder,
    pub backoff: Backoff,
    /// The image of nodes whose cluster names none.
    pub node_image: String,
}

/// One pass.
///
/// # Errors
/// When the API server refuses something or does not answer. What was done stays done, and the next pass goes on.
pub async fn reconcile(cluster: Arc<RegistryCluster>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    context.stores.ready().await;
    // Its children go with it, by their owner.
    if cluster.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let running = Running::start(&context.metrics);
    let result = pass(&cluster, &context).await;
    running.end(result.is_ok());
    if result.is_ok() {
        context.backoff.succeeded(&Identity::of(&cluster), &context.metrics);
    }
    result
}

async fn pass(cluster: &RegistryCluster, context: &Context) -> Result<Action, ReconcileError> {
    let now = Time(Timestamp::now());
    if cluster.spec.paused {
        tell::status(cluster, status::paused(cluster, &now), context).await?;
        return Ok(Action::await_change());
    }
    let observed = observe::observe(cluster, context).await?;
    let desired = Volume::desired(&cluster.spec.cache);
    let step = storage::next_step(&observed.storage, &desired, cluster.spec.cache.resize_policy);
    let volume = step.volume(&observed.storage, &desired);
    let valid = match validate::validate(cluster, volume, &context.node_image) {
        Ok(valid) => valid,
        Err(invalid) => {
            tell::status(cluster, status::invalid(cluster, &invalid.to_string(), &now), context).await?;
            return Ok(Action::await_change());
        }
    };
    let children = build::build(cluster, &valid);
    let mut deeds = Vec::new();
    let applied = change(&valid.identity, &children, &observed, &step, &desired, context, &mut deeds).await;
    tell::deeds(cluster, &deeds, context).await;
    let refusal = applied.as_ref().err().and_then(ReconcileError::refusal);
    // What was written just now nobody has seen yet.
    let rolls = deeds.iter().any(|deed| deed.is_about(Kind::StatefulSet));
    let facts = facts(&observed, &step, rolls, refusal.as_deref());
    let told = status::status(cluster, &valid, &facts, &now);
    let next = if is_well(&told) { LOOK } else { CLOSE_LOOK };
    // Of an API server that does not answer nothing is told: it would have to take it down.
    if applied.is_ok() || refusal.is_some() {
        tell::status(cluster, told, context).await?;
    }
    applied.map(|()| Action::requeue(backoff::jittered(next)))
}

async fn change(
    identity: &Identity,
    children: &[build::Child],
    observed: &Observed,
    step: &Step,
    desired: &Volume,
    context: &Context,
    deeds: &mut Vec<Deed>,
) -> Result<(), ReconcileError> {
    apply::apply(identity, children, observed, step, context, deeds).await?;
    apply::take_step(identity, step, desired, context, deeds).await?;
    apply::unblock(identity, observed, context, deeds).await
}

fn facts<'a>(observed: &'a Observed, step: &'a Step, rolls: bool, refused: Option<&'a str>) -> status::Facts<'a> {
    let updated = observed.set.as_ref().filter(|_| !rolls).map_or(0, rollout::updated);
    let set = observed.set.as_ref().and_then(|set| set.status.as_ref());
    // Between deletion and recreation of the StatefulSet the pods go on serving.
    let ready = observed.storage.nodes.iter().filter(|node| node.ready).count();
    let counted = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    status::Facts {
        step,
        class: observed.storage.class,
        pods: observed.pods.iter().map(AsRef::as_ref).collect(),
        replicas: set.map_or(counted(observed.pods.len()), |set| set.replicas),
        ready_replicas: set.map_or(counted(ready), |set| set.ready_replicas.unwrap_or_default()),
        updated_replicas: updated,
        reports: &observed.reports,
        missing: &observed.missing,
        refused,
    }
}

fn is_well(status: &Status) -> bool {
    status.conditions.iter().all(|condition| (condition.status == "True") == (condition.type_ != "Paused"))
}

/// What to do about a pass that failed.
pub fn on_error(cluster: Arc<RegistryCluster>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let identity = Identity::of(&cluster);
    let pause = context.backoff.failed(&identity, &context.metrics);
    tracing::warn!(cluster = identity.name, namespace = identity.namespace, %error, again_in = ?pause, "a pass failed");
    Action::requeue(pause)
}

/// Counts a pass, also one that is dropped half way.
struct Running<'a> {
    metrics: &'a Metrics,
    timer: prometheus::HistogramTimer,
}

impl Running<'_> {
    fn start(metrics: &Metrics) -> Running<'_> {
        metrics.reconciling.inc();
        Running { metrics, timer: metrics.reconcile_seconds.start_timer() }
    }

    fn end(self, ok: bool) {
        self.metrics.reconciles.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
        self.timer.observe_duration();
        self.metrics.reconciling.dec();
    }
}
