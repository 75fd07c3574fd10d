//! The bucket: the only state that nodes share.
//!
//! One small trait, implemented by S3, a folder of a file system, and memory, and wrapped by decorators: `count`
//! (requests), `limit` (requests and bytes in flight), `fault` (injected failures, for tests), `retry`. One behaviour
//! suite (`contract`) runs against every implementation and says what callers may rely on.

mod checksum;
#[cfg(any(test, feature = "test-support"))]
pub mod contract;
mod count;
#[cfg(any(test, feature = "test-support"))]
pub mod fault;
mod file_system;
mod limit;
mod list;
pub mod memory;
mod open;
mod pieces;
mod retry;
pub mod s3;

pub use checksum::Checksum;
pub use count::Counted;
pub use file_system::FileSystem;
pub use limit::Limited;
pub use memory::Memory;
#[cfg(test)]
pub use open::create_s3_bucket;
pub use open::{OpenError, open};
pub(crate) use pieces::file_pieces;
pub use retry::Retried;

use crate::store::layout::Key;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::ops::Range;
use std::path::PathBuf;

/// Size of one read from a disk, and of the pieces that a body of a bucket on this machine comes in: 512 KiB reads reached
/// twice the throughput of nginx with `sendfile` in the prototype of serving stored blobs.
pub(crate) const READ_SIZE: usize = 512 << 10;

/// The bytes of an object as they arrive.
pub type BodyStream = BoxStream<'static, Result<Bytes, BucketError>>;

/// What identifies one version of an object; opaque, without quotes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(pub String);

/// What a bucket says of an object without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Size of the whole object in bytes.
    pub size: u64,
    pub etag: ETag,
}

/// How to get an object.
#[derive(Clone, Debug, Default)]
pub struct GetOptions {
    /// Only these bytes, end exclusive, clamped to the object's end. The start must lie within the object, but for
    /// `0..n` of an empty object, which is answered with its zero bytes.
    pub range: Option<Range<u64>>,
    /// Answer `NotModified` when this is still the version.
    pub if_none_match: Option<ETag>,
    /// Over connections that requests in bulk have for themselves: who reads a connection does so on the runtime that
    /// opened it. To be asked for on [`crate::run::Bulk`].
    pub bulk: bool,
}

/// The answer to a get.
pub enum Get {
    Found(Object),
    /// The object is still the version of `if_none_match`.
    NotModified,
    Missing,
}

/// An object, or the range of it that was asked for.
pub struct Object {
    pub meta: ObjectMeta,
    /// The bytes that `body` yields, if nothing fails: within `0..meta.size`.
    pub range: Range<u64>,
    pub body: BodyStream,
}

/// What to put. Both kinds can be sent again when a request fails.
#[derive(Clone, Debug)]
pub enum PutBody {
    Bytes(Bytes),
    /// A part of a file, read as it is sent: never in memory as a whole. The file is never written again, for a bucket
    /// may take it as the object when it is sent whole ([`Capabilities::adopts_files`]).
    File {
        path: PathBuf,
        range: Range<u64>,
        /// What the bytes of the range were when they were received. Bytes that are different now are refused with
        /// [`BucketErrorKind::WrongContent`], and nothing is stored. `None` for a caller that knows that nothing came
        /// between.
        checksum: Option<Checksum>,
    },
}

impl PutBody {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            PutBody::Bytes(bytes) => bytes.len() as u64,
            PutBody::File { range, .. } => range.end - range.start,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether an object that is already there is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutMode {
    Overwrite,
    /// Only if there is none (`If-None-Match: *`). A bucket that cannot do it says so in its [`Capabilities`], and
    /// then overwrites.
    IfAbsent,
    /// Only if the object still has this version (`If-Match`); `None`: only if there is still no object
    /// (`If-None-Match: *`). For objects whose content changes, such as the link of a tag. `Retried` sends it once:
    /// after an answer that was lost, only the caller can decide what a repetition would mean. A bucket that cannot
    /// do it says so in its [`Capabilities`]: it then looks at the version and writes, and a write of another node
    /// between the two is lost.
    IfMatch(Option<ETag>),
}

/// What a put came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is there, in this version.
    Done(ETag),
    /// There was one already and the mode was `IfAbsent`: nothing was written.
    Exists,
    /// The object has a different version than the mode `IfMatch` named, or there is none: nothing was written.
    Changed,
}

