//! A run of clients and faults against three nodes, whose history is checked against what the
//! registry promises.
//!
//! A run is a sequence of epochs. In an epoch clients push, pull, delete and list while nodes and
//! bucket fail. Then everything is repaired and checked: tags for an order that explains all
//! operations, images for completeness at every node, lists for their content, stores for their
//! capacity, and everything for leftovers. A seed determines the faults, their times, and the
//! random numbers of every client. It does not determine how long each response takes, and clients
//! choose among what they got in responses: the same seed gives the same plan, not the same
//! history.
//!
//! `plan` decides what happens, `deployment` has the servers, and `faults` breaks them. `client` with
//! `blobs`, `pushing`, `pulling`, `deleting` and `damaging` sends the requests. `record` and `model`
//! keep the responses, `check_*` check them, and `violations` and `report` print the results.
//!
//! Two things are not violations, by design. A tag that moves back to an earlier manifest has the
//! earlier `ETag` in S3. A conditional write that arrives late then finds its condition true again
//! (ABA). So clients push earlier manifests again only with `--move-back`, which has no late
//! requests. And S3 has no condition for deletes: the late deletion of a manifest's link may remove
//! the link of a push that came after it.

mod blobs;
pub mod check_images;
mod check_leaks;
pub mod check_listings;
pub mod check_tags;
pub mod client;
mod clock;
mod damaging;
mod deleting;
mod deployment;
mod faults;
pub mod model;
mod plan;
mod pulling;
mod pushing;
pub mod record;
mod report;
pub mod violations;

pub use plan::BucketKind;
pub use report::Report;

use crate::Registry;
use crate::node_binary::Variant;
use crate::tools::Tool;
use anyhow::{Context, Result};
use client::{Client, Disk, Scene, Server};
use deployment::Deployment;
use entrepot_config::ReplicationMode;
use faults::Happened;
use model::Model;
use plan::{Epoch, ProcessFault};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use record::Recorder;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use tokio::task::JoinSet;
use violations::Broken;

/// Clients of the nodes. There is one more for Distribution.
const CLIENTS: usize = 8;
/// How long clients and faults run before everything is checked.
const EPOCH: Duration = Duration::from_secs(15);
/// Number of images of older epochs that are checked again in each check.
const OLD_IMAGES: usize = 40;

/// Options of a run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub length: Duration,
    pub bucket: BucketKind,
    /// Whether tags move back to earlier manifests; then no request arrives late.
    pub move_back: bool,
}

/// A random seed.
pub fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Runs over both buckets for half of the time each, or over one of them for all of it. Returns
/// whether there was no violation.
///
/// # Errors
/// If a server cannot be started, or a check cannot be run.
pub async fn run_all(seed: u64, length: Duration, bucket: Option<BucketKind>, move_back: bool) -> Result<bool> {
    let only = bucket.map_or_else(String::new, |bucket| format!(" --bucket {}", bucket.name()));
    let moving = if move_back { " --move-back" } else { "" };
    let minutes = length.as_secs().div_ceil(60);
    println!("seed {seed}; the same plan: cargo e2e history --seed {seed} --minutes {minutes}{only}{moving}");
    // Before any clock runs, because these may have to be built.
    Variant::CrashPoints.path()?;
    [Tool::Versitygw, Tool::Registry, Tool::Linearizable].into_iter().try_for_each(|tool| tool.path().map(drop))?;
    let buckets = bucket.map_or_else(|| vec![BucketKind::S3, BucketKind::Folder], |bucket| vec![bucket]);
    let length = length / u32::try_from(buckets.len())?;
    let mut reports = Vec::new();
    for bucket in buckets {
        reports.push(run(Options { seed, length, bucket, move_back }).await?);
    }
    for report in &reports {
        println!("\n{report}");
    }
    Ok(reports.iter().all(Report::is_clean))
}

