//! `NodeConfig`: the one type that the operator writes and the node reads.
//!
//! Every field is documented here and nowhere else: `docs/configuration.md` is generated from these comments, and a
//! test fails when they drift apart.

mod live;
mod sparse;
mod status;
mod units;
mod validate;

pub use live::LIVE_FIELDS;
pub use status::{BucketState, BucketStatus, ConfigStatus, NodeStatus, StoreStatus};
pub use units::{ByteSize, Duration, Threshold};
pub use validate::ConfigError;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The configuration of a node. With no file at all, a node is a working registry on 127.0.0.1:5000 that keeps
/// everything under `./entrepot-data`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeConfig {
    /// Who this node is, and how it reaches its peers.
    pub node: Node,
    /// The two listeners and what a client may do with them.
    pub http: Http,
    /// The object storage that all nodes share.
    pub bucket: Bucket,
    /// This node's local disk store.
    pub store: Store,
    /// Uploads and their sessions.
    pub upload: Upload,
    /// How uploads reach the bucket.
    pub replication: Replication,
    /// How content that is not stored is read from the bucket.
    pub fetch: Fetch,
    /// How tags are read and who may change them.
    pub tags: Tags,
    /// Refuse everything that writes: pushes and deletions answer 405 with the code UNSUPPORTED.
    pub read_only: bool,
    /// What the node writes to its standard error.
    pub log: Log,
    /// How the node stops.
    pub shutdown: Shutdown,
}

/// Who this node is, and how it reaches its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Node {
    /// The name of this node, a DNS label that no other node of the bucket has: in a StatefulSet, the pod's name.
    /// Upload sessions carry it. `${VAR}` is replaced by the environment variable VAR.
    pub name: String,
    /// How to reach another node: a URL in which `{node}` stands for its name, as in
    /// `http://{node}.images.registry.svc:5000`. Without it, an upload session must be continued at the node where it
    /// began.
    pub peers: Option<String>,
}

impl Default for Node {
    fn default() -> Node {
        Node { name: "local".into(), peers: None }
    }
}

/// The two listeners and what a client may do with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Http {
    /// Where clients push and pull.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are. Keep it away from clients.
    pub operations: SocketAddr,
    /// Connections at once; more wait in the accept queue of the system.
    pub max_connections: u32,
    /// Requests at once; more are answered 503 with `Retry-After`.
    pub max_requests: u32,
    /// A client has this long to send the head of a request: of the first one from when it connects, of any other from
    /// its first byte.
    pub header_timeout: Duration,
    /// A connection on which nothing is asked for this long is closed. A load balancer must close its idle connections
    /// first, because a request that crosses the close is lost: nginx and AWS keep them for 60 s, Google for 600 s.
    /// When all of `maxConnections` are in use, the connection that was idle for the longest is closed for a new one.
    pub idle_timeout: Duration,
    /// A client that neither sends nor takes a byte of a body for this long is cut off.
    pub stall_timeout: Duration,
    /// Origins (`https://ui.example.com`) whose web pages may read answers of this registry in a browser (CORS); `*`
    /// is every origin. Empty: none may.
    pub allowed_origins: Vec<String>,
    /// Names under which clients know this registry in addition to the address of the connection, such as
    /// `registry.example.com` in images that containerd pulls from a mirror: `?ns=` of any other name is answered 404.
    pub namespaces: Vec<String>,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: SocketAddr::from(([127, 0, 0, 1], 5000)),
            operations: SocketAddr::from(([127, 0, 0, 1], 5001)),
            max_connections: 4096,
            max_requests: 1024,
            header_timeout: Duration::from_secs(15),
            // 20 s beyond the longest of the usual load balancers, Google's.
            idle_timeout: Duration::from_secs(620),
            stall_timeout: Duration::from_secs(60),
            allowed_origins: Vec::new(),
            namespaces: Vec::new(),
        }
    }
}

/// The object storage that all nodes share: exactly one of `s3` and `fileSystem`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Bucket {
    /// Amazon S3 or a compatible service.
    pub s3: Option<S3>,
    /// A folder, for one node or for several that mount the same file system.
    pub file_system: Option<FileSystem>,
    /// What all keys begin with, before `docker/registry/v2/`: empty, or a path that ends with `/`. CNCF
    /// Distribution's `rootdirectory` without its leading slash.
    pub prefix: String,
    /// Requests to the bucket at once.
    pub max_requests: u32,
    /// Bytes being sent to the bucket at once, by all uploads together.
    pub max_bytes_in_flight: ByteSize,
    /// How long one request may take to begin its answer, and a body to go on.
    pub request_timeout: Duration,
    /// For how long in all a failing request is tried again, with growing and random pauses. After it the client gets
    /// 503 with `Retry-After`.
    pub retry_budget: Duration,
}

