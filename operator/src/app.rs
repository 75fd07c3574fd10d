//! Wires the operator together and runs it: leader election, watches, reconciliation, shutdown.

#[cfg(test)]
mod tests;

use crate::health::{self, Readiness};
use crate::leader::{Election, LeadershipLost};
use crate::lists::Lists;
use crate::metrics::Metrics;
use crate::names::MANAGER;
use crate::node_status::NodeStatusClient;
use crate::reconcile::{Backoff, Context, on_error, reconcile};
use crate::watch;
use futures::{FutureExt, StreamExt};
use kube::runtime::controller::{self, applier};
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client, ResourceExt};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Concurrent reconciliations. Most of one is waiting, for the API server and for nodes.
const CONCURRENCY: u16 = 16;

/// Time that running reconciliations have to finish after the operator received a stop signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of the operator process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of the registry pods of clusters that have no spec.node_image.
    pub node_image: String,
    /// Address on which probes and metrics are served.
    pub listen: SocketAddr,
    /// Namespace of the Lease.
    pub lease_namespace: String,
    /// Name of the Lease.
    pub lease_name: String,
    /// Unique name of this replica.
    pub identity: String,
}

/// Why the operator ended without a stop signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address for probes and metrics is not available.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address of the settings.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// SIGTERM and SIGINT cannot be received.
    #[error("cannot install signal handlers: {0}")]
    Signals(std::io::Error),
    /// There is neither a ServiceAccount nor a valid kubeconfig.
    #[error("cannot create the Kubernetes client: {0}")]
    Client(#[from] kube::Error),
    /// Two metrics have the same name, which a test rules out.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Another replica may be the leader now.
    #[error(transparent)]
    Leadership(#[from] LeadershipLost),
    /// Probes and metrics can no longer be served.
    #[error("the HTTP listener failed: {0}")]
    Serve(std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start, or if leadership is lost; in the latter case the process must end at once.
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let stop = stop_signal()?;
    let metrics = Arc::new(Metrics::new()?);
    let (readiness, lists) = (Readiness::default(), Lists::default());
    let listener = TcpListener::bind(settings.listen).await;
    let listener = listener.map_err(|source| RunError::Listen { address: settings.listen, source })?;
    let serving = axum::serve(listener, health::router(metrics.clone(), readiness.clone(), lists.clone()));
    let client = Client::try_default().await?;
    let leases = Api::namespaced(client.clone(), &settings.lease_namespace);
    let election = Election::new(leases, &settings.lease_name, settings.identity.clone(), readiness);
    tokio::select! {
        served = serving.into_future() => served.map_err(RunError::Serve),
        ended = lead(&election, client, (metrics, lists), &settings, stop) => ended,
    }
}

fn stop_signal() -> Result<CancellationToken, RunError> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate()).map_err(RunError::Signals)?,
        signal(SignalKind::interrupt()).map_err(RunError::Signals)?,
    );
    let token = CancellationToken::new();
    let signalled = token.clone();
    // The only task that is never joined; it ends with the process.
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        signalled.cancel();
    });
    Ok(token)
}

async fn lead(
    election: &Election,
    client: Client,
    (metrics, lists): (Arc<Metrics>, Lists),
    settings: &Settings,
    stop: CancellationToken,
) -> Result<(), RunError> {
    tracing::info!(identity = settings.identity, lease = settings.lease_name, "waiting to become leader");
    let lease = tokio::select! {
        lease = election.acquire() => lease,
        () = stop.cancelled() => return Ok(()),
    };
    tracing::info!(identity = settings.identity, "became leader");
    metrics.leader.set(1);
    tokio::select! {
        lost = election.renew_until_lost(lease) => Err(lost.into()),
        () = reconcile_until_stopped(client, (metrics, lists), settings, &stop) => {
            election.release().await;
            tracing::info!("stopped");
            Ok(())
        }
    }
}

/// Reconciles until `stop` is cancelled, then waits up to [`STOP_TIMEOUT`] for running
/// reconciliations.
async fn reconcile_until_stopped(
    client: Client,
    (metrics, lists): (Arc<Metrics>, Lists),
    settings: &Settings,
    stop: &CancellationToken,
) {
    let (stores, triggers) = watch::start(&client, &metrics, &lists);
    let clusters = stores.clusters.clone();
    let reporter = Reporter { controller: MANAGER.into(), instance: Some(settings.identity.clone()) };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        node_status: NodeStatusClient::new(metrics.clone()),
        backoff: Backoff::default(),
        node_image: settings.node_image.clone(),
        client,
        stores,
        metrics: metrics.clone(),
    });
    let queue = triggers.take_until(stop.clone().cancelled_owned());
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let seen = clusters.clone();
    let reconciliations = applier(
        |cluster, context| reconcile(cluster, context).boxed(),
        on_error,
        context.clone(),
        clusters,
        queue,
        config,
    );
    let reconciliations = reconciliations.for_each(|_| {
        // A failed reconciliation is logged where it fails; only the gauges are left to update
        // here.
        let clusters = seen.state();
        let counted = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.clusters.set(counted(clusters.len()));
        metrics.unreadable.set(counted(clusters.iter().filter(|cluster| cluster.content.is_err()).count()));
        context.backoff.retain(|uid| clusters.iter().any(|cluster| cluster.uid().as_deref() == Some(uid)));
        futures::future::ready(())
    });
    tokio::select! {
        () = reconciliations => {}
        () = async { stop.cancelled().await; tokio::time::sleep(STOP_TIMEOUT).await } => {
            tracing::warn!("some reconciliations did not finish before shutdown; the next leader continues them");
        }
    }
}
