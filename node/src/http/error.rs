//! Every refusal and failure, and the one place that says which status and code of the specification it has
//! (distribution-spec, "Error Codes").
//!
//! A message says what the client can do about it. It never names a path, a key or a host of this node; for those the
//! request id leads to the log.

use super::headers;
use super::query::QueryError;
use super::request_id::RequestId;
use crate::fetch::FetchError;
use crate::manage::ManageError;
use crate::oci::{
    Digest, DigestError, MAX_MANIFEST_BYTES, ManifestError, RangeRefused, ReferenceError, Repository, RepositoryError,
    SessionId, UploadRangeError,
};
use crate::store::bucket::BucketError;
use crate::store::disk::StoreError;
use crate::store::tags::TagError;
use crate::upload::UploadError;
use axum::body::Body;
use axum::http::header::{
    ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::io;

#[allow(clippy::disallowed_types)]
use axum::http::StatusCode;

/// Seconds after which a client may try again, by what stands in the way.
mod retry_after {
    /// Requests end all the time.
    pub const REQUESTS: u32 = 1;
    /// The bucket was tried again for its whole budget already.
    pub const BUCKET: u32 = 5;
    /// The cleaner or replication has to make room.
    pub const ROOM: u32 = 10;
    /// Sessions end when their blob is complete.
    pub const SESSIONS: u32 = 5;
}

/// What content is asked for, for the code of its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Blob,
    Manifest,
}

