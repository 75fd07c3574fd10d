//! What tests of the flows share: a store in a temporary directory, a bucket in memory, and the
//! flows of one node.

use crate::app::flows::{Background, Flows};
use crate::manage::Manage;
use crate::observe::Metrics;
use crate::replicate::Replicate;
use crate::repository::tags::Conditions;
use crate::repository::{Environment, Layout, Links, Tags};
use crate::store::Store;
use crate::upload::{ManifestPush, Uploads};
use bytes::Bytes;
use entrepot_bucket::Bucket;
use entrepot_bucket::fault::{Faults, Faulty};
use entrepot_bucket::memory::Memory;
use entrepot_bucket::{Counted, Operation};
use entrepot_config::{
    self as config, BucketConfig, ByteSize, NodeConfig, PeerUrl, ReplicationMode, SparseIndexes, TagPatterns,
};
use entrepot_oci::{Algorithm, Digest, NodeName, Reference, Repository, SessionId};
use entrepot_runtime::clock::Timestamp;
use entrepot_runtime::share::Holder;
use entrepot_runtime::{Clock, Tasks};
use futures::{Stream, stream};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// A part size so small that a test sees several parts.
pub const PART: u64 = 1000;

pub fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

/// The sizes of all content whose digest a test has computed.
static SIZES: LazyLock<Mutex<HashMap<Digest, usize>>> = LazyLock::new(Mutex::default);

pub fn sha256(content: &[u8]) -> Digest {
    let digest = Digest::of(Algorithm::Sha256, content);
    SIZES.lock().insert(digest, content.len());
    digest
}

/// A descriptor of content, with its size.
pub fn descriptor(digest: &Digest) -> serde_json::Value {
    let size = SIZES.lock().get(digest).copied().unwrap_or(1);
    serde_json::json!({"mediaType": "m", "digest": digest.to_string(), "size": size})
}

/// The client of a test that needs only one.
pub fn client() -> Holder {
    Holder::of_identity("client")
}

/// A pushed manifest with only the required fields.
pub fn manifest_push(reference: Reference, content: &Bytes) -> ManifestPush {
    sha256(content);
    ManifestPush {
        reference,
        tags: Vec::new(),
        content_type: None,
        content: content.clone(),
        conditions: Conditions::default(),
    }
}

/// A body that arrives in these pieces.
pub fn body(pieces: &[&[u8]]) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin + use<> {
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces)
}

/// A body whose connection fails after these bytes.
pub fn broken_body(content: &[u8]) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin + use<> {
    stream::iter(vec![Ok(Bytes::copy_from_slice(content)), Err(io::ErrorKind::ConnectionReset.into())])
}

/// An empty bucket for a test of what happens between the requests of two nodes: in memory, or where
/// `ENTREPOT_TEST_BUCKET` says. That is an absolute path, or the URL of an S3 server whose credentials are in the environment
/// variables of AWS.
pub fn empty_bucket() -> Arc<dyn Bucket> {
    let Ok(place) = std::env::var("ENTREPOT_TEST_BUCKET") else { return Arc::new(Memory::default()) };
    let own = uuid::Uuid::new_v4().to_string();
    let config = if place.starts_with('/') {
        let folder = config::FileSystem { path: Path::new(&place).join(own) };
        config::Bucket::of(BucketConfig::FileSystem(folder))
    } else {
        let s3 = config::S3 {
            name: own,
            region: Some("us-east-1".into()),
            endpoint: Some(place),
            path_style: true,
            ..config::S3::default()
        };
        let config = config::Bucket::of(BucketConfig::S3(s3));
        entrepot_bucket::testing::create_s3_bucket(&config);
        config
    };
    entrepot_bucket::open(&config, entrepot_bucket::BucketMetrics::new().unwrap()).unwrap().bucket
}

/// A bucket in memory that fails as the handle is configured.
pub fn faulty() -> (Arc<dyn Bucket>, Faults) {
    let faults = Faults::default();
    (Arc::new(Faulty::new(Arc::new(Memory::default()), &faults)), faults)
}

/// A bucket in memory, and the number of requests per operation that it has handled.
pub fn counted() -> (Arc<dyn Bucket>, impl Fn(Operation) -> u64) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let bucket = Counted::new(Arc::new(Memory::default()), metrics.bucket.clone());
    let requests =
        move |operation: Operation| metrics.bucket.requests.with_label_values(&[operation.name(), "ok"]).get();
    (Arc::new(bucket), requests)
}

