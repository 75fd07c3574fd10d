//! The servers of a run: three nodes with small stores, their bucket, and Distribution over the
//! same bucket.

use super::clock::Clock;
use super::plan::{BucketKind, NODES, WITH_CLOCK};
use crate::node::Plan;
use crate::node_binary::Variant;
use crate::proxy::Proxy;
use crate::servers::{Distribution, Driver, Versitygw, free_port};
use crate::{Node, Registry, s3, wait};
use anyhow::{Context, Result};
use entrepot_config::{ByteSize, Duration as Span, NodeName, PeerAddress, Peers, ReplicationMode, Threshold};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Capacity of a store: a few images, so that eviction runs all the time.
pub const CAPACITY: ByteSize = ByteSize::mebibytes(32);
/// A session that received nothing for this long is removed.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(15);
/// The last part of the address of the first node. The next nodes have the next addresses.
const FIRST_ADDRESS: u8 = 21;
/// Time limit for nodes to finish pending uploads and to use the bucket again after a failure.
const SETTLED: Duration = Duration::from_secs(40);

/// The name of the node with this address.
fn node_name(last: u8) -> String {
    format!("node-{last}")
}

/// The bucket of a run.
pub enum Bucket {
    // In the order in which they have to be dropped.
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

    /// Removes all faults, and waits until every late request has arrived.
    async fn clear_faults(&self) -> Result<()> {
        let Some(proxy) = self.proxy() else { return Ok(()) };
        proxy.clear_faults();
        wait::until("late requests have arrived", SETTLED, || async { proxy.held() == 0 }).await
    }
}

/// All servers.
pub struct Deployment {
    pub nodes: Vec<Node>,
    pub clock: Clock,
    pub distribution: Distribution,
    pub bucket: Bucket,
    _folder: TempDir,
}

impl Deployment {
    /// # Errors
    /// If one of them does not start.
    pub async fn start(kind: BucketKind) -> Result<Deployment> {
        let folder = TempDir::new()?;
        let bucket = Bucket::start(kind).await?;
        let port = free_port()?;
        let places = (0..NODES).map(|place| Ok(FIRST_ADDRESS + u8::try_from(place)?));
        let places = places.collect::<Result<Vec<u8>>>()?;
        let peers = places.iter().map(|last| Ok((node_name(*last), format!("http://127.0.0.{last}:{port}").parse()?)));
        let peers = Peers::Listed(peers.collect::<Result<BTreeMap<_, PeerAddress>>>()?);
        let mut nodes = Vec::new();
        let mut clock = None;
        for (place, last) in places.into_iter().enumerate() {
            let own = NodeName::parse(&node_name(last))?;
            let mut plan = bucket.plan()?.with(|config| {
                config.node.name = own.clone();
                config.node.peers = Some(peers.clone());
                config.http.listen = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
                config.bucket.request_timeout = Span::from_secs(2);
                config.bucket.retry_budget = Span::from_secs(4);
                config.store.capacity = Some(CAPACITY);
                config.store.low_free = Threshold::percent(30);
                config.store.target_free = Threshold::percent(50);
                config.upload.session_expiry = Span::from_secs(SESSION_EXPIRY.as_secs());
                config.replication.part_size = ByteSize::mebibytes(5);
                config.log.filter = "warn".into();
            });
            // Linked dynamically, because libfaketime is preloaded.
            plan.variant = Variant::CrashPoints;
            if place == WITH_CLOCK {
                clock = Some(Clock::of(&mut plan, folder.path())?);
            }
            nodes.push(plan.start().await?);
        }
        let clock = clock.context("no node has a clock")?;
        let distribution = Distribution::start(bucket.driver()).await?;
        Ok(Deployment { nodes, clock, distribution, bucket, _folder: folder })
    }

    /// The nodes as clients use them; their addresses do not change.
    pub fn registries(&self) -> Vec<Registry> {
        self.nodes.iter().map(|node| node.registry.clone()).collect()
    }

    /// Removes all faults and starts every node that is down, as [`start_again`] does.
    ///
    /// # Errors
    /// If a node does not start with an empty store either, or something does not settle in time.
    pub async fn repair(&mut self, mut started: impl FnMut(&Node, Result<()>)) -> Result<()> {
        self.bucket.clear_faults().await?;
        self.clock.set_right()?;
        for node in &mut self.nodes {
            if node.has_ended()? {
                start_again(node, &mut started).await?;
            }
            node.signal(Signal::CONT)?;
        }
        Ok(())
    }

    /// Writes the nodes' logs to files in a folder, as far as that is possible.
    pub fn keep_logs(&self, folder: &Path) {
        for node in &self.nodes {
            let _ = std::fs::write(folder.join(format!("node-{}.log", node.plan.config.node.name)), node.log());
        }
    }

    /// Waits until nothing is pending at any node.
    ///
    /// # Errors
    /// If something is pending for too long.
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
    /// If one does not stop or start.
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

    /// Kills all nodes, deletes their stores and starts the nodes.
    ///
    /// # Errors
    /// If one does not start.
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

/// Starts a node that was killed. `started` receives the result. A node that fails to start is
/// started with an empty store.
///
/// # Errors
/// If it does not start with an empty store either.
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
/// If it cannot be removed.
pub fn remove_store(store: &Path) -> Result<()> {
    std::fs::remove_dir_all(store).with_context(|| store.display().to_string())
}

/// All files below a folder, without those that disappear meanwhile.
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