/// The result of a conditional delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delete {
    /// The object had the version and is removed. Some services answer this too when there was no object
    /// (versitygw 1.8): after `Done` there is none, whoever removed it.
    Done,
    /// The object has a different version, or there is none: nothing was removed.
    Changed,
}

/// A multipart upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultipartId(pub String);

/// What the bucket calls a part it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartTag(pub String);

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys in ascending order of their bytes.
    pub keys: Vec<Key>,
    /// With a delimiter: the prefixes up to and with the next `/`, in ascending order.
    pub prefixes: Vec<String>,
    /// Where the next page begins: to be given as `after`. `None` on the last page; the last page may be empty.
    pub next: Option<String>,
}

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only keys that begin with this; it ends with `/` or is empty.
    pub prefix: String,
    /// Fold what lies deeper than the next `/` into `prefixes`.
    pub delimiter: bool,
    /// Only keys and prefixes greater than this, in the order of their bytes.
    pub after: Option<String>,
    /// At most this many keys and prefixes together; 1 to 1000.
    pub max: usize,
}

/// What a bucket can do beyond the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether `PutMode::IfAbsent` is honoured, for put and for multipart completion, and `PutMode::IfMatch` for put.
    pub conditional_put: bool,
    /// Whether [`Bucket::delete_if_match`] compares and removes in one step. If not, it looks at the version and then
    /// removes, and a write of another node between the two is lost. `false` until the bucket has shown that it can,
    /// which S3 is asked to do before the first such delete.
    pub conditional_delete: bool,
    /// Reading a small object costs little time and no money, as on a file system: it is read again instead of
    /// remembered.
    pub cheap_reads: bool,
    /// An object larger than this, in bytes, is better sent in parts.
    pub part_threshold: u64,
    /// Reading one object through several ranges at once is faster than reading it through one.
    pub parallel_ranges: bool,
    /// A whole file may become the object itself, without a copy; it has to be on disk then.
    pub adopts_files: bool,
}

/// Operation names, for errors, metrics and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Head,
    Get,
    Put,
    Delete,
    List,
    MultipartBegin,
    MultipartPart,
    MultipartComplete,
    MultipartAbort,
    MultipartUnfinished,
}

impl Operation {
    pub const ALL: [Operation; 10] = [
        Operation::Head,
        Operation::Get,
        Operation::Put,
        Operation::Delete,
        Operation::List,
        Operation::MultipartBegin,
        Operation::MultipartPart,
        Operation::MultipartComplete,
        Operation::MultipartAbort,
        Operation::MultipartUnfinished,
    ];

    /// The name in metrics and errors.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Head => "head",
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::Delete => "delete",
            Operation::List => "list",
            Operation::MultipartBegin => "multipart_begin",
            Operation::MultipartPart => "multipart_part",
            Operation::MultipartComplete => "multipart_complete",
            Operation::MultipartAbort => "multipart_abort",
            Operation::MultipartUnfinished => "multipart_unfinished",
        }
    }
}

/// A request to the bucket that did not succeed. Missing objects are not errors; they are answers.
#[derive(Debug, thiserror::Error)]
#[error("bucket {}: {key}: {kind}", operation.name())]
pub struct BucketError {
    pub operation: Operation,
    /// The key, or the prefix of a listing.
    pub key: String,
    pub kind: BucketErrorKind,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Why it did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BucketErrorKind {
    #[error("no answer in time")]
    Timeout,
    #[error("the connection failed")]
    Connection,
    #[error("the bucket asks to slow down")]
    SlowDown,
    #[error("the bucket failed")]
    Server,
    #[error("the body ended early")]
    Truncated,
    #[error("access denied; check the credentials and the bucket's policy")]
    Denied,
    /// No request was sent, because there is nothing to sign it with.
    #[error("there are no credentials; check bucket.s3.credentials or the environment's identity")]
    NoCredentials,
    #[error("the bucket is in another region; check bucket.s3.region")]
    WrongRegion,
    #[error("there is no such bucket")]
    NoBucket,
    #[error("the bucket's disk is full")]
    Full,
    /// The bytes of a put are not those that its [`Checksum`] names. The local copy is damaged, or was on its way;
    /// whoever sent it verifies the copy, and drops it if it is damaged.
    #[error("the content does not match its checksum; verify the local copy")]
    WrongContent,
    #[error("refused by the bucket")]
    Refused,
    #[error("the local file could not be read")]
    LocalFile,
}

impl BucketErrorKind {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            BucketErrorKind::Timeout => "timeout",
            BucketErrorKind::Connection => "connection",
            BucketErrorKind::SlowDown => "slow_down",
            BucketErrorKind::Server => "server",
            BucketErrorKind::Truncated => "truncated",
            BucketErrorKind::Denied => "denied",
            BucketErrorKind::NoCredentials => "no_credentials",
            BucketErrorKind::WrongRegion => "wrong_region",
            BucketErrorKind::NoBucket => "no_bucket",
            BucketErrorKind::Full => "full",
            BucketErrorKind::WrongContent => "wrong_content",
            BucketErrorKind::Refused => "refused",
            BucketErrorKind::LocalFile => "local_file",
        }
    }
}