/// One run over one bucket.
///
/// # Errors
/// If a server cannot be started, or a check cannot be run.
pub async fn run(options: Options) -> Result<Report> {
    let folder = tempfile::Builder::new().prefix("entrepot-history-").tempdir()?;
    let start = Instant::now();
    let mut run = Run::start(options, folder.path()).await?;
    let mut epochs = 0;
    // Checking an epoch takes about as long as the epoch.
    while epochs == 0 || start.elapsed() + 2 * EPOCH < options.length {
        let planned = plan::epoch(options.seed, epochs, EPOCH, options.bucket, options.move_back);
        run.epoch(&planned, folder.path()).await?;
        epochs += 1;
    }
    check_leaks::check_bucket(&run.model, &run.deployment.bucket).await;
    Ok(run.report(start.elapsed(), epochs, folder))
}

/// A run in progress.
struct Run {
    options: Options,
    model: Arc<Model>,
    deployment: Deployment,
    happened: Happened,
    requests: u64,
    images: u64,
    undecided: u64,
}

impl Run {
    async fn start(options: Options, folder: &Path) -> Result<Run> {
        let model = Arc::new(Model::new(Recorder::new(&folder.join("history.jsonl"))?));
        let deployment = Deployment::start(options.bucket).await?;
        Ok(Run { options, model, deployment, happened: Happened::new(), requests: 0, images: 0, undecided: 0 })
    }

    fn servers(&self) -> Vec<Server> {
        let server = |(node, registry): (usize, Registry)| {
            let of = &self.deployment.nodes[node];
            let name = format!("node {}", of.plan.config.node.name);
            Server { name, registry, disk: Some(Disk { node, store: of.store() }) }
        };
        self.deployment.registries().into_iter().enumerate().map(server).collect()
    }

    fn distribution(&self) -> Server {
        Server { name: "distribution".into(), registry: self.deployment.distribution.registry.clone(), disk: None }
    }

    async fn epoch(&mut self, planned: &Epoch, folder: &Path) -> Result<()> {
        let images_before = self.images;
        self.deployment.change_mode(planned.mode).await?;
        self.act(planned).await?;
        let model = self.model.clone();
        self.deployment.repair(|node, result| faults::note_start(&model, node, &result)).await?;
        self.check(planned, folder).await?;
        if planned.wipe_all {
            self.deployment.wipe().await?;
            *self.happened.entry("all stores deleted").or_default() += 1;
            self.check_images("after all stores were deleted").await;
        }
        if planned.collect {
            match self.deployment.distribution.collect().await {
                Ok(_) => *self.happened.entry("garbage collected").or_default() += 1,
                // Distribution gives up at the first manifest that it cannot read, before it
                // removes anything.
                Err(error) => println!("Distribution failed to collect garbage: {error:#}"),
            }
            self.check_images("after Distribution collected garbage").await;
        }
        self.model.state().forget_before(planned.number, OLD_IMAGES);
        println!(
            "{:?} epoch {} ({:?}): {} images pulled, {} faults, {} violations so far",
            self.options.bucket,
            planned.number,
            planned.mode,
            self.images - images_before,
            self.happened.values().sum::<u64>(),
            self.model.violations.total()
        );
        Ok(())
    }

    /// What the clients of the nodes, and the client of Distribution, know of an epoch.
    fn scenes(&self, planned: &Epoch) -> [Arc<Scene>; 2] {
        let loses_blobs = |fault: &ProcessFault| {
            matches!(
                fault,
                ProcessFault::Wipe { .. } | ProcessFault::CutJournal { .. } | ProcessFault::KillAndDamage { .. }
            )
        };
        let write_back = planned.mode == ReplicationMode::WriteBack;
        let blobs_may_be_lost = write_back && planned.process.iter().any(|planned| loses_blobs(&planned.fault));
        let scene = |nodes, blobs_may_be_lost, referrers| {
            Arc::new(Scene {
                model: self.model.clone(),
                nodes,
                epoch: planned.number,
                blobs_may_be_lost,
                move_back: self.options.move_back,
                referrers,
                stop: AtomicBool::new(false),
            })
        };
        [scene(self.servers(), blobs_may_be_lost, true), scene(vec![self.distribution()], true, false)]
    }

