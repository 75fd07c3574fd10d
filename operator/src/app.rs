//! Wires the operator together and runs it: leader election, watches, reconciliation, shutdown.

#[cfg(test)]
mod tests;

use crate::health::{self, Readiness};
use crate::installation::Installation;
use crate::leader::{Election, LeadershipLost};
use crate::lists::Lists;
use crate::metrics::Metrics;
use crate::names::MANAGER;
use crate::node_status::NodeStatusClient;
use crate::reconcile::{Backoff, Context, on_error, reconcile};
use crate::watch::{self, Cluster, Scope, Triggers};
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use kube::runtime::controller::{self, applier};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;
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
    /// What the installation decides for every registry.
    pub installation: Installation,
    /// The namespaces whose RegistryClusters are reconciled; none means all.
    pub watch_namespaces: Vec<String>,
    /// Address on which probes and metrics are served.
    pub listen: SocketAddr,
    /// Name of the Lease, which is in the namespace of the operator.
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
    let leases = Api::namespaced(client.clone(), &settings.installation.namespace);
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
    let scopes = Scope::of(&settings.watch_namespaces);
    let watched: Vec<_> = scopes.iter().map(|scope| watch::start(&client, scope, &metrics, &lists)).collect();
    let all = Everything {
        clusters: watched.iter().map(|(stores, _)| stores.clusters.clone()).collect(),
        backoff: Arc::default(),
        metrics: metrics.clone(),
    };
    let installation = Arc::new(settings.installation.clone());
    let concurrency = (CONCURRENCY / u16::try_from(watched.len()).unwrap_or(u16::MAX)).max(1);
    let reconciling = watched.into_iter().map(|(stores, triggers)| {
        let reporter = Reporter { controller: MANAGER.into(), instance: Some(settings.identity.clone()) };
        let context = Context {
            recorder: Recorder::new(client.clone(), reporter),
            node_status: NodeStatusClient::new(metrics.clone()),
            backoff: all.backoff.clone(),
            installation: installation.clone(),
            client: client.clone(),
            stores,
            metrics: metrics.clone(),
        };
        let config = controller::Config::default().concurrency(concurrency);
        reconcile_scope(Arc::new(context), triggers, config, stop, &all)
    });
    tokio::select! {
        _ = join_all(reconciling) => {}
        () = async { stop.cancelled().await; tokio::time::sleep(STOP_TIMEOUT).await } => {
            tracing::warn!("some reconciliations did not finish before shutdown; the next leader continues them");
        }
    }
}

/// Reconciles the clusters of one scope until `stop` is cancelled.
async fn reconcile_scope(
    context: Arc<Context>,
    triggers: Triggers,
    config: controller::Config,
    stop: &CancellationToken,
    all: &Everything,
) {
    let queue = triggers.take_until(stop.clone().cancelled_owned());
    let clusters = context.stores.clusters.clone();
    let reconciliations =
        applier(|cluster, context| reconcile(cluster, context).boxed(), on_error, context, clusters, queue, config);
    // A failed reconciliation is logged where it fails; only what is counted over all of them is left
    // to update here.
    let counted = reconciliations.for_each(|_| {
        all.count();
        futures::future::ready(())
    });
    counted.await;
}

/// What is counted over the clusters of all scopes.
struct Everything {
    clusters: Vec<Store<Cluster>>,
    backoff: Arc<Backoff>,
    metrics: Arc<Metrics>,
}

impl Everything {
    fn count(&self) {
        let clusters: Vec<_> = self.clusters.iter().flat_map(Store::state).collect();
        let counted = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.clusters.set(counted(clusters.len()));
        self.metrics.unreadable.set(counted(clusters.iter().filter(|cluster| cluster.content.is_err()).count()));
        self.backoff.retain(|uid| clusters.iter().any(|cluster| cluster.uid().as_deref() == Some(uid)));
    }
}
