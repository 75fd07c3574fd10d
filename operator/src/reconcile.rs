//! One reconciliation of a cluster: observe, validate, build, apply, status. Every reconciliation
//! starts from what it observes. So it does not matter which replica of the operator ran the
//! previous one, or at which step that one was interrupted.

pub mod apply;
pub mod build;
pub mod observe;
mod precondition;
pub mod rollout;
pub mod status;
pub mod storage;
pub mod validate;

mod backoff;
mod error;
mod publish;

pub use backoff::Backoff;
pub(crate) use error::message_of;
pub use error::{Failure, Failures, ReconcileError};

use crate::crd::{RegistryCluster, Status};
use crate::metrics::Metrics;
use crate::names::Identity;
use crate::node_status::NodeStatusClient;
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
const HEALTHY_INTERVAL: Duration = Duration::from_secs(30);
/// The interval while a condition is not as it should be.
const UNHEALTHY_INTERVAL: Duration = Duration::from_secs(10);

/// What every reconciliation needs.
pub struct Context {
    pub client: Client,
    pub stores: Stores,
    pub node_status: NodeStatusClient,
    pub metrics: Arc<Metrics>,
    pub recorder: Recorder,
    pub backoff: Backoff,
    /// Image of the registry pods of clusters that have no spec.image.
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
    let running = RunningMetrics::start(&context.metrics);
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
        return publish_only(cluster, cluster.status.as_ref(), status::paused(cluster, &now), context).await;
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
            let new_status = status::invalid(before, generation, &invalid.to_string(), &now);
            return publish_only(cluster, cluster.status.as_ref(), new_status, context).await;
        }
    };
    let children = build::build(cluster, &valid);
    change(&valid.identity, &children, &observed, &step, &desired, context, &mut done).await;
    publish::changes(cluster, &done.changes, context).await;
    // If the StatefulSet was written just now, its observed counts are from before that write.
    let set_written = done.changes.iter().any(|change| change.is_of(Kind::StatefulSet));
    let (failed, failed_nodes) = (done.failures.message(), done.failures.message_of_nodes());
    let inputs = status::StatusInputs {
        failed: failed.as_deref(),
        failed_nodes: failed_nodes.as_deref(),
        ..inputs(&observed, &step, set_written)
    };
    let new_status = status::new_status(cluster, &valid, &inputs, &now);
    let next = if is_healthy(&new_status) { HEALTHY_INTERVAL } else { UNHEALTHY_INTERVAL };
    // A transient failure is reported only if it happens again: a short outage of the API server is
    // not worth a status update. A cluster without a status gets one at once.
    let is_worth_reporting = failed.is_none()
        || done.failures.are_final()
        || cluster.status.is_none()
        || context.backoff.has_failed(&valid.identity);
    if is_worth_reporting
        && let Err(failure) = publish::status(cluster, cluster.status.as_ref(), new_status, context).await
    {
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
    let new_status = status::invalid(before.clone(), cluster.meta().generation, &message, &Time(Timestamp::now()));
    publish_only(cluster, before.as_ref(), new_status, context).await
}

async fn publish_only(
    cluster: &impl Resource<DynamicType = ()>,
    before: Option<&Status>,
    new_status: Status,
    context: &Context,
) -> Result<Action, ReconcileError> {
    match publish::status(cluster, before, new_status, context).await {
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
    if done.failures.leave_nodes_alone() {
        let stepped = apply::take_step(identity, step, desired, context, &mut done.changes).await;
        let unblocked = apply::delete_stuck_pods(identity, observed, context, &mut done.changes).await;
        [stepped, unblocked].into_iter().filter_map(Result::err).for_each(|failure| done.failures.push(failure));
    }
}

fn inputs<'a>(observed: &'a Observed, step: &'a Step, set_written: bool) -> status::StatusInputs<'a> {
    let updated = observed.set.as_ref().filter(|_| !set_written).map_or(0, rollout::updated);
    let set = observed.set.as_ref().and_then(|set| set.status.as_ref());
    // Between deletion and recreation of the StatefulSet its pods keep serving.
    let ready = observed.storage.nodes.iter().filter(|node| node.ready).count();
    let counted = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    status::StatusInputs {
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

fn is_healthy(status: &Status) -> bool {
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
struct RunningMetrics<'a> {
    metrics: &'a Metrics,
    timer: prometheus::HistogramTimer,
}

impl RunningMetrics<'_> {
    fn start(metrics: &Metrics) -> RunningMetrics<'_> {
        metrics.reconciling.inc();
        RunningMetrics { metrics, timer: metrics.reconcile_seconds.start_timer() }
    }

    fn end(self, ok: bool) {
        self.metrics.reconciles.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
        self.timer.observe_duration();
        self.metrics.reconciling.dec();
    }
}
