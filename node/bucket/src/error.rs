//! Why a request failed.

/// Names of operations, for errors, metrics and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The metadata of an object.
    Head,
    /// An object or a range of it.
    Get,
    /// A whole object in one request.
    Put,
    /// Removes an object.
    Delete,
    /// One page of a listing.
    List,
    /// Starts an upload in parts.
    MultipartBegin,
    /// Sends one part.
    MultipartPart,
    /// Creates the object from the parts.
    MultipartComplete,
    /// Removes the parts.
    MultipartAbort,
    /// Lists the uploads of a key that were neither completed nor aborted.
    MultipartUnfinished,
}

impl Operation {
    /// All operations.
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

/// A failed request to the bucket. A missing object is a result, not an error.
#[derive(Debug, thiserror::Error)]
#[error("bucket {}: {key}: {kind}", operation.name())]
pub struct BucketError {
    /// The operation that failed.
    pub operation: Operation,
    /// The key, or the prefix of a listing.
    pub key: String,
    /// What failed, as callers distinguish it.
    pub kind: BucketErrorKind,
    /// The cause, for the log. Clients never see it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The reason of the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BucketErrorKind {
    /// No progress for `bucket.requestTimeout`. The request may still take effect.
    #[error("request timed out")]
    Timeout,
    /// No response, or the connection broke. The request may have taken effect.
    #[error("connection failed")]
    Connection,
    /// Too many requests for the service (S3: `SlowDown`, 429, 503).
    #[error("the bucket is throttling requests")]
    SlowDown,
    /// A failure of the service (5xx), or a response that is not one of S3.
    #[error("the bucket returned an internal error")]
    Server,
    /// The body has fewer bytes than the response announced.
    #[error("the response body ended early")]
    Truncated,
    /// The service rejects the credentials, or they lack a permission.
    #[error("access denied; check the credentials and the bucket's policy")]
    Denied,
    /// No request was sent, because no credentials are available to sign it.
    #[error("no credentials available; check bucket.s3.credentials or the identity of the environment")]
    NoCredentials,
    /// The service says that the bucket is in a region other than the one that signed the request.
    #[error("the bucket is in another region; check bucket.s3.region")]
    WrongRegion,
    /// The service has no bucket with this name.
    #[error("the bucket does not exist; check bucket.s3.name")]
    NoBucket,
    /// The disk behind the service, or of a folder, has no free space, or a quota is used up.
    #[error("the disk of the bucket is full")]
    Full,
    /// The bytes of a put do not match the [`Checksum`](crate::Checksum). The local copy is damaged, or the bytes
    /// were damaged in transit. The sender verifies the local copy, and drops it if it is damaged.
    #[error("the content does not match its checksum; verify the local copy")]
    WrongContent,
    /// Any other rejection. A repetition would be rejected too.
    #[error("the bucket rejected the request (see the node's log for the reason)")]
    Refused,
    /// The file of a [`PutBody::File`](crate::PutBody) cannot be read.
    #[error("cannot read the local file")]
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
    /// An error without a cause.
    pub fn new(operation: Operation, key: impl Into<String>, kind: BucketErrorKind) -> BucketError {
        BucketError { operation, key: key.into(), kind, source: None }
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BucketError {
        self.source = Some(source.into());
        self
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        use BucketErrorKind::{Connection, Server, SlowDown, Timeout, Truncated};
        matches!(self.kind, Timeout | Connection | SlowDown | Server | Truncated)
    }
}