/// A request that is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("there is nothing at this path")]
    NoRoute,
    #[error("this path has the methods {allowed}")]
    Method { allowed: &'static str },
    #[error("this registry is read-only")]
    ReadOnly,
    #[error("the path is not UTF-8, or has an encoded slash")]
    PathEncoding,
    #[error("the URL is longer than {0} bytes")]
    UriTooLong(usize),
    #[error("the headers have more than {0} bytes")]
    HeadersTooLarge(usize),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Name(#[from] RepositoryError),
    #[error(transparent)]
    Digest(#[from] DigestError),
    #[error("the query needs a digest")]
    DigestMissing,
    #[error("{0}")]
    PushedReference(ReferenceError),
    #[error("n is not a number")]
    PageSize,
    #[error("there is no such repository")]
    UnknownRepository,
    #[error("there is no such manifest in this repository")]
    UnknownManifest,
    /// A client that takes this registry for a mirror asks the next one when it reads 404. No local content is served
    /// then: whoever may push here could replace images of that registry.
    #[error(
        "there is no upstream for the namespace {namespace:?} here; ask without ns for what is pushed to this registry"
    )]
    UnknownNamespace { namespace: String, what: Option<What> },
    #[error("there is no such upload session; start again with POST")]
    UnknownSession,
    #[error("the node that has this upload session went away meanwhile; ask it where the upload ends")]
    OwnerFailed(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("this node answers as many requests as it can")]
    TooManyRequests,
    #[error("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")]
    ManifestTooLarge,
    #[error("the request's body failed: {0}")]
    Body(#[source] io::Error),
    #[error(transparent)]
    Range(#[from] RangeRefused),
    #[error(transparent)]
    UploadRange(#[from] UploadRangeError),
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// An upload that can go on: the answer says where it ends.
    #[error("{error}")]
    Session { error: UploadError, repository: Repository, id: SessionId },
    #[error("{error}")]
    Fetch { error: FetchError, what: What },
    #[error("{error}")]
    Manage { error: ManageError, what: What },
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A failure of the node, told with the id under which the log has its cause.
    #[error("{error}")]
    Failure { error: Box<ApiError>, request_id: RequestId },
    /// What cannot happen, such as a header that cannot be written.
    #[error("{0}")]
    Internal(String),
}

/// Codes of the specification, and Distribution's for what the specification has none.
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

/// Status, code and pause.
type Verdict = (StatusCode, &'static str, Option<u32>);

const fn plain(status: StatusCode, code: &'static str) -> Verdict {
    (status, code, None)
}

impl ApiError {
    /// An upload's error, with the session that the client may go on with.
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
            // The status that the specification has for too many tags (distribution-spec, "Pushing Manifests").
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
                // 409, not 403: a client that reads 403 asks for other credentials, and none would help.
                ManageError::Protected(_) => plain(S::CONFLICT, code::DENIED),
                ManageError::Tag(error) => tag_verdict(error),
                ManageError::Bucket(_) => BUCKET_FAILED,
            },
            ApiError::Bucket(_) => BUCKET_FAILED,
            ApiError::Failure { error, .. } => error.verdict(),
            ApiError::Internal(_) => plain(S::INTERNAL_SERVER_ERROR, code::UNKNOWN),
        }
    }

    /// What the client reads.
    fn message(&self) -> String {
        match self {
            ApiError::Failure { error, request_id } => {
                format!("{} (request {})", error.message(), request_id.as_str())
            }
            ApiError::Bucket(error)
            | ApiError::Upload(UploadError::Bucket(error) | UploadError::Tag(TagError::Bucket(error)))
            | ApiError::Session { error: UploadError::Bucket(error), .. }
            | ApiError::Fetch { error: FetchError::Bucket(error), .. }
            | ApiError::Manage { error: ManageError::Bucket(error), .. } => {
                format!("the bucket failed: {}", error.kind)
            }
            ApiError::Upload(UploadError::Store(error))
            | ApiError::Session { error: UploadError::Store(error), .. }
            | ApiError::Fetch { error: FetchError::Store(error), .. } => store_message(error).into(),
            ApiError::Fetch { error: FetchError::NotFound, what }
            | ApiError::Manage { error: ManageError::NotFound, what } => match what {
                What::Blob => "there is no such blob in this repository".into(),
                What::Manifest => "there is no such manifest in this repository".into(),
            },
            ApiError::Body(error)
            | ApiError::Upload(UploadError::Body(error))
            | ApiError::Session { error: UploadError::Body(error), .. } => {
                format!("the request's body failed: {}", error.kind())
            }
            ApiError::Internal(_) => "this node failed".into(),
            other => other.to_string(),
        }
    }

    /// Whether the node, or what it depends on, and not the client is the cause: to be logged as a warning.
    pub fn is_failure(&self) -> bool {
        self.status().is_server_error()
    }

    /// The same, with the request's id where only the operator of the registry can help.
    pub fn of_request(self, request_id: &RequestId) -> ApiError {
        if self.is_failure() {
            ApiError::Failure { error: Box::new(self), request_id: request_id.clone() }
        } else {
            self
        }
    }

    /// The entries of the specification's error document: one, but for a manifest that refers to several things that
    /// are missing.
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
            // Required by RFC 9110 with every 405; only reading is allowed.
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
/// Full or broken, it is this node's disk: the next attempt may reach another node.
const STORE_FAILED: Verdict = (StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE, Some(retry_after::ROOM));

fn absent(what: What) -> Verdict {
    match what {
        What::Blob => plain(StatusCode::NOT_FOUND, code::BLOB_UNKNOWN),
        What::Manifest => plain(StatusCode::NOT_FOUND, code::MANIFEST_UNKNOWN),
    }
}

fn fetch_verdict(error: &FetchError, what: What) -> Verdict {
    match error {
        // Content that the bucket lost is unknown: a client that hears so pushes it again, and so repairs it.
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
        // The other request is often one whose connection broke and whose end this node has yet to notice.
        UploadError::Busy => (S::CONFLICT, code::BLOB_UPLOAD_INVALID, Some(retry_after::REQUESTS)),
        UploadError::Unfinished => (S::SERVICE_UNAVAILABLE, code::UNAVAILABLE, Some(retry_after::REQUESTS)),
        UploadError::DigestMismatch { .. } => plain(S::BAD_REQUEST, code::DIGEST_INVALID),
        UploadError::TooManySessions(_) => (S::TOO_MANY_REQUESTS, code::TOOMANYREQUESTS, Some(retry_after::SESSIONS)),
        UploadError::TooLarge(_) => plain(S::PAYLOAD_TOO_LARGE, code::SIZE_INVALID),
        UploadError::Body(error) => body_verdict(error),
        // As CNCF Distribution answers, which clients know.
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

fn store_message(error: &StoreError) -> &'static str {
    if error.is_no_room() { "this node has no room" } else { "the disk of this node failed" }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