impl Default for Bucket {
    fn default() -> Bucket {
        Bucket {
            s3: None,
            file_system: Some(FileSystem::default()),
            prefix: String::new(),
            max_requests: 128,
            max_bytes_in_flight: ByteSize::mebibytes(256),
            request_timeout: Duration::from_secs(30),
            retry_budget: Duration::from_secs(15),
        }
    }
}

/// Amazon S3 or a compatible service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct S3 {
    /// Name of the bucket; it must exist.
    pub name: String,
    /// Region of the bucket. Without it, the AWS environment says.
    pub region: Option<String>,
    /// URL of a compatible service, as in `http://s3.storage:7070`. Without it, Amazon's for the region. It is reached
    /// through the proxy that `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` in the environment name.
    pub endpoint: Option<String>,
    /// Whether the bucket's name goes into the path and not into the host name; most compatible services need it.
    pub path_style: bool,
    /// PEM file of the certificate authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Static keys from files, read again when they change. Without it, the standard AWS environment: variables,
    /// shared files, web identity, container and instance roles.
    pub credentials: Option<S3Credentials>,
    /// Whether objects and parts are sent with checksums (SHA-256, CRC-32C), so that the service refuses bytes that are
    /// not those that the node received. `Off` is for a service that fails with them in a way that does not say so.
    pub checksums: S3Checksums,
}

/// Whether objects and parts are sent with checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum S3Checksums {
    /// Until the service refuses a checksum.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Static keys from files, as Kubernetes mounts a Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct S3Credentials {
    /// File that holds the access key id.
    pub access_key_id_file: PathBuf,
    /// File that holds the secret access key.
    pub secret_access_key_file: PathBuf,
    /// File that holds a session token, if there is one.
    pub session_token_file: Option<PathBuf>,
}

/// A folder as the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FileSystem {
    /// The folder; it is made when it is not there. CNCF Distribution's `rootdirectory`.
    pub path: PathBuf,
}

impl Default for FileSystem {
    fn default() -> FileSystem {
        FileSystem { path: "entrepot-data/bucket".into() }
    }
}

/// This node's local disk store. It can be deleted at any time that the node is stopped: what it held is durable in
/// the bucket, but for uploads under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Store {
    /// The folder; it is made when it is not there. Only one node may use it.
    pub path: PathBuf,
    /// How much the store may hold. Without it, what is stored and what the file system has left for more.
    pub capacity: Option<ByteSize>,
    /// The first threshold: when less than this is free, cleaning starts. Bytes (`10Gi`) or a part of the capacity
    /// (`10%`).
    pub low_free: Threshold,
    /// The second threshold: cleaning stops when this much is free.
    pub target_free: Threshold,
    /// Which content is removed first.
    pub eviction_policy: EvictionPolicy,
    /// How what is stored is verified in the background.
    pub scrub: Scrub,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            path: "entrepot-data/store".into(),
            capacity: None,
            low_free: Threshold::percent(10),
            target_free: Threshold::percent(20),
            eviction_policy: EvictionPolicy::default(),
            scrub: Scrub::default(),
        }
    }
}

/// How what is stored is verified in the background: read, compared with its digest, and if it is damaged, removed and
/// read from the bucket again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Scrub {
    /// How long one round over everything takes: a store of 1Ti is read at 1.8 MB/s in a week. At least 1h; 0s verifies
    /// nothing in the background.
    pub period: Duration,
}

