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
pub(crate) use error::words;
pub use error::{Failure, Failures, ReconcileError};

use crate::crd::{RegistryCluster, Status};
use crate::metrics::Metrics;
use crate::names::Identity;
use crate::nodes::Nodes;
use crate::parsed::Unreadable;
use crate::watch::{Cluster, Stores};
use apply::Done;
use build::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use kube::{Client, Resource};
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
/// When something could not be done. Everything else was, and the next pass goes on.
pub async fn reconcile(cluster: Arc<Cluster>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    context.stores.ready().await;
    // Its children go with it, by their owner.
    if cluster.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let running = Running::start(&context.metrics);
    let result = match &cluster.content {
        Ok(readable) => pass(readable, &context).await,
        Err(why) => unreadable(&cluster, why, &context).await,
    };
    running.end(result.is_ok());
    if result.is_ok() {
        context.backoff.succeeded(&Identity::of(cluster.as_ref()), &context.metrics);
    }
    result
}

async fn pass(cluster: &RegistryCluster, context: &Context) -> Result<Action, ReconcileError> {
    let now = Time(Timestamp::now());
    if cluster.spec.paused {
        return tell_only(cluster, cluster.status.as_ref(), status::paused(cluster, &now), context).await;
    }
    let mut observed = observe::observe(cluster, context).await;
    let mut done = Done::default();
    std::mem::take(&mut observed.failures).into_iter().for_each(|failure| done.failures.push(failure));
    let desired = Volume::desired(&cluster.spec.cache);
    let step = storage::next_step(&observed.storage, &desired, cluster.spec.cache.resize_policy);
    let volume = step.volume(&observed.storage, &desired);
    let valid = match validate::validate(cluster, volume, &context.node_image) {
        Ok(valid) => valid,
        Err(invalid) => {
            let (before, generation) = (cluster.status.clone(), cluster.metadata.generation);
            let told = status::invalid(before, generation, &invalid.to_string(), &now);
            return tell_only(cluster, cluster.status.as_ref(), told, context).await;
        }
    };
    let children = build::build(cluster, &valid);
    change(&valid.identity, &children, &observed, &step, &desired, context, &mut done).await;
    tell::deeds(cluster, &done.deeds, context).await;
    // What was written just now nobody has seen yet.
    let rolls = done.deeds.iter().any(|deed| deed.is_about(Kind::StatefulSet));
    let (failed, failed_nodes) = (done.failures.message(), done.failures.message_of_nodes());
    let facts = status::Facts {
        failed: failed.as_deref(),
        failed_nodes: failed_nodes.as_deref(),
        ..facts(&observed, &step, rolls)
    };
    let told = status::status(cluster, &valid, &facts, &now);
    let next = if is_well(&told) { LOOK } else { CLOSE_LOOK };
    // What passes by itself is told when it comes again: an API server that is away for a moment is no news. Who was
    // told nothing yet is told at once.
    let is_news = failed.is_none()
        || done.failures.are_final()
        || cluster.status.is_none()
        || context.backoff.has_failed(&valid.identity);
    if is_news && let Err(failure) = tell::status(cluster, cluster.status.as_ref(), told, context).await {
        done.failures.push(failure);
    }
    if done.failures.is_empty() {
        Ok(Action::requeue(backoff::jittered(next)))
    } else {
        Err(ReconcileError(done.failures))
    }
}

/// A pass over an object that cannot be read: its status says so, and nothing else of it is touched. Its next version
/// triggers the next pass.
async fn unreadable(cluster: &Cluster, why: &Unreadable, context: &Context) -> Result<Action, ReconcileError> {
    let before: Option<Status> = why.status.clone().and_then(|status| serde_json::from_value(status).ok());
    let message = format!("this RegistryCluster cannot be read: {why}");
    let told = status::invalid(before.clone(), cluster.meta().generation, &message, &Time(Timestamp::now()));
    tell_only(cluster, before.as_ref(), told, context).await
}

async fn tell_only(
    cluster: &impl Resource<DynamicType = ()>,
    before: Option<&Status>,
    told: Status,
    context: &Context,
) -> Result<Action, ReconcileError> {
    match tell::status(cluster, before, told, context).await {
        Ok(()) => Ok(Action::await_change()),
        Err(failure) => Err(ReconcileError(Failures::from(failure))),
    }
}

async fn change(
    identity: &Identity,
    children: &[build::Child],
    observed: &Observed,
    step: &Step,
    desired: &Volume,
    context: &Context,
    done: &mut Done,
) {
    apply::apply(identity, children, observed, step, context, done).await;
    // A StatefulSet is not taken away, nor a pod, while what they are made of is not as it is to be.
    if done.failures.spare_nodes() {
        let stepped = apply::take_step(identity, step, desired, context, &mut done.deeds).await;
        let unblocked = apply::unblock(identity, observed, context, &mut done.deeds).await;
        [stepped, unblocked].into_iter().filter_map(Result::err).for_each(|failure| done.failures.push(failure));
    }
}

fn facts<'a>(observed: &'a Observed, step: &'a Step, rolls: bool) -> status::Facts<'a> {
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
        failed: None,
        failed_nodes: None,
    }
}

fn is_well(status: &Status) -> bool {
    status.conditions.iter().all(|condition| (condition.status == "True") == (condition.type_ != "Paused"))
}

/// What to do about a pass that failed.
pub fn on_error(cluster: Arc<Cluster>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let identity = Identity::of(cluster.as_ref());
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
