//! Why a request failed.

/// Names of operations, for errors, metrics and counts.
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

/// A failed request to the bucket. A missing object is a result, not an error.
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

/// The reason of the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BucketErrorKind {
    #[error("request timed out")]
    Timeout,
    #[error("connection failed")]
    Connection,
    #[error("the bucket is throttling requests")]
    SlowDown,
    #[error("the bucket returned an internal error")]
    Server,
    #[error("the response body ended early")]
    Truncated,
    #[error("access denied; check the credentials and the bucket's policy")]
    Denied,
    /// No request was sent, because no credentials are available to sign it.
    #[error("no credentials available; check bucket.s3.credentials or the identity of the environment")]
    NoCredentials,
    #[error("the bucket is in another region; check bucket.s3.region")]
    WrongRegion,
    #[error("the bucket does not exist; check bucket.s3.name")]
    NoBucket,
    #[error("the disk of the bucket is full")]
    Full,
    /// The bytes of a put do not match the [`Checksum`](crate::Checksum). The local copy is damaged, or the bytes
    /// were damaged in transit. The sender verifies the local copy, and drops it if it is damaged.
    #[error("the content does not match its checksum; verify the local copy")]
    WrongContent,
    #[error("the bucket rejected the request (see the node's log for the reason)")]
    Refused,
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
    pub fn new(operation: Operation, key: impl Into<String>, kind: BucketErrorKind) -> BucketError {
        BucketError { operation, key: key.into(), kind, source: None }
    }

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
