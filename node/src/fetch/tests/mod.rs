//! The fetch flow on a bucket in memory whose bodies the tests delay, and on a real store.

mod damaged;
mod fills;
mod linked;
mod manifests;
mod ranges;
mod room;
mod tags;
mod trouble;

use super::*;
use crate::app::flows::{Background, Flows};
use crate::observe::Metrics;
use crate::repository::layout::{LinkKind, link_content};
use crate::repository::{Damaged, Environment, Layout};
use crate::store::Store;
use crate::store::testing::{Fixture, content};
use async_trait::async_trait;
use entrepot_bucket::Bucket;
use entrepot_bucket::Key;
use entrepot_bucket::Limited;
use entrepot_bucket::fault::{Faults, Faulty};
use entrepot_bucket::memory::Memory;
use entrepot_bucket::{BucketMetrics, Counted, Handles};
use entrepot_bucket::{
    Capabilities, Delete, ETag, Get, GetOptions, ListOptions, MultipartId, ObjectMeta, Page, PartTag, Put, PutBody,
    PutMode,
};
use entrepot_config::{self as config, ByteSize};
use entrepot_oci::{Algorithm, NodeName};
use entrepot_runtime::testing::eventually;
use entrepot_runtime::{BackgroundBlocking, Clock, Tasks};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Size of the ranges that these tests fetch.
const RANGE: u64 = 64 << 10;
/// Size of the pieces of the bucket's bodies.
const PIECE: usize = 8 << 10;
/// How long a condition may take to become true.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts requests, and lets the pieces of bodies pass one by one.
struct Gate {
    inner: Arc<dyn Bucket>,
    gets: Mutex<Vec<(String, Option<Range<u64>>)>>,
    heads: AtomicU64,
    /// Bodies of ranges that begin before this offset wait for a permit per piece.
    held_before: AtomicU64,
    permits: Semaphore,
    /// Bodies of content that are being read, or could be.
    bodies: Arc<()>,
}

impl Gate {
    fn bodies(&self) -> usize {
        Arc::strong_count(&self.bodies) - 1
    }

    /// From now on bodies that begin before `offset` wait.
    fn hold_before(&self, offset: u64) {
        self.held_before.store(offset, Ordering::SeqCst);
    }

    fn let_pass(&self, pieces: usize) {
        self.permits.add_permits(pieces);
    }

    /// From now on no piece passes.
    fn close(&self) {
        self.hold_before(u64::MAX);
        self.permits.forget_permits(usize::MAX);
    }

    fn open(&self) {
        self.held_before.store(0, Ordering::SeqCst);
        self.permits.add_permits(1 << 20);
    }

    /// Number of gets so far of keys that contain `part`.
    fn gets(&self, part: &str) -> usize {
        self.gets.lock().iter().filter(|(key, _)| key.contains(part)).count()
    }
}

#[async_trait]
impl Bucket for Handle {
    fn capabilities(&self) -> Capabilities {
        self.0.inner.capabilities()
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        self.0.heads.fetch_add(1, Ordering::SeqCst);
        self.0.inner.head(key).await
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        self.0.gets.lock().push((key.to_string(), options.range.clone()));
        let mut object = match self.0.inner.get(key, options).await? {
            Get::Found(object) => object,
            other => return Ok(other),
        };
        if !key.as_str().ends_with("/data") {
            return Ok(Get::Found(object));
        }
        let (gate, start, open) = (self.0.clone(), object.range.start, self.0.bodies.clone());
        let pieces = object.body.flat_map(|piece| {
            let pieces: Vec<_> = match piece {
                Ok(bytes) => (0..bytes.len())
                    .step_by(PIECE)
                    .map(|at| Ok(bytes.slice(at..(at + PIECE).min(bytes.len()))))
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(pieces)
        });
        object.body = pieces
            .then(move |piece| {
                let (gate, open) = (gate.clone(), open.clone());
                async move {
                    let _open = open;
                    if start < gate.held_before.load(Ordering::SeqCst) {
                        gate.permits.acquire().await.unwrap().forget();
                    }
                    piece
                }
            })
            .boxed();
        Ok(Get::Found(object))
    }

    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError> {
        self.0.inner.put(key, body, mode).await
    }

    async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        self.0.inner.delete(key).await
    }

    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        self.0.inner.delete_if_match(key, version).await
    }

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError> {
        self.0.inner.list(options).await
    }

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError> {
        self.0.inner.multipart_begin(key).await
    }

    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError> {
        self.0.inner.multipart_part(key, upload, number, body).await
    }

    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        self.0.inner.multipart_complete(key, upload, parts, mode).await
    }

    async fn multipart_abort(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        self.0.inner.multipart_abort(key, upload).await
    }

    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        self.0.inner.multipart_unfinished(key).await
    }
}

/// The gate in the form that the flow needs.
struct Handle(Arc<Gate>);

/// A node's fetch flow and its dependencies.
struct Setup {
    disk: Fixture,
    memory: Arc<Memory>,
    gate: Arc<Gate>,
    /// The requests through the handle for the background runtime.
    background_requests: BucketMetrics,
    faults: Faults,
    layout: Layout,
    store: Store,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    background: BackgroundBlocking,
    clock: Clock,
    damaged: Arc<Damaged>,
    fetch: Fetch,
    repository: Repository,
}

