//! The wiring of a node from its configuration, and its life from start to stop.

use super::access::AccessFiles;
use super::bucket_health::BucketHealth;
use super::error::StartError;
use super::flows::{Background, Flows};
use super::live::LiveConfig;
use super::probes::Probes;
use super::shutdown::{Readiness, Signals, drain, unless_again};
use super::status::Reporter;
use super::store_health::StoreHealth;
use super::tls::LiveTls;
use crate::http::{Forwarding, Server, asking_to_leave, operations, router};
use crate::observe::audit::Audit;
use crate::observe::{self, Metrics};
use crate::repository::Environment;
use crate::store::Store;
use entrepot_access::AccessControl;
use entrepot_bucket::ListOptions;
use entrepot_config::{BucketConfig, NodeConfig};
use entrepot_runtime::{Clock, Tasks};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// How long the start waits for the bucket's response. The check only reports problems early: a
/// node starts and serves its store even if the bucket is unreachable.
const PROBE: Duration = Duration::from_secs(2);

/// Runs a node until SIGTERM or SIGINT, and applies changes of `file`, the source of its
/// configuration. Returns when all accepted work is finished, or the grace period is over.
///
/// # Errors
/// If the node cannot start.
pub fn run(config: NodeConfig, file: Option<PathBuf>) -> Result<(), StartError> {
    observe::tracing::init(&config.log)?;
    let runtime = Runtime::new().map_err(|source| StartError::System { what: "start threads", source })?;
    let result = runtime.block_on(async {
        let mut signals =
            Signals::catch().map_err(|source| StartError::System { what: "install signal handlers", source })?;
        let node = Node::start(config, file).await?;
        node.announce();
        node.warn_if_open();
        node.until_stopped(&mut signals).await;
        Ok(())
    });
    // Work that did not finish within the grace period is abandoned.
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

/// A running node.
struct Node {
    env: Environment,
    readiness: Readiness,
    registry: Server,
    registry_address: SocketAddr,
    operations: Server,
    operations_address: SocketAddr,
}

impl Node {
    async fn start(config: NodeConfig, file: Option<PathBuf>) -> Result<Node, StartError> {
        let (registry, registry_address) = listen("http.listen", config.http.listen).await?;
        let (operations, operations_address) = listen("operations.listen", config.operations.listen).await?;
        let env = environment(config)?;
        let background = Background::start()?;
        let flows = Flows::wire(&env, &background)?;
        flows.work(&env, background.blocking)?;
        probe(&env).await;
        let (access, audit) = (AccessControl::default(), audit(&env));
        let files =
            AccessFiles::start(&env.config, access.clone(), env.clock.clone(), audit.clone(), env.metrics.registry())?;
        let tls = LiveTls::load(&env.config, env.clock.clone(), env.metrics.registry())?;
        tls.watch(&env.tasks);
        let forwarding = Forwarding { tls: tls.peers.clone(), answer_within: env.config.upload.answer_within.get() };
        let router = router(flows.services(&env, access, audit.clone()), &env.config.http, forwarding);
        let server_tls = tls.server.clone();
        let reporter = reporter(&env, files, tls, audit)?;
        reporter.live.watch(file, &env.tasks);
        let readiness = Readiness::default();
        readiness.set(true);
        let ready = readiness.clone();
        let router = asking_to_leave(router, move || !ready.is_ready());
        let store_health = StoreHealth::new(&env.config.store.path);
        let probes = Probes { readiness: readiness.clone(), store: store_health, reporter };
        Ok(Node {
            registry: Server::new(registry, router, &env.config.http).with_tls(server_tls),
            operations: Server::new(
                operations,
                operations::router(env.metrics.clone(), Arc::new(probes)),
                &env.config.http,
            ),
            env,
            readiness,
            registry_address,
            operations_address,
        })
    }

    /// The first lines on standard output: the addresses, where the data is, and how to push an
    /// image.
    fn announce(&self) {
        let usage = self.env.store.room.usage();
        let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let bucket = match &self.env.config.bucket.backend {
            BucketConfig::S3(s3) => format!("s3 {} at {}", s3.name, s3.endpoint.as_deref().unwrap_or("Amazon S3")),
            BucketConfig::FileSystem(folder) => format!("folder {}", folder.path.display()),
        };
        let access = match &self.env.config.auth {
            Some(_) => "as auth.rules and Kubernetes allow",
            None => "every client may pull, push and delete (auth is not set)",
        };
        let is_tls = self.env.config.http.tls.is_some();
        let plain = if is_tls { "" } else { "--tls-verify=false " };
        let text = format!(
            "registry    {}://{}\noperations  http://{}/metrics\naccess      {access}\nbucket      {bucket}\n\
             store       folder {}: {}, evicts below {} free until {} are free\n\
             push        podman push {plain}IMAGE {}/NAME:TAG\n",
            if is_tls { "https" } else { "http" },
            self.registry_address,
            self.operations_address,
            self.env.config.store.path.display(),
            gibibytes(usage.capacity),
            gibibytes(usage.low_free),
            gibibytes(usage.target_free),
            self.registry_address,
        );
        // A node does not stop because nobody reads its output any more.
        drop(std::io::stdout().write_all(text.as_bytes()));
    }

    /// Warns that every client that reaches the node may do everything.
    fn warn_if_open(&self) {
        if self.env.config.auth.is_none() && !self.env.config.http.listen.ip().is_loopback() {
            tracing::warn!(
                listen = %self.env.config.http.listen,
                "every client that can reach this node may pull, push and delete, because auth is not set"
            );
        }
    }

    async fn until_stopped(self, signals: &mut Signals) {
        let (stop_registry, registry_stopped) = tokio::sync::oneshot::channel::<()>();
        let grace = self.env.config.shutdown.grace_period.get();
        let registry = self.registry.serve(async { drop(registry_stopped.await) }, grace);
        // The operations listener serves to the very end, so that probes and metrics show the
        // shutdown.
        self.env.tasks.spawn("operations", {
            let tasks = self.env.tasks.clone();
            async move {
                self.operations.serve(async move { tasks.stopping().await }, Duration::ZERO).await;
            }
        });
        let stopped = async {
            let grace = drain(&self.readiness, &self.env.config.shutdown).await;
            // The listener closes only after the drain delay; its future then waits for requests in
            // flight.
            drop(stop_registry);
            grace
        };
        tokio::pin!(registry);
        let name = tokio::select! {
            name = signals.next() => name,
            _ = &mut registry => "listener closed",
        };
        tracing::info!(signal = name, "shutting down: finishing in-flight requests and pending uploads");
        let orderly = async {
            let (cut_off, grace) = tokio::join!(registry, stopped);
            if cut_off > 0 {
                tracing::warn!(connections = cut_off, "connections closed at the end of the grace period");
            }
            self.env.tasks.stop(grace.left()).await
        };
        if unless_again(signals, orderly).await == Some(false) {
            tracing::warn!(
                "some tasks did not finish within the grace period; pending uploads resume at the next start"
            );
        }
        if let Err(error) = self.env.store.close() {
            tracing::error!(%error, "the store could not be closed cleanly; it is verified at the next start");
        }
    }
}

async fn listen(field: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { field, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn environment(config: NodeConfig) -> Result<Environment, StartError> {
    let metrics = Arc::new(Metrics::new()?);
    let bucket = entrepot_bucket::open(&config.bucket, metrics.bucket.clone())?;
    let clock = Clock::system();
    let store = Store::open(&config.store, clock.clone(), metrics.clone())?;
    let tasks = Tasks::new();
    store.start_recording(&tasks);
    Ok(Environment::new(Arc::new(config), bucket, store, clock, tasks, metrics))
}

fn audit(env: &Environment) -> Arc<Audit> {
    let (node, settings) = (env.config.node.name.to_string(), env.config.audit.clone());
    Arc::new(Audit::new(node, settings, env.clock.clone(), Box::new(std::io::stderr())))
}

fn reporter(env: &Environment, access: AccessFiles, tls: LiveTls, audit: Arc<Audit>) -> Result<Reporter, StartError> {
    Ok(Reporter {
        node: env.config.node.name.to_string(),
        health: BucketHealth::new(env.bucket.clone(), &env.layout),
        live: LiveConfig::new(env.config.clone(), env.store.clone(), access.clone(), audit, env.metrics.registry())?,
        access,
        tls,
        store: env.store.clone(),
        metrics: env.metrics.clone(),
    })
}

/// Logs early if the bucket or its credentials do not work.
async fn probe(env: &Environment) {
    let prefix = env.layout.repositories();
    let asked = env.bucket.list(ListOptions { prefix, delimiter: true, after: None, max: 1 });
    match tokio::time::timeout(PROBE, asked).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "bucket check failed; until the bucket works, only stored content is served")
        }
        Err(_) => tracing::error!("bucket check timed out; until the bucket works, only stored content is served"),
    }
}
