//! The wiring of a node from its configuration, and its life from start to stop.

use super::bucket_health::BucketHealth;
use super::live::LiveConfig;
use super::probes::Probes;
use super::shutdown::{Readiness, Signals, drain, unless_again};
use super::status::Reporter;
use super::store_health::StoreHealth;
use crate::clean;
use crate::discover::Discover;
use crate::fetch::{Fetch, FetchParts};
use crate::http::{Server, Services, operations, router};
use crate::manage::{Manage, ManageParts};
use crate::observe::{self, Metrics};
use crate::replicate::{OldestPending, Replicate, ReplicateParts};
use crate::repository::{Damaged, Fallback, Layout, Links, PendingHere, RecentPuts, Replicator, Tags};
use crate::scrub::{Refill, Scrub};
use crate::store::Store;
use crate::store::StoreError;
use crate::upload::{UploadParts, Uploads};
use entrepot_bucket::Bucket;
use entrepot_bucket::{self, ListOptions, OpenError};
use entrepot_config::{BucketConfig, NodeConfig};
use entrepot_oci::Digest;
use entrepot_runtime::{BackgroundBlocking, BackgroundRuntime, Clock, Tasks};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// How long the start waits for the bucket's response. The check only reports problems early: a
/// node starts and serves its store even if the bucket is unreachable.
const PROBE: Duration = Duration::from_secs(2);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{field}: cannot listen on {address}: {source}")]
    Listen { field: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Bucket(#[from] OpenError),
    #[error("store.path: {0}")]
    Store(#[from] StoreError),
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Log(#[from] observe::tracing::LogError),
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

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
        node.until_stopped(&mut signals).await;
        Ok(())
    });
    // Work that did not finish within the grace period is abandoned.
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

/// A running node.
struct Node {
    config: NodeConfig,
    store: Store,
    tasks: Tasks,
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
        let metrics = Arc::new(Metrics::new()?);
        let bucket = entrepot_bucket::open(&config.bucket, metrics.bucket.clone())?;
        let clock = Clock::system();
        let store = Store::open(&config.store, clock.clone(), metrics.clone())?;
        let tasks = Tasks::new();
        store.start_recording(&tasks);
        let damaged = Arc::new(Damaged::new(clock.clone()));
        let shared = Shared { bucket, store: store.clone(), damaged, clock, metrics: metrics.clone(), tasks };
        let services = shared.wire(&config)?;
        shared.probe(&config).await;
        let reporter = shared.reporter(&config)?;
        if let Some(file) = file {
            reporter.live.watch(file, &shared.tasks);
        }
        let readiness = Readiness::default();
        readiness.set(true);
        let store_health = StoreHealth::new(&config.store.path);
        let probes = Probes { readiness: readiness.clone(), store: store_health, reporter };
        Ok(Node {
            registry: Server::new(registry, router(services, &config.http), &config.http),
            operations: Server::new(operations, operations::router(metrics, Arc::new(probes)), &config.http),
            tasks: shared.tasks,
            config,
            store,
            readiness,
            registry_address,
            operations_address,
        })
    }

    /// The first lines on standard output: the addresses, where the data is, and how to push an
    /// image.
    fn announce(&self) {
        let usage = self.store.room.usage();
        let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let bucket = match &self.config.bucket.backend {
            BucketConfig::S3(s3) => format!("s3 {} at {}", s3.name, s3.endpoint.as_deref().unwrap_or("Amazon S3")),
            BucketConfig::FileSystem(folder) => format!("folder {}", folder.path.display()),
        };
        println!("registry    http://{}", self.registry_address);
        println!("operations  http://{}/metrics", self.operations_address);
        println!("bucket      {bucket}");
        println!(
            "store       folder {}: {}, evicts below {} free until {} are free",
            self.config.store.path.display(),
            gibibytes(usage.capacity),
            gibibytes(usage.low_free),
            gibibytes(usage.target_free),
        );
        println!("push        podman push --tls-verify=false IMAGE {}/NAME:TAG", self.registry_address);
    }

    async fn until_stopped(self, signals: &mut Signals) {
        let (stop_registry, registry_stopped) = tokio::sync::oneshot::channel::<()>();
        let grace = self.config.shutdown.grace_period.get();
        let registry = self.registry.serve(async { drop(registry_stopped.await) }, grace);
        // The operations listener serves to the very end, so that probes and metrics show the
        // shutdown.
        self.tasks.spawn("operations", {
            let tasks = self.tasks.clone();
            async move {
                self.operations.serve(async move { tasks.stopping().await }, Duration::ZERO).await;
            }
        });
        let stopped = async {
            let grace = drain(&self.readiness, &self.config.shutdown).await;
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
            self.tasks.stop(grace.left()).await
        };
        if unless_again(signals, orderly).await == Some(false) {
            tracing::warn!(
                "some tasks did not finish within the grace period; pending uploads resume at the next start"
            );
        }
        if let Err(error) = self.store.close() {
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

/// What all flows of a node share.
struct Shared {
    bucket: Arc<dyn Bucket>,
    store: Store,
    damaged: Arc<Damaged>,
    clock: Clock,
    metrics: Arc<Metrics>,
    tasks: Tasks,
}

impl Shared {
    fn wire(&self, config: &NodeConfig) -> Result<Services, StartError> {
        let layout = Layout::new(&config.bucket.prefix);
        let (pending, recent_puts) = (PendingHere::default(), RecentPuts::new(self.clock.clone()));
        let links = Links::new(
            self.bucket.clone(),
            layout.clone(),
            self.store.clone(),
            pending.clone(),
            config.links.fresh_for.get(),
            config.links.stale_if_error.get(),
        );
        let retry_budget = config.bucket.retry_budget.get();
        let immutable = config.tags.immutable.clone();
        let tags = Tags::new(self.bucket.clone(), layout.clone(), self.store.clone(), immutable, retry_budget);
        let node = config.node.name.clone();
        let parts = ReplicateParts {
            bucket: self.bucket.clone(),
            layout: layout.clone(),
            store: self.store.clone(),
            links: links.clone(),
            damaged: self.damaged.clone(),
            tasks: self.tasks.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            recent_puts: recent_puts.clone(),
            pending,
            node: node.clone(),
            retry_budget,
        };
        let fallback = Fallback {
            bucket: self.bucket.clone(),
            layout: layout.clone(),
            store: self.store.clone(),
            links: links.clone(),
            tags: tags.clone(),
            enabled: config.upload.referrers_tag,
        };
        let replicate = Replicate::start(parts, &config.replication);
        self.metrics.registry().register(Box::new(OldestPending::new(&replicate)?))?;
        let replicator = Arc::new(replicate);
        let uploads = Uploads::start(UploadParts {
            bucket: self.bucket.clone(),
            layout: layout.clone(),
            store: self.store.clone(),
            links: links.clone(),
            replicator: replicator.clone(),
            tasks: self.tasks.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            node,
            peer_url: config.node.peer_url.clone(),
            mode: config.replication.mode,
            config: config.upload.clone(),
            tags: tags.clone(),
            fallback: fallback.clone(),
            recent_puts,
        })?;
        let policy = config.store.eviction_policy;
        let sessions = Arc::new(uploads.clone());
        clean::start(&self.tasks, self.store.clone(), policy, sessions, self.metrics.clone());
        let threads = |source| StartError::System { what: "start threads", source };
        let (background_runtime, background) =
            (BackgroundRuntime::new().map_err(threads)?, BackgroundBlocking::new().map_err(threads)?);
        let fetch = self.fetch(&layout, &links, replicator.clone(), background_runtime, background.clone(), config);
        let scrub = Scrub {
            store: self.store.clone(),
            background,
            refill: Arc::new(Refills(fetch.clone())),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        scrub.start(&self.tasks, &config.store.scrub);
        let manage = Manage::new(ManageParts {
            bucket: self.bucket.clone(),
            layout: layout.clone(),
            store: self.store.clone(),
            links,
            tags,
            fallback,
            replicator,
        });
        let discover = Discover::new(self.bucket.clone(), layout);
        let metrics = self.metrics.clone();
        Ok(Services { uploads, fetch, discover, manage, metrics, read_only: config.read_only })
    }

    fn fetch(
        &self,
        layout: &Layout,
        links: &Links,
        replicator: Arc<dyn Replicator>,
        background_runtime: BackgroundRuntime,
        background: BackgroundBlocking,
        config: &NodeConfig,
    ) -> Fetch {
        Fetch::new(FetchParts {
            bucket: self.bucket.clone(),
            layout: layout.clone(),
            store: self.store.clone(),
            links: links.clone(),
            replicator,
            damaged: self.damaged.clone(),
            config: config.fetch.clone(),
            tags: config.tags.clone(),
            stale_if_error: config.links.stale_if_error.get(),
            tasks: self.tasks.clone(),
            background_runtime,
            background,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            retry_budget: config.bucket.retry_budget.get(),
            stall_timeout: config.bucket.request_timeout.get(),
        })
    }

    fn reporter(&self, config: &NodeConfig) -> Result<Reporter, StartError> {
        Ok(Reporter {
            node: config.node.name.to_string(),
            health: BucketHealth::new(self.bucket.clone(), &config.bucket.prefix),
            live: LiveConfig::new(config.clone(), self.store.clone(), self.metrics.registry())?,
            store: self.store.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// Logs early if the bucket or its credentials do not work.
    async fn probe(&self, config: &NodeConfig) {
        let prefix = Layout::new(&config.bucket.prefix).repositories();
        let asked = self.bucket.list(ListOptions { prefix, delimiter: true, after: None, max: 1 });
        match tokio::time::timeout(PROBE, asked).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "bucket check failed; until the bucket works, only stored content is served")
            }
            Err(_) => tracing::error!("bucket check timed out; until the bucket works, only stored content is served"),
        }
    }
}

/// Downloads content that the scrub removed.
struct Refills(Fetch);

impl Refill for Refills {
    fn refill(&self, digest: &Digest) {
        self.0.refill(digest);
    }
}
