//! The servers of a run: three nodes with small stores, what keeps their images, and Distribution over the same bucket.

use super::clock::Clock;
use super::plan::{BucketKind, NODES, WITH_CLOCK};
use crate::node::Plan;
use crate::node_binary::Variant;
use crate::proxy::Proxy;
use crate::servers::{Distribution, Driver, Versitygw, free_port};
use crate::{Node, Registry, s3, wait};
use anyhow::{Context, Result};
use entrepot_config::{ByteSize, Duration as Span, ReplicationMode, Threshold};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How much a store may hold: a few images, so that it is cleaned all the time.
pub const CAPACITY: ByteSize = ByteSize::mebibytes(32);
/// A session that received nothing for this long is removed.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(15);
/// Names of the nodes, which are the last parts of their addresses too: so they reach each other.
const FIRST_NAME: u8 = 21;
/// How long nodes may take until nothing is pending and the bucket is asked again.
const SETTLED: Duration = Duration::from_secs(40);

/// Where images are kept.
pub enum Bucket {
    // In the order in which they have to go.
    S3 { proxy: Proxy, server: Box<Versitygw>, keys: TempDir },
    Folder(TempDir),
}

impl Bucket {
    async fn start(kind: BucketKind) -> Result<Bucket> {
        Ok(match kind {
            BucketKind::Folder => Bucket::Folder(TempDir::new()?),
            BucketKind::S3 => {
                let server = Box::new(Versitygw::start().await?);
                Bucket::S3 { proxy: Proxy::start(&server.s3.endpoint).await?, server, keys: TempDir::new()? }
            }
        })
    }

    fn plan(&self) -> Result<Plan> {
        Ok(match self {
            Bucket::S3 { proxy, keys, .. } => Plan::over(s3::node_bucket(&proxy.url, keys.path())?),
            Bucket::Folder(folder) => Plan::over_folder(folder.path()),
        })
    }

    fn driver(&self) -> Driver<'_> {
        match self {
            Bucket::S3 { server, .. } => Driver::S3(&server.s3),
            Bucket::Folder(folder) => Driver::FileSystem(folder.path()),
        }
    }

    pub fn proxy(&self) -> Option<&Proxy> {
        match self {
            Bucket::S3 { proxy, .. } => Some(proxy),
            Bucket::Folder(_) => None,
        }
    }

    /// Ends all faults, and waits until no request is still to arrive.
    async fn heal(&self) -> Result<()> {
        let Some(proxy) = self.proxy() else { return Ok(()) };
        proxy.heal();
        wait::until("late requests have arrived", SETTLED, || async { proxy.held() == 0 }).await
    }
}

/// All servers.
pub struct Fleet {
    pub nodes: Vec<Node>,
    pub clock: Clock,
    pub distribution: Distribution,
    pub bucket: Bucket,
    _folder: TempDir,
}

impl Fleet {
    /// # Errors
    /// When one of them does not start.
    pub async fn start(kind: BucketKind) -> Result<Fleet> {
        let folder = TempDir::new()?;
        let bucket = Bucket::start(kind).await?;
        let port = free_port()?;
        let mut nodes = Vec::new();
        let mut clock = None;
        for place in 0..NODES {
            let name = FIRST_NAME + u8::try_from(place)?;
            let mut plan = bucket.plan()?.with(|config| {
                config.node.name = name.to_string();
                config.node.peers = Some(format!("http://127.0.0.{{node}}:{port}"));
                config.http.listen = SocketAddr::from((Ipv4Addr::new(127, 0, 0, name), port));
                config.bucket.request_timeout = Span::from_secs(2);
                config.bucket.retry_budget = Span::from_secs(4);
                config.store.capacity = Some(CAPACITY);
                config.store.low_free = Threshold::percent(30);
                config.store.target_free = Threshold::percent(50);
                config.upload.session_expiry = Span::from_secs(SESSION_EXPIRY.as_secs());
                config.replication.part_size = ByteSize::mebibytes(5);
                config.log.level = "warn".into();
            });
            // Linked dynamically, as libfaketime needs it.
            plan.variant = Variant::CrashPoints;
            if place == WITH_CLOCK {
                clock = Some(Clock::of(&mut plan, folder.path())?);
            }
            nodes.push(plan.start().await?);
        }
        let clock = clock.context("no node has a clock")?;
        let distribution = Distribution::start(bucket.driver()).await?;
        Ok(Fleet { nodes, clock, distribution, bucket, _folder: folder })
    }

    /// The nodes as clients know them, which does not change.
    pub fn registries(&self) -> Vec<Registry> {
        self.nodes.iter().map(|node| node.registry.clone()).collect()
    }

    /// Ends all faults and starts every node that is down, as [`start_again`] does.
    ///
    /// # Errors
    /// When a node does not start with an empty store either, or something does not settle in time.
    pub async fn heal(&mut self, mut started: impl FnMut(&Node, Result<()>)) -> Result<()> {
        self.bucket.heal().await?;
        self.clock.set_right()?;
        for node in &mut self.nodes {
            if node.has_ended()? {
                start_again(node, &mut started).await?;
            }
            node.signal(Signal::CONT)?;
        }
        Ok(())
    }

    /// Writes what the nodes said to files of a folder, as far as that is possible.
    pub fn keep_logs(&self, folder: &Path) {
        for node in &self.nodes {
            let _ = std::fs::write(folder.join(format!("node-{}.log", node.plan.config.node.name)), node.log());
        }
    }

    /// Waits until nothing is pending at any node.
    ///
    /// # Errors
    /// When something is for too long.
    pub async fn settle(&self) -> Result<()> {
        for node in &self.nodes {
            let name = &node.plan.config.node.name;
            let settled = || async { node.metrics().await.is_ok_and(|all| all.sum("pending_blobs", &[]) == 0.0) };
            wait::until(&format!("nothing is pending at node {name}"), SETTLED, settled).await?;
        }
        Ok(())
    }

    /// Stops all nodes in an orderly way and starts them in this mode.
    ///
    /// # Errors
    /// When one does not stop or start.
    pub async fn change_mode(&mut self, mode: ReplicationMode) -> Result<()> {
        for node in &mut self.nodes {
            if node.plan.config.replication.mode != mode {
                node.stop().await?;
                node.plan.config.replication.mode = mode;
                node.start_again().await?;
            }
        }
        Ok(())
    }

    /// Kills all nodes, deletes their stores and starts them.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn wipe(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.kill()?;
            remove_store(&node.store())?;
        }
        for node in &mut self.nodes {
            node.start_again().await?;
        }
        Ok(())
    }
}

/// Starts a node that was killed. `started` receives the result. A node that fails to start is started without its store.
///
/// # Errors
/// When it does not start without it either.
pub async fn start_again(node: &mut Node, started: &mut impl FnMut(&Node, Result<()>)) -> Result<()> {
    let result = node.start_again().await;
    let failed = result.is_err();
    started(node, result);
    if failed {
        node.kill()?;
        remove_store(&node.store())?;
        node.start_again().await?;
    }
    Ok(())
}

/// # Errors
/// When it cannot be removed.
pub fn remove_store(store: &Path) -> Result<()> {
    std::fs::remove_dir_all(store).with_context(|| store.display().to_string())
}

/// All files below a folder. What disappears meanwhile is left out.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
