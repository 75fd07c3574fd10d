//! `NodeConfig`: the one type that the operator writes and the node reads.
//!
//! Every field is documented here and nowhere else: `docs/reference/configuration.md` is generated from these
//! comments, and a test fails if the two differ. This crate never touches the disk or the network.

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

/// The configuration of a node. Without a configuration file, a node is a working registry on
/// 127.0.0.1:5000 that keeps all data under `./entrepot-data`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeConfig {
    /// The name of this node and the addresses of its peers.
    pub node: Node,
    /// The two listeners and their limits.
    pub http: Http,
    /// The object storage that all nodes share.
    pub bucket: Bucket,
    /// The local disk store of this node.
    pub store: Store,
    /// Uploads and their sessions.
    pub upload: Upload,
    /// How blobs are sent to the bucket.
    pub replication: Replication,
    /// How content that is not in the store is downloaded from the bucket.
    pub fetch: Fetch,
    /// Caching of tags, and immutable tags.
    pub tags: Tags,
    /// Reject pushes and deletions: they get 405 with the error code UNSUPPORTED.
    pub read_only: bool,
    /// The log, which the node writes to standard error.
    pub log: Log,
    /// How the node stops.
    pub shutdown: Shutdown,
}

/// The name of this node and the addresses of its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Node {
    /// The name of this node: a DNS label, unique among the nodes that share the bucket. In a
    /// StatefulSet, use the name of the pod. The id of an upload session contains this name.
    /// `${VAR}` is replaced by the environment variable VAR.
    pub name: String,
    /// URL of another node, in which `{node}` stands for the name of that node, for example
    /// `http://{node}.images.registry.svc:5000`. Requests that belong to an upload session of
    /// another node are forwarded to this URL. If unset, a client must send all requests of an
    /// upload to the same node.
    pub peers: Option<String>,
}

impl Default for Node {
    fn default() -> Node {
        Node { name: "local".into(), peers: None }
    }
}

/// The two listeners and their limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Http {
    /// Address and port of the registry API, at which clients push and pull. Plain HTTP, without
    /// authentication.
    pub listen: SocketAddr,
    /// Address and port of `/livez`, `/readyz`, `/metrics` and `/status`. Do not expose it to
    /// clients.
    pub operations: SocketAddr,
    /// Maximum number of open connections. Further connections wait in the accept queue of the
    /// operating system.
    pub max_connections: u32,
    /// Maximum number of concurrent requests. Further requests get 503 with `Retry-After`.
    pub max_requests: u32,
    /// Time limit for receiving the headers of a request: measured from the start of the connection
    /// for the first request, and from the first byte for each later one.
    pub header_timeout: Duration,
    /// A connection without a request is closed after this time. It must be longer than the idle
    /// timeout of the load balancer in front of the nodes, because a request that arrives while the
    /// node closes the connection is lost. The usual timeouts are 60 s (nginx, AWS) and 600 s
    /// (Google). If all of `maxConnections` are in use, a new connection closes the one that was
    /// idle for the longest time.
    pub idle_timeout: Duration,
    /// A connection is closed if the client neither sends nor receives a byte of a body for this
    /// long.
    pub stall_timeout: Duration,
    /// Origins, such as `https://ui.example.com`, whose web pages may read responses of this
    /// registry in a browser (CORS). `*` allows every origin. If empty, no origin is allowed.
    pub allowed_origins: Vec<String>,
    /// Names of this registry in addition to the address to which the client connects, such as
    /// `registry.example.com`. They are needed if containerd reaches the registry through a mirror
    /// (`hosts.toml`) under a name that differs from the one in the image reference: a request with
    /// `?ns=` and any other name gets 404.
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
            // 20 s longer than the longest usual idle timeout, which is Google's: 600 s.
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
    /// A directory, for one node or for several nodes that mount the same file system.
    pub file_system: Option<FileSystem>,
    /// Prefix of all object keys, before `docker/registry/v2/`: empty, or a relative path that ends
    /// with `/`. It corresponds to `rootdirectory` of CNCF Distribution without the leading slash.
    pub prefix: String,
    /// Maximum number of concurrent requests to the bucket.
    pub max_requests: u32,
    /// Maximum number of bytes that all uploads together send to the bucket at the same time.
    pub max_bytes_in_flight: ByteSize,
    /// Time limit for connecting to the bucket, for the start of a response, and for each pause
    /// within a request body or a response body.
    pub request_timeout: Duration,
    /// Total time for which a failed request to the bucket is retried, with growing and randomized
    /// pauses. After it, the client gets 503 with `Retry-After`.
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
    /// Name of the bucket. The bucket must exist.
    pub name: String,
    /// Region of the bucket. If unset: the region from the AWS environment variables or the AWS
    /// configuration files, else, without `endpoint`, the region from the instance metadata, else
    /// `us-east-1`.
    pub region: Option<String>,
    /// URL of an S3-compatible service, for example `http://s3.storage:7070`. If unset, the AWS
    /// endpoint of the region is used. Connections use the proxy that the environment variables
    /// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` select.
    pub endpoint: Option<String>,
    /// Use path-style instead of virtual-hosted-style addressing. Most S3-compatible services
    /// require it.
    pub path_style: bool,
    /// PEM file with CA certificates to trust in addition to those of the system. It is read once,
    /// at the start.
    pub ca_file: Option<PathBuf>,
    /// Static keys from files, which are read again when they change. If unset, the standard AWS
    /// credential chain is used: environment variables, shared files, web identity, container roles
    /// and instance roles.
    pub credentials: Option<S3Credentials>,
    /// Whether objects and parts are sent with checksums (SHA-256, CRC-32C). With a checksum, the
    /// service rejects bytes that differ from those that the node received. Use `Off` for a service
    /// that fails on checksums with an error that does not name them.
    pub checksums: S3Checksums,
}

