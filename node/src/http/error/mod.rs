//! All refusals and failures, and the only place that maps them to a status and a code of the
//! specification (distribution-spec, "Error Codes").
//!
//! A message states what the client can do about the error. It never contains a path, a key or a
//! host of this node; the log has those under the request ID.

use super::headers;
use super::query::QueryError;
use super::request_id::RequestId;
use crate::fetch::FetchError;
use crate::manage::ManageError;
use crate::repository::tags::TagError;
use crate::store::StoreError;
use crate::upload::UploadError;
use axum::body::Body;
use axum::http::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use axum::response::{IntoResponse, Response};
use entrepot_bucket::BucketError;
use entrepot_oci::{
    Digest, DigestError, MAX_MANIFEST_BYTES, ManifestError, RangeRefused, ReferenceError, Repository, RepositoryError,
    SessionId, UploadRangeError,
};
use serde_json::{Value, json};
use std::io;

#[allow(clippy::disallowed_types)]
use axum::http::StatusCode;

/// Seconds after which a client may retry, by cause.
mod retry_after {
    /// Requests end all the time.
    pub const REQUESTS: u32 = 1;
    /// The bucket was already retried for its whole retry budget.
    pub const BUCKET: u32 = 5;
    /// Eviction or replication must free space first.
    pub const ROOM: u32 = 10;
    /// A session ends when its blob is complete.
    pub const SESSIONS: u32 = 5;
}

/// The kind of the requested content. It selects the code for content that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Blob,
    Manifest,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("no such endpoint; the registry API is under /v2/")]
    NoRoute,
    #[error("method not allowed; allowed methods: {allowed}")]
    Method { allowed: &'static str },
    #[error("this registry is read-only (readOnly): pushes and deletions are refused")]
    ReadOnly,
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
    UnknownNamespace { namespace: String, what: Option<What> },
    #[error("upload session not found; start a new upload with POST")]
    UnknownSession,
    #[error("the connection to the node that owns this upload was lost; GET the upload URL and resume at its Range")]
    OwnerFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("too many concurrent requests on this node; retry later")]
    TooManyRequests,
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
    Fetch { error: FetchError, what: What },
    #[error("{error}")]
    Manage { error: ManageError, what: What },
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A failure of the node, with the request ID under which the log has its cause.
    #[error("{error}")]
    Failure { error: Box<ApiError>, request_id: RequestId },
    /// An error that never happens, such as an invalid header value.
    #[error("{0}")]
    Internal(String),
}

/// Codes of the specification, and codes of CNCF Distribution where the specification has none.
mod code {
    pub const BLOB_UNKNOWN: &str = "BLOB_UNKNOWN";
    pub const BLOB_UPLOAD_INVALID: &str = "BLOB_UPLOAD_INVALID";
    pub const BLOB_UPLOAD_UNKNOWN: &str = "BLOB_UPLOAD_UNKNOWN";
    pub const DENIED: &str = "DENIED";
    pub const DIGEST_INVALID: &str = "DIGEST_INVALID";
    pub const MANIFEST_BLOB_UNKNOWN: &str = "MANIFEST_BLOB_UNKNOWN";
    pub const MANIFEST_INVALID: &str = "MANIFEST_INVALID";
    pub const MANIFEST_UNKNOWN: &str = "MANIFEST_UNKNOWN";
    pub const NAME_INVALID: &str = "NAME_INVALID";
    pub const NAME_UNKNOWN: &str = "NAME_UNKNOWN";
    pub const PAGINATION_NUMBER_INVALID: &str = "PAGINATION_NUMBER_INVALID";
    pub const RANGE_INVALID: &str = "RANGE_INVALID";
    pub const SIZE_INVALID: &str = "SIZE_INVALID";
    pub const TOOMANYREQUESTS: &str = "TOOMANYREQUESTS";
    pub const UNAVAILABLE: &str = "UNAVAILABLE";
    pub const UNKNOWN: &str = "UNKNOWN";
    pub const UNSUPPORTED: &str = "UNSUPPORTED";
}

