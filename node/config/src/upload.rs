//! Uploads, and how their blobs are sent to the bucket.

use crate::{AllowedUrls, ByteSize, Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Uploads and their sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Upload {
    /// Maximum number of unfinished uploads on this node. A client may have as many as are free: half
    /// of them if it is alone. To start one more, the node ends one of the client's own sessions: an
    /// empty one, or one that was unused for a minute. If all of them are in use, a new upload gets 429
    /// with `Retry-After`. The bytes of unfinished uploads are limited in the same way, to half of the
    /// store.
    pub max_sessions: u32,
    /// A session that received no data for this long is removed, and earlier if space or sessions are
    /// needed for others. A restart does not reset its age.
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
    /// Maximum number of descriptors (config, layers, or entries of an index) of a manifest. Larger
    /// manifests are rejected before the bucket is asked. Each descriptor costs one or two requests
    /// to the bucket. Container runtimes accept 127 layers; an index of a build cache or of many
    /// platforms, or an artifact of many files, has some hundred entries.
    pub max_references: u32,
    /// Hosts to which a manifest may refer in `urls`, for example `mcr.microsoft.com`,
    /// `*.example.com` or `files.example.com:8443`. The scheme must be `http` or `https`. A layer with
    /// a non-distributable media type (of old Windows images) and such URLs need not be in this
    /// registry: clients download it from the URLs. All other content is looked up here, whether it
    /// has URLs or not; a config must not have URLs. A manifest with URLs of other hosts is rejected,
    /// because it would make clients connect to any address, also to one that only they can reach.
    #[schemars(with = "Vec<String>")]
    pub allowed_urls: AllowedUrls,
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
            max_references: 500,
            allowed_urls: AllowedUrls::default(),
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

impl Replication {
    /// Whether a blob is acknowledged before the bucket has it.
    pub fn is_write_back(&self) -> bool {
        self.mode == ReplicationMode::WriteBack
    }
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