/// Whether objects and parts are sent with checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum S3Checksums {
    /// Send checksums until the service rejects one as unsupported.
    #[default]
    Auto,
    /// Never send checksums.
    Off,
}

/// Static keys from files, such as the files of a mounted Kubernetes Secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct S3Credentials {
    /// File with the access key ID. Required.
    pub access_key_id_file: PathBuf,
    /// File with the secret access key. Required.
    pub secret_access_key_file: PathBuf,
    /// File with the session token. If unset, no session token is used.
    pub session_token_file: Option<PathBuf>,
}

/// A directory that is used as the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FileSystem {
    /// The directory. It is created if it does not exist. It corresponds to `rootdirectory` of CNCF
    /// Distribution.
    pub path: PathBuf,
}

impl Default for FileSystem {
    fn default() -> FileSystem {
        FileSystem { path: "entrepot-data/bucket".into() }
    }
}

/// The local disk store of this node. It can be deleted while the node is stopped. Deleting it
/// loses unfinished uploads and, with `replication.mode: WriteBack`, blobs that the bucket does not
/// have yet. Everything else in it is also in the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Store {
    /// The directory. It is created if it does not exist. Only one node can use it at a time.
    pub path: PathBuf,
    /// Maximum size of the store. If unset: the bytes already stored plus the free space of the
    /// file system.
    pub capacity: Option<ByteSize>,
    /// Free space below which eviction starts: bytes (`10Gi`) or a percentage of the capacity
    /// (`10%`). A running node applies a change of this field without a restart.
    pub low_free: Threshold,
    /// Free space at which eviction stops: bytes or a percentage of the capacity. It must be at
    /// least `lowFree` and less than the capacity. A running node applies a change of this field
    /// without a restart.
    pub target_free: Threshold,
    /// Which content is evicted first.
    pub eviction_policy: EvictionPolicy,
    /// Verification of stored content in the background.
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

/// Verification of stored content in the background: the node reads the content and compares it
/// with its digest. Damaged content is removed and downloaded from the bucket again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Scrub {
    /// Duration of one round over all stored content. The shorter the period, the higher the read
    /// rate: 1Ti in 168h (a week) is 1.8 MB/s. At least `1h`; `0s` disables the verification.
    pub period: Duration,
}

