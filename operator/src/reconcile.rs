//! One reconciliation of a cluster: observe, validate, permit, plan the volumes, build, apply, prune,
//! change volumes and pods, derive the status, publish. Every reconciliation starts from what it observes.
//! So it does not matter which replica of the operator ran the previous one, or at which step that
//! one was interrupted.

mod apply;
mod backoff;
pub mod build;
mod context;
mod error;
mod observe;
mod pass;
mod permit;
mod precondition;
mod publish;
pub mod rollout;
mod status;
mod storage;
mod validate;

pub use backoff::Backoff;
pub use context::Context;

use crate::crd::{RegistryCluster, Status};
use crate::names::Identity;
use crate::parsed::Unreadable;
use crate::watch::Cluster;
use apply::Applied;
use context::RunningMetrics;
use error::{Failures, ReconcileError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::controller::Action;
use pass::Pass;
use std::sync::Arc;
use std::time::Duration;
use validate::Invalid;

/// Interval between reconciliations of a healthy cluster, to notice changes of the nodes' reports
/// and of Secrets, which are not watched.
const HEALTHY_INTERVAL: Duration = Duration::from_secs(30);
/// The interval while a condition is not as it should be.
const UNHEALTHY_INTERVAL: Duration = Duration::from_secs(10);

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
        Ok(readable) if readable.spec.paused => reconcile_paused(readable, &context).await,
        Ok(readable) => reconcile_readable(readable, &context).await,
        Err(why) => reconcile_unreadable(&cluster, why, &context).await,
    };
    running.end(result.is_ok());
    if result.is_ok() {
        context.backoff.succeeded(&Identity::of(cluster.as_ref()), &context.metrics);
    }
    result
}

/// The ten steps. A step with "client: no" is pure; the others send requests to the API server or
/// to nodes.
async fn reconcile_readable(cluster: &RegistryCluster, context: &Context) -> Result<Action, ReconcileError> {
    // 1. Observe the objects of the cluster and the reports of its nodes. Client: yes.
    let (observed, unread) = observe::observe(cluster, context).await;

    // 2. Validate: would nodes accept the configuration built from this spec? Client: no.
    if let Err(invalid) = validate::validate(cluster) {
        return reject(cluster, &invalid, context).await;
    }

    // 3. Plan the next step of the volumes. Client: no.
    let plan = storage::plan(&observed.storage, &cluster.spec.store);
    let pass = Pass { cluster, identity: Identity::of(cluster), observed, plan };

    // 4. Permit: do the installation and the owners of the Secrets allow what it uses? Client: no.
    let (namespace, installation) = (&pass.identity.namespace, &context.installation);
    if let Some(refusal) = permit::check(&cluster.spec, namespace, &pass.observed.secrets, installation) {
        let new_status = status::of_refused(&pass, &refusal, &now());
        return publish_outcome(&pass, unread, new_status, context).await;
    }

    // 5. Build all objects. Client: no.
    let built = match build::build(cluster, &pass.identity, &pass.plan.volume, installation) {
        Ok(built) => built,
        Err(error) => return reject(cluster, &Invalid::from(error), context).await,
    };

    // 6. Apply the objects that differ. Client: yes.
    let mut applied = Applied { outcome: unread, ..Applied::default() };
    applied.add(apply::children(&pass, &built.children, context).await);

    // 7. Prune the objects that are no longer built. Client: yes.
    applied.add(apply::prune(&pass, &built.children, context).await);

    // 8. Change volumes and pods, unless what they are recreated from is not applied. Client: yes.
    if applied.outcome.nodes_are_unaffected() {
        applied.add(apply::take_step(&pass, context).await);
        applied.add(apply::delete_stuck_pods(&pass, context).await);
    }

    // 9. Derive the new status. Client: no.
    let new_status = status::of_pass(&pass, &applied, &built.config_hash, &now());

    // 10. Publish events and the status. Client: yes.
    publish::changes(cluster, &applied.changes, context).await;
    publish_outcome(&pass, applied.outcome, new_status, context).await
}

/// Publishes the status of a reconciliation, and schedules the next.
async fn publish_outcome(
    pass: &Pass<'_>,
    mut failures: Failures,
    new_status: Status,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let before = pass.cluster.status.as_ref();
    let interval = if status::is_healthy(&new_status) { HEALTHY_INTERVAL } else { UNHEALTHY_INTERVAL };
    // A transient failure is reported only if it happens again: a short outage of the API server is
    // not worth a status update. A cluster without a status gets one at once.
    let is_worth_reporting =
        failures.is_empty() || failures.are_final() || before.is_none() || context.backoff.has_failed(&pass.identity);
    if is_worth_reporting && let Err(failure) = publish::status(pass.cluster, before, new_status, context).await {
        failures.push(failure);
    }
    if failures.is_empty() { Ok(Action::requeue(backoff::jittered(interval))) } else { Err(ReconcileError(failures)) }
}

/// Reports that the cluster is paused, and changes nothing else.
async fn reconcile_paused(cluster: &RegistryCluster, context: &Context) -> Result<Action, ReconcileError> {
    publish_only(cluster, cluster.status.as_ref(), status::paused(cluster, &now()), context).await
}

/// Reports an object that cannot be decoded in its status, and changes nothing else. Its next
/// version triggers the next reconciliation.
async fn reconcile_unreadable(
    cluster: &Cluster,
    why: &Unreadable,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let before: Option<Status> = why.status.clone().and_then(|status| serde_json::from_value(status).ok());
    let message = format!("cannot decode this RegistryCluster: {why}");
    let new_status = status::invalid(before.clone(), cluster.meta().generation, &message, &now());
    publish_only(cluster, before.as_ref(), new_status, context).await
}

/// Reports an invalid cluster in its status, and changes nothing else.
async fn reject(cluster: &RegistryCluster, invalid: &Invalid, context: &Context) -> Result<Action, ReconcileError> {
    let (before, generation) = (cluster.status.clone(), cluster.metadata.generation);
    let new_status = status::invalid(before, generation, &invalid.to_string(), &now());
    publish_only(cluster, cluster.status.as_ref(), new_status, context).await
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

fn now() -> Time {
    Time(Timestamp::now())
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
