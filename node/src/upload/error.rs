//! Why an upload fails.

use crate::repository::tags::TagError;
use crate::store::StoreError;
use entrepot_bucket::BucketError;
use entrepot_oci::{Digest, ManifestError, Place as Field};
use std::io;

/// Why an upload failed or was interrupted.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The session exists neither at this node nor at any other.
    #[error("unknown upload session; start a new upload with POST")]
    UnknownSession,
    /// The chunk does not start where the session ends.
    #[error("chunk out of order: expected it to start at byte {offset}")]
    OutOfOrder {
        /// Number of bytes of the session, where the client continues.
        offset: u64,
    },
    /// The length of the body differs from its `Content-Range` or `Content-Length`.
    #[error("the body length does not match Content-Range or Content-Length")]
    Length {
        /// Number of bytes of the session, where the client continues.
        offset: u64,
    },
    /// The session keeps the bytes before the piece of the body that exceeds the range.
    #[error("the request body is longer than its Content-Range")]
    LongerThanRange,
    /// Another request is writing to the session.
    #[error("another request is writing to this upload session; retry later")]
    Busy,
    /// The work continues without the client.
    #[error(
        "the upload takes longer than upload.answerWithin and continues in the background; \
         repeat the request to get its result"
    )]
    Unfinished,
    /// The node stops and has abandoned the work. The client repeats the request.
    #[error("the node is shutting down; retry the upload")]
    Stopping,
    /// The content is not the one that the client named. An upload session ends with this.
    #[error("digest mismatch: expected {expected}, but the content has {actual}")]
    DigestMismatch {
        /// The digest in the request.
        expected: Box<Digest>,
        /// The digest of the received content.
        actual: Box<Digest>,
    },
    /// The client has its share of the sessions, and all of them are in use.
    #[error(
        "too many unfinished uploads of this client at this node, which allows {0} to all clients \
         (upload.maxSessions); finish or cancel uploads, or retry later"
    )]
    TooManySessions(u32),
    /// The client has its share of the space for unfinished uploads, and all of them are in use.
    #[error(
        "the unfinished uploads of this client at this node use too much of its store, of which one half is for \
         the uploads of all clients (store.capacity); finish or cancel uploads, or retry later"
    )]
    ShareUsed,
    /// The content exceeds a limit in bytes.
    #[error("the content is larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// The connection of the client failed. The session keeps the bytes received so far.
    #[error("cannot read the request body: {0}")]
    Body(#[source] io::Error),
    /// Names at most 16 of the missing references.
    #[error("the manifest refers to content that is missing in this repository; push that content first")]
    MissingReferences {
        /// The missing blobs.
        blobs: Vec<Digest>,
        /// The missing manifests.
        manifests: Vec<Digest>,
    },
    /// The manifest has more references than `upload.maxReferences`.
    #[error("the manifest has {found} references, more than the limit of {most} (upload.maxReferences)")]
    TooManyReferences {
        /// Number of references.
        found: usize,
        /// `upload.maxReferences`.
        most: u32,
    },
    /// The manifest refers to content elsewhere that `upload.allowedUrls` does not allow.
    #[error(
        "{place}.urls[{index}] is not allowed here (upload.allowedUrls); push the content to this registry and remove urls"
    )]
    ForeignUrl {
        /// The descriptor with the URL.
        place: Field,
        /// Position of the URL in `urls`.
        index: usize,
    },
    /// Two descriptors of the same content.
    #[error("{first}.size and {second}.size differ, but their digest is the same; correct the sizes")]
    Sizes {
        /// The first descriptor.
        first: Field,
        /// The other one.
        second: Field,
    },
    /// The manifest states another size than that of the content.
    #[error(
        "the manifest states a size of {stated} bytes for {digest}, but that content has {actual} bytes; correct the size"
    )]
    SizeMismatch {
        /// The content.
        digest: Box<Digest>,
        /// The size in the manifest, in bytes.
        stated: u64,
        /// The size of the content, in bytes.
        actual: u64,
    },
    /// Another node acknowledged a blob and has not made it durable yet (WriteBack).
    #[error("{0} is not in the bucket yet: another node is still uploading it; retry later")]
    Pending(Digest),
    /// The tag could not be changed.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// The bytes are not an accepted manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The disk of the store failed, or has no space.
    #[error(transparent)]
    Store(#[from] StoreError),
}