    /// Runs clients and faults until the time is over and every client has finished its operation.
    async fn act(&mut self, planned: &Epoch) -> Result<()> {
        self.model.corrupting.store(false, Ordering::SeqCst);
        let scenes = self.scenes(planned);
        let mut clients = start_clients(&scenes, planned.clients);
        let stores: Vec<_> = self.deployment.nodes.iter().map(crate::Node::store).collect();
        let (model, deployment) = (self.model.clone(), &mut self.deployment);
        let breaking = async {
            let bucket = async {
                match deployment.bucket.proxy() {
                    Some(proxy) => faults::to_bucket(proxy, &planned.bucket, &model).await,
                    None => Happened::new(),
                }
            };
            let nodes = faults::to_nodes(&mut deployment.nodes, &deployment.clock, &planned.process, EPOCH, &model);
            let (happened, at_bucket, ()) = tokio::join!(nodes, bucket, tokio::time::sleep(EPOCH));
            scenes.iter().for_each(|scene| scene.stop.store(true, Ordering::SeqCst));
            while let Some(ended) = clients.join_next().await {
                ended.context("a client task failed")?;
            }
            happened.map(|happened| happened.into_iter().chain(at_bucket).collect::<Vec<_>>())
        };
        let happened = tokio::select! {
            happened = breaking => happened?,
            () = check_leaks::watch_sizes(&model, &stores) => Vec::new(),
        };
        for (name, times) in happened.into_iter().chain(self.model.take_faults()) {
            *self.happened.entry(name).or_default() += times;
        }
        if let Some(proxy) = self.deployment.bucket.proxy() {
            self.requests += faults::count_requests(proxy, &mut self.happened);
        }
        Ok(())
    }

    /// Checks everything while nothing fails.
    async fn check(&mut self, planned: &Epoch, folder: &Path) -> Result<()> {
        if let Err(error) = self.deployment.settle().await {
            let cut = |planned: &plan::Planned<ProcessFault>| matches!(planned.fault, ProcessFault::CutJournal { .. });
            if planned.process.iter().any(cut) {
                // The owner of a blob whose journal entry is lost is unknown, so the blob may stay
                // pending.
                self.deployment.wipe().await?;
            } else {
                let subject = format!("epoch {}: pending blobs", planned.number);
                self.model.violations.add(Broken::Leak, &subject, &format!("{error:#}"));
            }
        }
        let mut records = self.model.recorder.take_epoch();
        let servers = self.servers();
        check_listings::check(&self.model, &servers, planned.number, &records, self.deployment.bucket.proxy()).await;
        records.extend(self.model.recorder.take_epoch());
        self.check_images("while nothing fails").await;
        let file = folder.join(format!("tags-{}.jsonl", planned.number));
        self.undecided += check_tags::check(&records, &file, &self.model.violations).await?;
        check_leaks::check_nodes(&self.model, &self.deployment).await;
        Ok(())
    }

    async fn check_images(&mut self, when: &str) {
        let mut servers = self.servers();
        servers.push(self.distribution());
        self.images += check_images::check(&self.model, &servers, when).await as u64;
    }

    fn report(self, took: Duration, epochs: u64, folder: TempDir) -> Report {
        let violations = self.model.violations.counts();
        let kept = (!violations.is_empty()).then(|| {
            self.deployment.keep_logs(folder.path());
            // Ignored, as for the logs: what cannot be kept was at least printed.
            let _ = std::fs::write(folder.path().join("violations.txt"), self.model.violations.told());
            folder.keep()
        });
        Report {
            bucket: self.options.bucket,
            seed: self.options.seed,
            took,
            epochs,
            operations: self.model.recorder.counts(),
            faults: self.happened,
            requests: self.requests,
            images: self.images,
            undecided: self.undecided,
            violations,
            kept,
        }
    }
}

/// Starts all clients of an epoch.
fn start_clients([of_nodes, of_distribution]: &[Arc<Scene>; 2], seed: u64) -> JoinSet<()> {
    let mut seeds = SmallRng::seed_from_u64(seed);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client::new(of_nodes.clone(), format!("client{number}"), SmallRng::from_rng(&mut seeds));
        clients.spawn(client.run());
    }
    let other = Client::new(of_distribution.clone(), "distributor".into(), SmallRng::from_rng(&mut seeds));
    clients.spawn(other.run_at_distribution());
    clients
}