impl Default for Scrub {
    fn default() -> Scrub {
        Scrub { period: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Which content is removed first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EvictionPolicy {
    /// What was not asked for the longest.
    LeastRecentlyUsed,
    /// What was asked for the fewest times, a request counting half after eight more for each content that is stored.
    #[default]
    LeastFrequentlyUsed,
}

/// Uploads and their sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Upload {
    /// Unfinished uploads that this node keeps at once. For one more, an empty one or the longest unused one ends. When
    /// all are in use, a new one is answered 429 with `Retry-After`.
    pub max_sessions: u32,
    /// A session that received nothing for this long is removed. A restart does not renew its age.
    pub session_expiry: Duration,
    /// The last `PUT` of an upload is answered within this time, with 503 and `Retry-After` when the bucket does not have
    /// the blob yet. The upload goes on, and the repeated `PUT` finds its result. A manifest, a mount and a `HEAD` wait no
    /// longer for a blob that is on its way to the bucket. Load balancers cut requests that are silent for 60 seconds; set
    /// this below the time of the one in front of the nodes.
    pub answer_within: Duration,
    /// The largest blob accepted.
    pub max_blob_size: ByteSize,
    /// Whether an index is accepted that lists manifests which the repository does not have.
    pub sparse_indexes: SparseIndexes,
    /// Whether the referrers of a manifest (signatures, SBOMs) are also kept in an index under the tag `<alg>-<hex>`, as
    /// clients keep them at registries without the referrers API. Turn it on before you move a bucket back to CNCF
    /// Distribution. It costs up to six more requests to the bucket for each referrer that is pushed or deleted.
    pub referrers_tag: bool,
}

/// Whether an index is accepted that lists manifests which the repository does not have. Tools that copy some platforms
/// of an image push such an index (`skopeo copy --multi-arch index-only`, `regctl image copy --platforms`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SparseIndexes {
    /// Only if this registry has no content of the missing manifests at all. A manifest that it has, and that was deleted
    /// from this repository or never pushed to it, must be pushed first.
    #[default]
    AllowUnknown,
    /// Always.
    Allow,
    /// Never: every manifest of an index must be in the repository.
    Refuse,
}

impl Default for Upload {
    fn default() -> Upload {
        Upload {
            max_sessions: 1024,
            session_expiry: Duration::from_secs(24 * 3600),
            answer_within: Duration::from_secs(50),
            max_blob_size: ByteSize::tebibytes(1),
            sparse_indexes: SparseIndexes::default(),
            referrers_tag: false,
        }
    }
}

/// How uploads reach the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Replication {
    /// When a blob is acknowledged.
    pub mode: ReplicationMode,
    /// Blobs sent at once.
    pub parallel_blobs: u32,
    /// Parts of one blob sent at once.
    pub parallel_parts: u32,
    /// Size of a part; blobs up to this size are sent in one request. S3 allows 5Mi to 5Gi and 10,000 parts; parts of
    /// a very large blob are made larger as needed.
    pub part_size: ByteSize,
}

impl Default for Replication {
    fn default() -> Replication {
        Replication {
            mode: ReplicationMode::default(),
            parallel_blobs: 16,
            parallel_parts: 4,
            part_size: ByteSize::mebibytes(32),
        }
    }
}

/// When a blob is acknowledged. A manifest is acknowledged only when it and all that it refers to is durable, in
/// either mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplicationMode {
    /// When the bucket has it.
    #[default]
    WriteThrough,
    /// When it is synced to this node's disk; the bucket gets it soon after.
    WriteBack,
}

/// How content that is not stored is read from the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Fetch {
    /// Ranges of one object read at once.
    pub parallel_ranges: u32,
    /// Size of such a range, after a first one of at most 1Mi, which is all that a smaller object needs.
    pub range_size: ByteSize,
    /// For how long a node relies on having seen that a repository links some content, before it looks again. This
    /// bounds for how long content that was deleted at another node is still served from this store.
    pub links_fresh_for: Duration,
}

impl Default for Fetch {
    fn default() -> Fetch {
        Fetch { parallel_ranges: 4, range_size: ByteSize::mebibytes(16), links_fresh_for: Duration::from_secs(600) }
    }
}

/// How tags are read and who may change them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Tags {
    /// For how long a tag that was read is taken to be unchanged. 0s asks the bucket each time, so that every node
    /// serves the newest push.
    pub fresh_for: Duration,
    /// While the bucket cannot be reached, the last known value of a tag is served up to this age, with a `Warning`
    /// header; content whose repository was checked longer ago than `linksFreshFor` is also served up to this age.
    pub stale_if_error: Duration,
    /// Tags that match one of these patterns (`v*`, `release-?.?`) can be pushed once and never changed or deleted.
    pub immutable: Vec<String>,
}

impl Default for Tags {
    fn default() -> Tags {
        Tags { fresh_for: Duration::from_secs(0), stale_if_error: Duration::from_secs(3600), immutable: Vec::new() }
    }
}

/// What the node writes to its standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Log {
    /// Text for a person or JSON for a collector.
    pub format: LogFormat,
    /// What is written: a level (`info`) or directives of tracing's filter (`info,entrepot_node::fetch=debug`). The
    /// environment variable RUST_LOG goes before it.
    pub level: String,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::default(), level: "info".into() }
    }
}

/// Text for a person or JSON for a collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// How the node stops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Shutdown {
    /// After SIGTERM the node is not ready but still serves for this long, so that load balancers notice.
    pub drain_delay: Duration,
    /// After that, requests in flight and pending uploads have this long to finish.
    pub grace_period: Duration,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { drain_delay: Duration::from_secs(0), grace_period: Duration::from_secs(25) }
    }
}

impl NodeConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// When the YAML is not well formed, has a field that there is none of, or a value that cannot be; the error
    /// names the field's path.
    pub fn from_yaml(text: &str) -> Result<NodeConfig, ConfigError> {
        validate::from_yaml(text, |name| std::env::var(name).ok())
    }

    /// Writes the configuration as YAML that [`NodeConfig::from_yaml`] reads back.
    ///
    /// # Errors
    /// When the serializer fails, which these types give it no cause for.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        validate::to_yaml(self)
    }
}
