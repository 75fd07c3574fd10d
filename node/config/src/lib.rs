//! `NodeConfig`: the one type that the operator writes and the node reads.
//!
//! Every field is documented here and nowhere else: `docs/reference/configuration.md` is generated from these
//! comments, and a test fails if the two differ. This crate never touches the disk or the network.

mod allowed_urls;
mod audit;
mod auth;
mod bucket;
mod error;
mod fetch;
mod field;
mod http;
mod live;
mod network;
mod node;
mod operations;
mod patterns;
mod peer_address;
mod peer_url;
mod peers;
mod point_in_time;
mod read;
mod sparse;
mod status;
mod store;
mod tls;
mod units;
mod upload;
mod validate;

pub use allowed_urls::{AllowedUrls, AllowedUrlsError};
pub use audit::{Audit, AuditedPulls};
pub use auth::{
    Action, Auth, AuthTokens, AuthUsers, Kubernetes, KubernetesIssuers, NamePattern, NamePatternError, OidcIssuer,
    Part, Rule, Subject, SubjectError, UserTemplate, is_loopback,
};
pub use bucket::{Bucket, BucketConfig, FileSystem, S3, S3Checksums, S3Credentials};
pub use entrepot_oci::NodeName;
pub use error::ConfigError;
pub use fetch::{Fetch, Links, Tags};
pub use http::Http;
pub use live::{LIVE_FIELDS, is_live};
pub use network::{Network, NetworkError};
pub use node::Node;
pub use operations::Operations;
pub use patterns::{PatternError, TagPatterns};
pub use peer_address::{PeerAddress, PeerAddressError, PeerScheme};
pub use peer_url::{PeerUrl, PeerUrlError};
pub use peers::Peers;
pub use point_in_time::{PointInTime, PointInTimeError};
pub use status::{
    AuthStatus, BucketState, BucketStatus, CertificateStatus, ConfigStatus, NodeStatus, StoreStatus, TlsStatus,
};
pub use store::{EvictionPolicy, Scrub, Store};
pub use tls::{ClientCertificates, Tls};
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
    /// The listener of the registry API, and limits of both listeners.
    pub http: Http,
    /// The listener for probes and metrics.
    pub operations: Operations,
    /// The object storage that all nodes share.
    pub bucket: Bucket,
    /// Access control: who may pull, push and delete. If unset, every client may do everything.
    pub auth: Option<Auth>,
    /// The audit log.
    pub audit: Audit,
    /// The local disk store of this node.
    pub store: Store,
    /// Uploads and their sessions.
    pub upload: Upload,
    /// How blobs are sent to the bucket.
    pub replication: Replication,
    /// How content that is not in the store is downloaded from the bucket.
    pub fetch: Fetch,
    /// How long a node relies on the links that it has read.
    pub links: Links,
    /// Caching of tags, and immutable tags.
    pub tags: Tags,
    /// Reject pushes and deletions: they get 405 with the error code UNSUPPORTED.
    pub read_only: bool,
    /// The log, which the node writes to standard error.
    pub log: Log,
    /// How the node stops.
    pub shutdown: Shutdown,
}

/// The log, which the node writes to standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Log {
    /// Format of the log: text for people, or JSON for log collectors.
    pub format: LogFormat,
    /// Log level (`error`, `warn`, `info`, `debug`, `trace`), or filter directives such as
    /// `info,entrepot_node::fetch=debug`. The environment variable RUST_LOG overrides this field.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::default(), filter: "info".into() }
    }
}

/// Format of the log: text for people, or JSON for log collectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
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
