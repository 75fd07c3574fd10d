//! Errors of pushing blobs and manifests.

use super::refusal::{Refusal, UNAVAILABLE, code, retry_after};
use super::{body, store, tag};
use crate::http::headers;
use crate::upload::UploadError;
use axum::http::StatusCode as S;
use axum::http::header::{LOCATION, RANGE};
use entrepot_oci::{ManifestError, Repository, SessionId};

pub fn refusal(error: &UploadError) -> Refusal {
    let status_and_code = match error {
        UploadError::UnknownSession => (S::NOT_FOUND, code::BLOB_UPLOAD_UNKNOWN),
        UploadError::OutOfOrder { .. } => (S::RANGE_NOT_SATISFIABLE, code::BLOB_UPLOAD_INVALID),
        UploadError::Length { .. } => (S::BAD_REQUEST, code::SIZE_INVALID),
        UploadError::LongerThanRange => (S::BAD_REQUEST, code::BLOB_UPLOAD_INVALID),
        // The other request is often one whose connection broke, which this node has not noticed
        // yet.
        UploadError::Busy => {
            return Refusal::new((S::CONFLICT, code::BLOB_UPLOAD_INVALID), error).retry_after(retry_after::REQUESTS);
        }
        UploadError::Unfinished | UploadError::Stopping => {
            return Refusal::new(UNAVAILABLE, error).retry_after(retry_after::REQUESTS);
        }
        UploadError::DigestMismatch { .. } | UploadError::Manifest(ManifestError::Digest { .. }) => {
            (S::BAD_REQUEST, code::DIGEST_INVALID)
        }
        UploadError::TooManySessions(_) => {
            let too_many = (S::TOO_MANY_REQUESTS, code::TOOMANYREQUESTS);
            return Refusal::new(too_many, error).retry_after(retry_after::SESSIONS);
        }
        UploadError::ShareUsed => return Refusal::new(UNAVAILABLE, error).retry_after(retry_after::ROOM),
        UploadError::TooLarge(_) => (S::PAYLOAD_TOO_LARGE, code::SIZE_INVALID),
        // CNCF Distribution sends the same status and code, which clients know.
        UploadError::MissingReferences { blobs, manifests } => {
            let missing = Refusal::new((S::BAD_REQUEST, code::MANIFEST_BLOB_UNKNOWN), error);
            return missing.about(blobs.iter().chain(manifests));
        }
        UploadError::Manifest(_)
        | UploadError::TooManyReferences { .. }
        | UploadError::ForeignUrl { .. }
        | UploadError::Sizes { .. }
        | UploadError::SizeMismatch { .. } => (S::BAD_REQUEST, code::MANIFEST_INVALID),
        UploadError::Body(error) => return body::refusal(error),
        UploadError::Pending(_) => return store::bucket_failed(error),
        UploadError::Tag(error) => return tag::refusal(error),
        UploadError::Bucket(error) => return store::bucket(error),
        UploadError::Store(error) => return store::disk(error),
    };
    Refusal::new(status_and_code, error)
}

/// The refusal of a request of a session. If the session can be resumed, it states the offset.
pub fn of_session(error: &UploadError, repository: &Repository, id: &SessionId) -> Refusal {
    let refusal = refusal(error);
    let (UploadError::OutOfOrder { offset } | UploadError::Length { offset }) = error else { return refusal };
    refusal
        .header(LOCATION, &headers::session_path(repository, id, *offset))
        .header(RANGE, &headers::received(*offset))
        .header(headers::UPLOAD_UUID, &id.to_string())
}
