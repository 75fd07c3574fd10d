//! `NodeConfig`: the one type that the operator writes and the node reads.
//!
//! Every field is documented here and nowhere else: `docs/reference/configuration.md` is generated from these
//! comments, and a test fails if the two differ. This crate never touches the disk or the network.

mod bucket;
mod http;
mod live;
mod node;
mod patterns;
mod peer_url;
mod read;
mod sparse;
mod status;
mod store;
mod units;
mod upload;
mod validate;

pub use bucket::{Bucket, BucketConfig, FileSystem, S3, S3Checksums, S3Credentials};
pub use entrepot_oci::NodeName;
pub use http::Http;
pub use live::LIVE_FIELDS;
pub use node::Node;
pub use patterns::{PatternError, TagPatterns};
pub use peer_url::{PeerAddress, PeerUrl, PeerUrlError};
pub use read::ConfigError;
pub use status::{BucketState, BucketStatus, ConfigStatus, NodeStatus, StoreStatus};
pub use store::{EvictionPolicy, Scrub, Store};
pub use units::{ByteSize, Duration, Threshold};
pub use upload::{Replication, ReplicationMode, SparseIndexes, Upload};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    #[schemars(with = "Vec<String>")]
    pub immutable: TagPatterns,
}

impl Default for Tags {
    fn default() -> Tags {
        Tags {
            fresh_for: Duration::from_secs(0),
            stale_if_error: Duration::from_secs(3600),
            immutable: TagPatterns::default(),
        }
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
    /// Parses and validates a configuration. `${VAR}` in `node.name` is replaced by an environment
    /// variable of this process.
    ///
    /// # Errors
    /// If the text is not valid YAML, or contains an unknown field or an invalid value. The error
    /// names the path of the field.
    pub fn from_yaml(text: &str) -> Result<NodeConfig, ConfigError> {
        read::from_yaml(text)
    }

    /// Writes the configuration as YAML that [`NodeConfig::from_yaml`] can read.
    ///
    /// # Errors
    /// If the serializer fails. It cannot fail for these types.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        read::to_yaml(self)
    }
}
