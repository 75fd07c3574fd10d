//! All refusals and failures, and the only place that maps them to a status and a code.
//!
//! [`ApiError`] is the error with its cause, for the log. Its [`Refusal`] is what the client
//! receives. The errors of each flow have a file of their own.

mod access;
mod body;
mod fetch;
mod manage;
mod refusal;
mod store;
mod tag;
mod upload;

use super::query::QueryError;
use crate::fetch::FetchError;
use crate::manage::ManageError;
use crate::upload::UploadError;
pub use access::AccessError;
use axum::http::StatusCode as S;
use axum::http::header::{ALLOW, CONTENT_RANGE};
use entrepot_bucket::BucketError;
use entrepot_oci::{
    DigestError, MAX_MANIFEST_BYTES, RangeRefused, ReferenceError, Repository, RepositoryError, SessionId,
    UploadRangeError,
};
pub use refusal::{ContentKind, Refusal};
use refusal::{UNAVAILABLE, code, retry_after};
use std::io;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("no such endpoint; the registry API is under /v2/")]
    NoRoute,
    /// `allowed` are the methods of the endpoint, as in `Allow`.
    #[error("method not allowed; allowed methods: {allowed}")]
    Method { allowed: &'static str },
    /// `allowed` are the methods of the endpoint that do not write; it may be empty.
    #[error("this registry is read-only (readOnly): pushes and deletions are refused")]
    ReadOnly { allowed: &'static str },
    #[error(transparent)]
    Access(#[from] Box<AccessError>),
    #[error("the request must have a valid Host header")]
    Host,
    #[error("the form of the token service must not be larger than {0} bytes")]
    FormTooLarge(usize),
    #[error("invalid path: must be UTF-8 and must not contain percent-encoded slashes")]
    PathEncoding,
    #[error("the path and query of the URL must not be longer than {0} bytes")]
    UriTooLong(usize),
    #[error("the request headers must not be larger than {0} bytes in total")]
    HeadersTooLarge(usize),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Name(#[from] RepositoryError),
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error("missing query parameter: digest")]
    DigestMissing,
    #[error("{0}")]
    PushedReference(ReferenceError),
    #[error("query parameter n must be a non-negative integer")]
    PageSize,
    #[error("repository not found")]
    UnknownRepository,
    #[error("manifest not found in this repository")]
    UnknownManifest,
    /// A client that uses this registry as a mirror tries the next one after a 404. Local content
    /// is not served in this case, because anybody who may push here could replace images of that
    /// other registry.
    #[error("this registry has no upstream for the namespace {namespace:?}; omit ns to get content pushed here")]
    UnknownNamespace { namespace: String, kind: Option<ContentKind> },
    #[error("upload session not found; start a new upload with POST")]
    UnknownSession,
    #[error("the connection to the node that owns this upload was lost; GET the upload URL and resume at its Range")]
    OwnerFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("too many concurrent requests on this node; retry later")]
    TooManyRequests,
    /// The client's network has as many places as are free.
    #[error("too many concurrent requests from this client's network at this node; retry later")]
    AboveShare,
    /// The manifests that clients are sending fill the memory for them.
    #[error("too many manifests are being pushed to this node at the moment; retry later")]
    ManifestMemory,
    #[error(
        "refused: a web page of another origin made the browser send this request; \
         http.allowedOrigins lists the origins that may"
    )]
    CrossSite,
    #[error(
        "refused: this registry listens on a loopback address and does not know the host name {0:?}; \
         use localhost or an IP address, or add the name to http.namespaces"
    )]
    UnknownHost(String),
    #[error("the manifest must not be larger than {MAX_MANIFEST_BYTES} bytes")]
    ManifestTooLarge,
    #[error("cannot read the request body: {0}")]
    Body(#[source] io::Error),
    #[error(transparent)]
    Range(#[from] RangeRefused),
    #[error(transparent)]
    UploadRange(#[from] UploadRangeError),
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// An error of an upload that can be resumed: the response states the offset.
    #[error("{error}")]
    Session { error: UploadError, repository: Repository, id: SessionId },
    #[error("{error}")]
    Fetch { error: FetchError, kind: ContentKind },
    #[error("{error}")]
    Manage { error: ManageError, kind: ContentKind },
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// An error that never happens, such as an invalid header value.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    /// An upload's error, with the session that the client may resume.
    pub fn of_session(error: UploadError, repository: &Repository, id: &SessionId) -> ApiError {
        ApiError::Session { error, repository: repository.clone(), id: id.clone() }
    }

    /// What the client receives.
    pub fn refusal(&self) -> Refusal {
        let status_and_code = match self {
            ApiError::NoRoute => (S::NOT_FOUND, code::UNSUPPORTED),
            ApiError::Method { allowed } | ApiError::ReadOnly { allowed } => {
                return Refusal::new((S::METHOD_NOT_ALLOWED, code::UNSUPPORTED), self).header(ALLOW, allowed);
            }
            ApiError::Access(error) => return access::refusal(error),
            ApiError::Host => (S::BAD_REQUEST, code::UNSUPPORTED),
            ApiError::FormTooLarge(_) => (S::PAYLOAD_TOO_LARGE, code::SIZE_INVALID),
            ApiError::PathEncoding | ApiError::Name(_) => (S::BAD_REQUEST, code::NAME_INVALID),
            // The specification defines this status for too many tags (distribution-spec, "Pushing
            // Manifests").
            ApiError::UriTooLong(_) | ApiError::Query(QueryError::TooMany) => (S::URI_TOO_LONG, code::SIZE_INVALID),
            ApiError::HeadersTooLarge(_) => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, code::SIZE_INVALID),
            ApiError::Query(QueryError::NotUtf8) => (S::BAD_REQUEST, code::UNSUPPORTED),
            ApiError::Digest(_) | ApiError::DigestMissing | ApiError::PushedReference(ReferenceError::Digest(_)) => {
                (S::BAD_REQUEST, code::DIGEST_INVALID)
            }
            ApiError::PushedReference(ReferenceError::Tag) => (S::BAD_REQUEST, code::MANIFEST_INVALID),
            ApiError::PageSize => (S::BAD_REQUEST, code::PAGINATION_NUMBER_INVALID),
            ApiError::UnknownRepository | ApiError::UnknownNamespace { kind: None, .. } => {
                (S::NOT_FOUND, code::NAME_UNKNOWN)
            }
            ApiError::UnknownManifest => ContentKind::Manifest.absent(),
            ApiError::UnknownNamespace { kind: Some(kind), .. } => kind.absent(),
            ApiError::UnknownSession => (S::NOT_FOUND, code::BLOB_UPLOAD_UNKNOWN),
            ApiError::OwnerFailed(_) | ApiError::TooManyRequests | ApiError::ManifestMemory => {
                return Refusal::new(UNAVAILABLE, self).retry_after(retry_after::REQUESTS);
            }
            ApiError::AboveShare => {
                let too_many = (S::TOO_MANY_REQUESTS, code::TOOMANYREQUESTS);
                return Refusal::new(too_many, self).retry_after(retry_after::REQUESTS);
            }
            ApiError::CrossSite | ApiError::UnknownHost(_) => (S::FORBIDDEN, code::DENIED),
            ApiError::ManifestTooLarge => (S::PAYLOAD_TOO_LARGE, code::SIZE_INVALID),
            ApiError::Range(RangeRefused { size }) => {
                let refusal = Refusal::new((S::RANGE_NOT_SATISFIABLE, code::RANGE_INVALID), self);
                return refusal.header(CONTENT_RANGE, &format!("bytes */{size}"));
            }
            ApiError::UploadRange(_) => (S::BAD_REQUEST, code::BLOB_UPLOAD_INVALID),
            ApiError::Body(error) => return body::refusal(error),
            ApiError::Upload(error) => return upload::refusal(error),
            ApiError::Session { error, repository, id } => return upload::of_session(error, repository, id),
            ApiError::Fetch { error, kind } => return fetch::refusal(error, *kind),
            ApiError::Manage { error, kind } => return manage::refusal(error, *kind),
            ApiError::Bucket(error) => return store::bucket(error),
            ApiError::Internal(_) => return refusal::internal(),
        };
        Refusal::new(status_and_code, self)
    }
}

#[cfg(test)]
mod tests;