/// The flows of one node that write.
pub struct Node {
    pub bucket: Arc<dyn Bucket>,
    pub layout: Layout,
    pub store: Store,
    pub links: Links,
    pub tags: Tags,
    pub clock: Clock,
    pub tasks: Tasks,
    pub metrics: Arc<Metrics>,
    pub replicate: Replicate,
    pub uploads: Uploads,
    pub manage: Manage,
}

/// How a test's node differs from the default.
pub struct Setup {
    pub bucket: Arc<dyn Bucket>,
    pub mode: ReplicationMode,
    pub capacity: ByteSize,
    pub max_sessions: u32,
    pub immutable: &'static [&'static str],
    pub sparse_indexes: SparseIndexes,
    pub referrers_tag: bool,
    /// The node's name.
    pub name: &'static str,
    pub retry_budget: config::Duration,
    pub answer_within: config::Duration,
    /// The wall-clock time at the start.
    pub now: Timestamp,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            bucket: Arc::new(Memory::default()),
            mode: ReplicationMode::WriteThrough,
            capacity: ByteSize::mebibytes(64),
            max_sessions: 100,
            immutable: &[],
            sparse_indexes: SparseIndexes::default(),
            referrers_tag: false,
            name: "a",
            retry_budget: config::Duration::from_secs(15),
            answer_within: config::Duration::from_secs(50),
            now: Timestamp(1_000_000),
        }
    }
}

fn peer_url() -> PeerUrl {
    PeerUrl::parse("http://{node}.peers:5000").unwrap()
}

fn patterns(globs: &[&str]) -> TagPatterns {
    TagPatterns::new(globs.iter().map(|glob| (*glob).to_owned()).collect()).unwrap()
}

impl Node {
    /// A node whose store is this directory, which may be that of an earlier node.
    pub fn start(folder: &Path, setup: Setup) -> Node {
        let hour = config::Duration::from_secs(3600);
        let defaults = NodeConfig::default();
        let config = NodeConfig {
            node: config::Node {
                name: NodeName::parse(setup.name).unwrap(),
                peer_url: Some(peer_url()),
                ..config::Node::default()
            },
            bucket: config::Bucket { prefix: String::new(), retry_budget: setup.retry_budget, ..defaults.bucket },
            store: config::Store { path: folder.to_owned(), capacity: Some(setup.capacity), ..defaults.store },
            replication: config::Replication {
                mode: setup.mode,
                part_size: ByteSize::bytes(PART),
                ..defaults.replication
            },
            links: config::Links { fresh_for: hour, stale_if_error: hour },
            tags: config::Tags { immutable: patterns(setup.immutable), ..defaults.tags },
            upload: config::Upload {
                max_sessions: setup.max_sessions,
                sparse_indexes: setup.sparse_indexes,
                answer_within: setup.answer_within,
                referrers_tag: setup.referrers_tag,
                ..defaults.upload
            },
            ..defaults
        };
        let (clock, metrics) = (Clock::manual(setup.now), Arc::new(Metrics::new().unwrap()));
        let store = Store::open(&config.store, clock.clone(), metrics.clone()).unwrap();
        let env = Environment::new(Arc::new(config), setup.bucket, store, clock, Tasks::new(), metrics);
        let flows = Flows::wire(&env, &Background::start().unwrap()).unwrap();
        let Environment { bucket, layout, store, links, tags, clock, tasks, metrics, .. } = env;
        let Flows { replicate, uploads, manage, .. } = flows;
        Node { bucket, layout, store, links, tags, clock, tasks, metrics, replicate, uploads, manage }
    }

    /// Stops the node in order and closes its store.
    pub async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(30)).await);
        self.store.close().unwrap();
    }

    pub async fn open(&self, repository: &Repository) -> SessionId {
        self.uploads.open(repository, client()).await.unwrap().id
    }

    /// Pushes a blob in one piece.
    pub async fn push(&self, repository: &Repository, content: &[u8]) -> Digest {
        let (id, digest) = (self.open(repository).await, sha256(content));
        self.uploads.finish(repository, &id, &digest, None, body(&[content])).await.unwrap();
        digest
    }
}