impl BucketError {
    pub fn new(operation: Operation, key: impl Into<String>, kind: BucketErrorKind) -> BucketError {
        BucketError { operation, key: key.into(), kind, source: None }
    }

    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BucketError {
        self.source = Some(source.into());
        self
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        use BucketErrorKind::{Connection, Server, SlowDown, Timeout, Truncated};
        matches!(self.kind, Timeout | Connection | SlowDown | Server | Truncated)
    }
}

/// Object storage with strong read-after-write consistency (S3 since 2020, and what claims to be compatible).
///
/// Every call may be dropped half way; what it began is then either done or not, never half visible.
#[async_trait]
pub trait Bucket: Send + Sync + 'static {
    fn capabilities(&self) -> Capabilities;

    /// What is known of an object, or `None` when there is none.
    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError>;

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError>;

    /// Writes a whole object: it appears at once and complete, or not at all.
    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError>;

    /// Removes an object; one that is not there is removed already.
    async fn delete(&self, key: &Key) -> Result<(), BucketError>;

    /// Removes an object only if it still has this version. Like `PutMode::IfMatch`, `Retried` sends it once. See
    /// [`Capabilities::conditional_delete`].
    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError>;

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError>;

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError>;

    /// Sends one part. `number` counts from 1; parts may be sent at the same time and in any order, and again.
    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError>;

    /// Makes the object of all parts, `parts[0]` being number 1. `Exists` leaves the parts where they are: abort.
    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError>;

    /// Multipart uploads of exactly this key that were begun and neither completed nor aborted.
    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError>;

    /// Gives up a multipart upload and what it sent; one that is gone is given up already.
    async fn multipart_abort(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError>;
}

/// The range of an object of `size` bytes that a get answers (see [`GetOptions::range`]).
pub(crate) fn resolve_range(key: &Key, asked: Option<Range<u64>>, size: u64) -> Result<Range<u64>, BucketError> {
    match asked {
        None => Ok(0..size),
        Some(range) if range.start == 0 && size == 0 => Ok(0..0),
        Some(range) if range.start < size && range.start < range.end => Ok(range.start..range.end.min(size)),
        Some(range) => Err(BucketError::new(Operation::Get, key.as_str(), BucketErrorKind::Refused)
            .because(format!("bytes {range:?} lie outside the object, which has {size}"))),
    }
}

/// Gets a small object whole. The second value is what identifies the version.
///
/// # Errors
/// When the request or the body fails, or the object has more than `limit` bytes.
pub async fn get_small(bucket: &dyn Bucket, key: &Key, limit: usize) -> Result<Option<(Bytes, ETag)>, BucketError> {
    match bucket.get(key, GetOptions::default()).await? {
        Get::Found(object) => Ok(Some(collect_small(key, object, limit).await?)),
        Get::NotModified | Get::Missing => Ok(None),
    }
}

/// Reads the whole body of a small object.
///
/// # Errors
/// When the body fails or ends early, or has more than `limit` bytes.
pub async fn collect_small(key: &Key, object: Object, limit: usize) -> Result<(Bytes, ETag), BucketError> {
    use futures::StreamExt;
    let expected = object.range.end - object.range.start;
    if expected > limit as u64 {
        return Err(BucketError::new(Operation::Get, key.as_str(), BucketErrorKind::Refused)
            .because(format!("the object has {expected} bytes, at most {limit} are read here")));
    }
    let mut content = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    let mut body = object.body;
    while let Some(piece) = body.next().await {
        content.extend_from_slice(&piece?);
    }
    if content.len() as u64 != expected {
        return Err(BucketError::new(Operation::Get, key.as_str(), BucketErrorKind::Truncated));
    }
    Ok((content.into(), object.meta.etag))
}
