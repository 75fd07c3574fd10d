//! One reconciliation of a cluster: observe, validate, build, apply, status. Every reconciliation
//! starts from what it observes. So it does not matter which replica of the operator ran the
//! previous one, or at which step that one was interrupted.

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

/// Interval between reconciliations of a healthy cluster, to notice changes of the nodes' reports
/// and of Secrets, which are not watched.
const LOOK: Duration = Duration::from_secs(30);
/// The interval while a condition is not as it should be.
const CLOSE_LOOK: Duration = Duration::from_secs(10);

/// What every reconciliation needs.
pub struct Context {
    pub client: Client,
    pub stores: Stores,
    pub nodes: Nodes,
    pub metrics: Arc<Metrics>,
    pub recorder: Recorder,
    pub backoff: Backoff,
    /// Image of the registry pods of clusters that have no spec.nodeImage.
    pub node_image: String,
}

/// Reconciles one cluster.
///
/// # Errors
/// If any part failed. Everything that does not depend on that part was done, and the next
/// reconciliation continues.
pub async fn reconcile(cluster: Arc<Cluster>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    context.stores.ready().await;
    // Kubernetes deletes the cluster's objects, because the cluster owns them.
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
    let desired = Volume::desired(&cluster.spec.store);
    let step = storage::next_step(&observed.storage, &desired, cluster.spec.store.resize_policy);
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
    // If the StatefulSet was written just now, its observed counts are from before that write.
    let rolls = done.deeds.iter().any(|deed| deed.is_about(Kind::StatefulSet));
    let (failed, failed_nodes) = (done.failures.message(), done.failures.message_of_nodes());
    let facts = status::Facts {
        failed: failed.as_deref(),
        failed_nodes: failed_nodes.as_deref(),
        ..facts(&observed, &step, rolls)
    };
    let told = status::status(cluster, &valid, &facts, &now);
    let next = if is_well(&told) { LOOK } else { CLOSE_LOOK };
    // A transient failure is reported only if it happens again: a short outage of the API server is
    // not worth a status update. A cluster without a status gets one at once.
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

/// Reports an object that cannot be decoded in its status, and changes nothing else. Its next
/// version triggers the next reconciliation.
async fn unreadable(cluster: &Cluster, why: &Unreadable, context: &Context) -> Result<Action, ReconcileError> {
    let before: Option<Status> = why.status.clone().and_then(|status| serde_json::from_value(status).ok());
    let message = format!("cannot decode this RegistryCluster: {why}");
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
    // Delete no StatefulSet and no pod while the objects from which they are recreated are not
    // applied.
    if done.failures.spare_nodes() {
        let stepped = apply::take_step(identity, step, desired, context, &mut done.deeds).await;
        let unblocked = apply::unblock(identity, observed, context, &mut done.deeds).await;
        [stepped, unblocked].into_iter().filter_map(Result::err).for_each(|failure| done.failures.push(failure));
    }
}

fn facts<'a>(observed: &'a Observed, step: &'a Step, rolls: bool) -> status::Facts<'a> {
    let updated = observed.set.as_ref().filter(|_| !rolls).map_or(0, rollout::updated);
    let set = observed.set.as_ref().and_then(|set| set.status.as_ref());
    // Between deletion and recreation of the StatefulSet its pods keep serving.
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

/// Schedules the retry of a failed reconciliation.
pub fn on_error(cluster: Arc<Cluster>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let identity = Identity::of(cluster.as_ref());
    let pause = context.backoff.failed(&identity, &context.metrics);
    tracing::warn!(
        cluster = identity.name,
        namespace = identity.namespace,
        %error,
        retry_after = ?pause,
        "reconciliation failed; retrying"
    );
    Action::requeue(pause)
}

/// Counts and times a reconciliation, even if its future is dropped before it ends.
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