impl Default for Scrub {
    fn default() -> Scrub {
        Scrub { period: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Which content is evicted first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EvictionPolicy {
    /// Evict the content whose last request is the oldest.
    LeastRecentlyUsed,
    /// Evict the least frequently requested content. Counts decay with use: an earlier request
    /// counts half after as many further requests as eight times the number of stored blobs and
    /// manifests.
    #[default]
    LeastFrequentlyUsed,
}

/// Uploads and their sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Upload {
    /// Maximum number of unfinished uploads on this node. To start one more, the node ends an empty
    /// session, or else the one that was unused for the longest time. If all sessions are in use, a
    /// new upload gets 429 with `Retry-After`.
    pub max_sessions: u32,
    /// A session that received no data for this long is removed. A restart does not reset its age.
    pub session_expiry: Duration,
    /// Time limit for the response to the last `PUT` of an upload. If the bucket does not have the
    /// blob by then, the client gets 503 with `Retry-After`; the transfer to the bucket continues,
    /// and a repeated `PUT` finds its result. The same limit applies to a manifest, a mount and a
    /// `HEAD` that wait for a blob that is being transferred to the bucket. Set it below the
    /// response timeout of the load balancer in front of the nodes, which is 60 s by default for
    /// nginx and AWS.
    pub answer_within: Duration,
    /// Maximum size of a blob. Larger blobs are rejected.
    pub max_blob_size: ByteSize,
    /// Whether to accept an index that lists manifests which the repository does not have.
    pub sparse_indexes: SparseIndexes,
    /// Also keep the referrers of a manifest (signatures, SBOMs) in an index under the tag
    /// `<alg>-<hex>`, as clients do at registries without the referrers API. Enable it before you
    /// move a bucket back to CNCF Distribution, which does not have that API. It costs up to six
    /// more requests to the bucket for each referrer that is pushed or deleted.
    pub referrers_tag: bool,
}

/// Whether to accept an index that lists manifests which the repository does not have. Tools that
/// copy only some platforms of an image push such an index (`skopeo copy --multi-arch index-only`,
/// `regctl image copy --platforms`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SparseIndexes {
    /// Accept the index if this registry does not have the content of any missing manifest. A
    /// manifest whose content the registry has, but which was deleted from this repository or never
    /// pushed to it, must be pushed first.
    #[default]
    AllowUnknown,
    /// Always accept the index.
    Allow,
    /// Reject the index: every manifest that it lists must be in the repository.
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

/// How blobs are sent to the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Replication {
    /// When a pushed blob is acknowledged. Manifests are acknowledged only when they and all
    /// content that they reference are in the bucket, in either mode.
    pub mode: ReplicationMode,
    /// Maximum number of blobs that are sent to the bucket at the same time.
    pub parallel_blobs: u32,
    /// Maximum number of parts of one blob that are sent to the bucket at the same time.
    pub parallel_parts: u32,
    /// Size of a part of a multipart upload, from 5Mi to 5Gi as S3 requires. Blobs up to this size
    /// are sent in one request. S3 allows 10,000 parts, so the parts of a very large blob are
    /// larger.
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

/// When a pushed blob is acknowledged. Manifests are acknowledged only when they and all content
/// that they reference are in the bucket, in either mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplicationMode {
    /// When the bucket has the blob.
    #[default]
    WriteThrough,
    /// When the blob is synced to the disk of this node. The node sends it to the bucket
    /// afterwards. If the disk is lost before that, the blob is lost.
    WriteBack,
}

/// How content that is not in the store is downloaded from the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Fetch {
    /// Maximum number of ranges of one object that are downloaded at the same time.
    pub parallel_ranges: u32,
    /// Size of a range. The first range has at most 1Mi, so one request is enough for a smaller
    /// object.
    pub range_size: ByteSize,
    /// How long a node trusts its record that a repository contains a blob or manifest before it
    /// asks the bucket again. It is also the longest time for which this node still serves stored
    /// content that was deleted through another node. With a directory as the bucket, the node asks
    /// on every request.
    pub links_fresh_for: Duration,
}

impl Default for Fetch {
    fn default() -> Fetch {
        Fetch { parallel_ranges: 4, range_size: ByteSize::mebibytes(16), links_fresh_for: Duration::from_secs(600) }
    }
}

/// Caching of tags, and immutable tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Tags {
    /// How long a tag is served from memory before the bucket is asked again. `0s` asks the bucket
    /// on every request, so every node serves the newest push.
    pub fresh_for: Duration,
    /// Maximum age of the last known value of a tag that is served while the bucket is unreachable.
    /// The response has a `Warning` header. The same limit applies to stored content if the check
    /// of its repository is older than `fetch.linksFreshFor`.
    pub stale_if_error: Duration,
    /// Patterns of immutable tags, for example `v*` or `release-?.?`. A matching tag can be pushed
    /// once; it can neither be moved to another manifest nor deleted.
    pub immutable: Vec<String>,
}

impl Default for Tags {
    fn default() -> Tags {
        Tags { fresh_for: Duration::from_secs(0), stale_if_error: Duration::from_secs(3600), immutable: Vec::new() }
    }
}

/// The log, which the node writes to standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Log {
    /// Format of the log: text for people, or JSON for log collectors.
    pub format: LogFormat,
    /// Log level (`error`, `warn`, `info`, `debug`, `trace`), or filter directives such as
    /// `info,entrepot_node::fetch=debug`. The environment variable RUST_LOG overrides this field.
    pub level: String,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::default(), level: "info".into() }
    }
}

/// Format of the log: text for people, or JSON for log collectors.
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
    /// Time after SIGTERM in which the node is not ready but still serves, so that load balancers
    /// stop sending requests to it.
    pub drain_delay: Duration,
    /// Time after the drain delay in which requests in flight and pending uploads can finish. Open
    /// connections are closed at its end.
    pub grace_period: Duration,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { drain_delay: Duration::from_secs(0), grace_period: Duration::from_secs(25) }
    }
}

impl NodeConfig {
    /// Parses and validates a configuration.
    ///
    /// # Errors
    /// If the text is not valid YAML, or contains an unknown field or an invalid value. The error
    /// names the path of the field.
    pub fn from_yaml(text: &str) -> Result<NodeConfig, ConfigError> {
        validate::from_yaml(text, |name| std::env::var(name).ok())
    }

    /// Writes the configuration as YAML that [`NodeConfig::from_yaml`] can read.
    ///
    /// # Errors
    /// If the serializer fails. It cannot fail for these types.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        validate::to_yaml(self)
    }
}
