//! Downloads from the bucket, and what a node remembers of its links and tags.

use crate::{ByteSize, Duration, TagPatterns};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How content that is not in the store is downloaded from the bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Fetch {
    /// Maximum number of ranges of one object that are downloaded at the same time.
    pub parallel_ranges: u32,
    /// Size of a range. The first range has at most 1Mi, so one request is enough for a smaller
    /// object.
    pub range_size: ByteSize,
}

impl Default for Fetch {
    fn default() -> Fetch {
        Fetch { parallel_ranges: 4, range_size: ByteSize::mebibytes(16) }
    }
}

/// How long a node relies on the links that it has read. A link is an object in the bucket: it says
/// that a repository contains a blob or a manifest, or to which manifest a tag points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Links {
    /// How long a node trusts its record that a repository contains a blob or manifest before it
    /// asks the bucket again. It is also the longest time for which this node still serves stored
    /// content that was deleted through another node. With a directory as the bucket, the node asks
    /// on every request.
    pub fresh_for: Duration,
    /// Maximum age of a link that is still used while the bucket is unreachable: the last known value
    /// of a tag is served with a `Warning` header, and stored content is served although the check
    /// of its repository is older than `freshFor`.
    pub stale_if_error: Duration,
}

impl Default for Links {
    fn default() -> Links {
        Links { fresh_for: Duration::from_secs(600), stale_if_error: Duration::from_secs(3600) }
    }
}

/// Caching of tags, and immutable tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Tags {
    /// How long a tag is served from memory before the bucket is asked again. `0s` asks the bucket
    /// on every request, so every node serves the newest push.
    pub fresh_for: Duration,
    /// Patterns of immutable tags, for example `v*` or `release-?.?`. A matching tag can be pushed
    /// once; it can neither be moved to another manifest nor deleted.
    #[schemars(with = "Vec<String>")]
    pub immutable: TagPatterns,
}

impl Default for Tags {
    fn default() -> Tags {
        Tags { fresh_for: Duration::from_secs(0), immutable: TagPatterns::default() }
    }
}