impl Setup {
    fn new() -> Setup {
        Setup::on(Fixture::roomy(), true)
    }

    fn on(disk: Fixture, parallel_ranges: bool) -> Setup {
        Setup::over(disk, parallel_ranges, |bucket| bucket)
    }

    /// A node with at most `requests` concurrent requests to the bucket.
    fn limited_to(requests: u32) -> Setup {
        Setup::over(Fixture::roomy(), true, |bucket| Arc::new(Limited::new(bucket, requests, 1 << 20)))
    }

    fn over(disk: Fixture, parallel_ranges: bool, wrap: impl FnOnce(Arc<dyn Bucket>) -> Arc<dyn Bucket>) -> Setup {
        let capabilities = Capabilities {
            conditional_put: true,
            conditional_delete: true,
            cheap_reads: false,
            part_threshold: u64::MAX,
            parallel_ranges,
            adopts_files: false,
        };
        let memory = Arc::new(Memory::with_capabilities(capabilities));
        let faults = Faults::default();
        let gate = Arc::new(Gate {
            inner: Arc::new(Faulty::new(memory.clone(), &faults)),
            gets: Mutex::default(),
            heads: AtomicU64::new(0),
            held_before: AtomicU64::new(0),
            permits: Semaphore::new(0),
            bodies: Arc::default(),
        });
        let bucket = wrap(Arc::new(Handle(gate.clone())));
        let background_requests = BucketMetrics::new().unwrap();
        let counted = Arc::new(Counted::new(bucket.clone(), background_requests.clone()));
        let handles = Handles { bucket, background: counted };
        let defaults = config::NodeConfig::default();
        let config = config::NodeConfig {
            node: config::Node { name: NodeName::parse("a").unwrap(), ..config::Node::default() },
            links: config::Links {
                fresh_for: config::Duration::from_secs(600),
                stale_if_error: config::Duration::from_secs(3600),
            },
            bucket: config::Bucket {
                retry_budget: config::Duration::from_millis(400),
                request_timeout: config::Duration::from_secs(60),
                ..defaults.bucket
            },
            fetch: config::Fetch { range_size: ByteSize::bytes(RANGE), ..defaults.fetch },
            ..defaults
        };
        let (store, clock, metrics) = (disk.open(), disk.clock.clone(), disk.metrics.clone());
        let env = Environment::new(Arc::new(config), handles, store, clock, Tasks::new(), metrics);
        let background = Background::on(tokio::runtime::Handle::current()).unwrap();
        let Flows { fetch, .. } = Flows::wire(&env, &background).unwrap();
        let Environment { layout, store, metrics, tasks, clock, damaged, .. } = env;
        let background = background.blocking;
        let repository = Repository::parse("library/alpine").unwrap();
        Setup {
            disk,
            memory,
            gate,
            background_requests,
            faults,
            layout,
            store,
            metrics,
            tasks,
            background,
            clock,
            damaged,
            fetch,
            repository,
        }
    }

    async fn put(&self, key: &Key, content: impl Into<Bytes>) {
        self.memory.put(key, PutBody::Bytes(content.into()), PutMode::Overwrite).await.unwrap();
    }

    async fn link(&self, kind: LinkKind, digest: &Digest) {
        self.put(&self.layout.link(&self.repository, kind, digest), link_content(digest)).await;
    }

    /// Puts a blob into the bucket and links it.
    async fn blob(&self, size: usize) -> (Digest, Bytes) {
        let (digest, bytes) = content(size as u64, size);
        self.put(&self.layout.data(&digest), bytes.clone()).await;
        self.link(LinkKind::Layer, &digest).await;
        (digest, bytes)
    }

    /// Puts bytes into the bucket under a digest that they do not match.
    async fn damaged_blob(&self, size: usize) -> Digest {
        let (digest, bytes) = self.blob(size).await;
        let mut bytes = bytes.to_vec();
        bytes[size / 2] ^= 1;
        self.put(&self.layout.data(&digest), bytes).await;
        digest
    }

    async fn open(&self, digest: &Digest) -> Content {
        self.fetch.blob(&self.repository, digest).await.unwrap()
    }

    async fn read(&self, digest: &Digest) -> Vec<u8> {
        let content = self.open(digest).await;
        let size = content.size;
        collect(content, 0..size).await.unwrap()
    }

    fn fills(&self, result: &str) -> u64 {
        self.metrics.fills.with_label_values(&[result]).get()
    }

    fn fetches(&self, result: &str) -> u64 {
        self.metrics.fetches.with_label_values(&[result]).get()
    }

    async fn stored(&self, digest: &Digest) {
        eventually("stored", || self.store.contents.size(digest).is_some() && self.metrics.fills_running.get() == 0)
            .await;
    }
}

async fn collect(content: Content, range: Range<u64>) -> std::io::Result<Vec<u8>> {
    let pieces: Vec<Bytes> = tokio::time::timeout(PATIENCE, content.read(range).try_collect()).await.unwrap()?;
    Ok(pieces.concat())
}