/// Status, code, and seconds until a retry.
type Verdict = (StatusCode, &'static str, Option<u32>);

const fn plain(status: StatusCode, code: &'static str) -> Verdict {
    (status, code, None)
}

impl ApiError {
    /// An upload's error, with the session that the client may resume.
    pub fn of_session(error: UploadError, repository: &Repository, id: &SessionId) -> ApiError {
        ApiError::Session { error, repository: repository.clone(), id: id.clone() }
    }

    #[allow(clippy::disallowed_types)]
    pub fn status(&self) -> StatusCode {
        self.verdict().0
    }

    fn verdict(&self) -> Verdict {
        use StatusCode as S;
        match self {
            ApiError::NoRoute => plain(S::NOT_FOUND, code::UNSUPPORTED),
            ApiError::Method { .. } | ApiError::ReadOnly => plain(S::METHOD_NOT_ALLOWED, code::UNSUPPORTED),
            ApiError::PathEncoding | ApiError::Name(_) => plain(S::BAD_REQUEST, code::NAME_INVALID),
            ApiError::UriTooLong(_) => plain(S::URI_TOO_LONG, code::SIZE_INVALID),
            ApiError::HeadersTooLarge(_) => plain(S::REQUEST_HEADER_FIELDS_TOO_LARGE, code::SIZE_INVALID),
            // The specification defines this status for too many tags (distribution-spec, "Pushing
            // Manifests").
            ApiError::Query(QueryError::TooMany) => plain(S::URI_TOO_LONG, code::SIZE_INVALID),
            ApiError::Query(QueryError::NotUtf8) => plain(S::BAD_REQUEST, code::UNSUPPORTED),
            ApiError::Digest(_) | ApiError::DigestMissing | ApiError::PushedReference(ReferenceError::Digest(_)) => {
                plain(S::BAD_REQUEST, code::DIGEST_INVALID)
            }
            ApiError::PushedReference(ReferenceError::Tag) => plain(S::BAD_REQUEST, code::MANIFEST_INVALID),
            ApiError::PageSize => plain(S::BAD_REQUEST, code::PAGINATION_NUMBER_INVALID),
            ApiError::UnknownRepository => plain(S::NOT_FOUND, code::NAME_UNKNOWN),
            ApiError::UnknownManifest => plain(S::NOT_FOUND, code::MANIFEST_UNKNOWN),
            ApiError::UnknownNamespace { what: Some(what), .. } => absent(*what),
            ApiError::UnknownNamespace { what: None, .. } => plain(S::NOT_FOUND, code::NAME_UNKNOWN),
            ApiError::UnknownSession => plain(S::NOT_FOUND, code::BLOB_UPLOAD_UNKNOWN),
            ApiError::OwnerFailed(_) | ApiError::TooManyRequests => {
                (S::SERVICE_UNAVAILABLE, code::UNAVAILABLE, Some(retry_after::REQUESTS))
            }
            ApiError::ManifestTooLarge => plain(S::PAYLOAD_TOO_LARGE, code::SIZE_INVALID),
            ApiError::Body(error) => body_verdict(error),
            ApiError::Range(_) => plain(S::RANGE_NOT_SATISFIABLE, code::RANGE_INVALID),
            ApiError::UploadRange(_) => plain(S::BAD_REQUEST, code::BLOB_UPLOAD_INVALID),
            ApiError::Upload(error) | ApiError::Session { error, .. } => upload_verdict(error),
            ApiError::Fetch { error, what } => fetch_verdict(error, *what),
            ApiError::Manage { error, what } => match error {
                ManageError::NotFound => absent(*what),
                // 409, not 403: after a 403 a client tries other credentials, and none would help.
                ManageError::Protected(_) => plain(S::CONFLICT, code::DENIED),
                ManageError::Tag(error) => tag_verdict(error),
                ManageError::Bucket(_) => BUCKET_FAILED,
            },
            ApiError::Bucket(_) => BUCKET_FAILED,
            ApiError::Failure { error, .. } => error.verdict(),
            ApiError::Internal(_) => plain(S::INTERNAL_SERVER_ERROR, code::UNKNOWN),
        }
    }

    /// The message for the client.
    fn message(&self) -> String {
        match self {
            ApiError::Failure { error, request_id } => {
                format!("{} (request ID {})", error.message(), request_id.as_str())
            }
            ApiError::Bucket(error)
            | ApiError::Upload(UploadError::Bucket(error) | UploadError::Tag(TagError::Bucket(error)))
            | ApiError::Session { error: UploadError::Bucket(error), .. }
            | ApiError::Fetch { error: FetchError::Bucket(error), .. }
            | ApiError::Manage { error: ManageError::Bucket(error), .. } => {
                format!("object storage error: {}", error.kind)
            }
            ApiError::Upload(UploadError::Store(error))
            | ApiError::Session { error: UploadError::Store(error), .. }
            | ApiError::Fetch { error: FetchError::Store(error), .. } => store_message(error).into(),
            ApiError::Fetch { error: FetchError::NotFound, what }
            | ApiError::Manage { error: ManageError::NotFound, what } => match what {
                What::Blob => "blob not found in this repository".into(),
                What::Manifest => "manifest not found in this repository".into(),
            },
            ApiError::Body(error)
            | ApiError::Upload(UploadError::Body(error))
            | ApiError::Session { error: UploadError::Body(error), .. } => body_message(error).into(),
            ApiError::Internal(_) => "internal error; see the log of this node".into(),
            other => other.to_string(),
        }
    }

    /// Whether the cause is the node or a service that it depends on, not the client. Such errors
    /// are logged as warnings.
    pub fn is_failure(&self) -> bool {
        self.status().is_server_error()
    }

    /// The same error, with the request ID if only the operator of the registry can help.
    pub fn of_request(self, request_id: &RequestId) -> ApiError {
        if self.is_failure() {
            ApiError::Failure { error: Box::new(self), request_id: request_id.clone() }
        } else {
            self
        }
    }

    /// The entries of the specification's error document: one entry, or one per missing reference
    /// of a manifest.
    fn entries(&self, code: &str, message: &str) -> Vec<Value> {
        match self {
            ApiError::Upload(UploadError::MissingReferences { blobs, manifests }) => {
                let entry = |digest: &Digest| json!({ "code": code, "message": message, "detail": { "digest": digest.to_string() } });
                blobs.iter().chain(manifests).map(entry).collect()
            }
            _ => vec![json!({ "code": code, "message": message })],
        }
    }

    fn headers(&self, map: &mut HeaderMap) {
        match self {
            ApiError::Method { allowed } => {
                map.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            // RFC 9110 requires `Allow` with every 405. A read-only registry allows only reads.
            ApiError::ReadOnly => {
                map.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            ApiError::Range(RangeRefused { size }) => headers::set(map, CONTENT_RANGE, &format!("bytes */{size}")),
            ApiError::Session {
                error: UploadError::OutOfOrder { offset } | UploadError::Length { offset },
                repository,
                id,
            } => {
                headers::set(map, LOCATION, &headers::session_path(repository, id, *offset));
                headers::set(map, RANGE, &headers::received(*offset));
                headers::set(map, headers::UPLOAD_UUID, &id.to_string());
            }
            _ => {}
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, pause) = self.verdict();
        let body = json!({ "errors": self.entries(code, &self.message()) }).to_string();
        let length = body.len();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let map = response.headers_mut();
        map.insert(CONTENT_TYPE, headers::JSON);
        map.insert(CONTENT_LENGTH, length.into());
        if let Some(seconds) = pause {
            map.insert(RETRY_AFTER, seconds.into());
        }
        self.headers(map);
        response
    }
}

const BUCKET_FAILED: Verdict = (StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE, Some(retry_after::BUCKET));
/// A full or broken disk affects only this node: the next attempt may reach another one.
const STORE_FAILED: Verdict = (StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE, Some(retry_after::ROOM));

fn absent(what: What) -> Verdict {
    match what {
        What::Blob => plain(StatusCode::NOT_FOUND, code::BLOB_UNKNOWN),
        What::Manifest => plain(StatusCode::NOT_FOUND, code::MANIFEST_UNKNOWN),
    }
}

fn fetch_verdict(error: &FetchError, what: What) -> Verdict {
    match error {
        // Content that the bucket lost is reported as unknown, because the client then pushes it
        // again and so repairs it.
        FetchError::NotFound | FetchError::ContentMissing(_) => absent(what),
        FetchError::Mismatch(_) => plain(StatusCode::BAD_GATEWAY, code::UNKNOWN),
        FetchError::Bucket(_) | FetchError::Pending(_) => BUCKET_FAILED,
        FetchError::Store(_) => STORE_FAILED,
    }
}

fn upload_verdict(error: &UploadError) -> Verdict {
    use StatusCode as S;
    match error {
        UploadError::UnknownSession => plain(S::NOT_FOUND, code::BLOB_UPLOAD_UNKNOWN),
        UploadError::OutOfOrder { .. } => plain(S::RANGE_NOT_SATISFIABLE, code::BLOB_UPLOAD_INVALID),
        UploadError::Length { .. } => plain(S::BAD_REQUEST, code::SIZE_INVALID),
        // The other request is often one whose connection broke, which this node has not noticed
        // yet.
        UploadError::Busy => (S::CONFLICT, code::BLOB_UPLOAD_INVALID, Some(retry_after::REQUESTS)),
        UploadError::Unfinished => (S::SERVICE_UNAVAILABLE, code::UNAVAILABLE, Some(retry_after::REQUESTS)),
        UploadError::DigestMismatch { .. } => plain(S::BAD_REQUEST, code::DIGEST_INVALID),
        UploadError::TooManySessions(_) => (S::TOO_MANY_REQUESTS, code::TOOMANYREQUESTS, Some(retry_after::SESSIONS)),
        UploadError::TooLarge(_) => plain(S::PAYLOAD_TOO_LARGE, code::SIZE_INVALID),
        UploadError::Body(error) => body_verdict(error),
        // CNCF Distribution sends the same status and code, which clients know.
        UploadError::MissingReferences { .. } => plain(S::BAD_REQUEST, code::MANIFEST_BLOB_UNKNOWN),
        UploadError::Pending(_) => BUCKET_FAILED,
        UploadError::Tag(error) => tag_verdict(error),
        UploadError::Manifest(ManifestError::Digest { .. }) => plain(S::BAD_REQUEST, code::DIGEST_INVALID),
        UploadError::Manifest(_) => plain(S::BAD_REQUEST, code::MANIFEST_INVALID),
        UploadError::Bucket(_) => BUCKET_FAILED,
        UploadError::Store(_) => STORE_FAILED,
    }
}

fn tag_verdict(error: &TagError) -> Verdict {
    match error {
        TagError::NotFound => absent(What::Manifest),
        TagError::Immutable(_) => plain(StatusCode::CONFLICT, code::DENIED),
        TagError::Precondition => plain(StatusCode::PRECONDITION_FAILED, code::DENIED),
        TagError::OutcomeUnknown | TagError::Bucket(_) => BUCKET_FAILED,
    }
}

fn body_verdict(error: &io::Error) -> Verdict {
    match error.kind() {
        io::ErrorKind::TimedOut => plain(StatusCode::REQUEST_TIMEOUT, code::BLOB_UPLOAD_INVALID),
        _ => plain(StatusCode::BAD_REQUEST, code::BLOB_UPLOAD_INVALID),
    }
}

/// The message for the client, without the text of the error's source.
fn body_message(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::TimedOut => "cannot read the request body: the client sent no data within http.stallTimeout",
        io::ErrorKind::UnexpectedEof => "cannot read the request body: it is shorter than its Content-Length",
        _ => "cannot read the request body: the connection failed, or the body is longer than its Content-Range",
    }
}

fn store_message(error: &StoreError) -> &'static str {
    if error.is_no_room() {
        "not enough free space in the store of this node; retry later"
    } else {
        "local disk error on this node; retry later"
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
