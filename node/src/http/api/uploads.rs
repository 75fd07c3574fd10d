//! `/v2/<name>/blobs/uploads/…` (distribution-spec, "Pushing blobs"), at the node that owns the
//! session.

use super::body::{RequestBody, empty};
use super::requester::Requester;
use super::route::Begin;
use super::services::Services;
use crate::http::error::ApiError;
use crate::http::headers;
use crate::upload::{Place, SessionStatus, UploadError};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, LOCATION, RANGE};
use axum::response::Response;
use entrepot_oci::{Digest, Repository, SessionId, UploadRange};
use http_body::Body as _;

/// `POST`: mounts a blob, uploads a whole blob, or opens a session. If a mount is not possible, a
/// session is opened.
pub async fn begin(
    services: &Services,
    repository: &Repository,
    begin: &Begin,
    requester: &Requester,
    body: RequestBody,
) -> Result<Response, ApiError> {
    match begin {
        Begin::Session => {}
        Begin::Whole(digest) => return whole(services, repository, digest, requester, body).await,
        Begin::Mount { digest, from } => {
            if services.uploads.mount(repository, digest, from).await? {
                return Ok(created(repository, digest));
            }
        }
    }
    let status = services.uploads.open(repository, requester.holder()).await?;
    Ok(progress(StatusCode::ACCEPTED, repository, &status))
}

/// Uploads a blob in one request. A failure leaves no session behind, because the client does not
/// know its URL.
async fn whole(
    services: &Services,
    repository: &Repository,
    digest: &Digest,
    requester: &Requester,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let session = services.uploads.open(repository, requester.holder()).await?;
    match services.uploads.finish(repository, &session.id, digest, None, body).await {
        Ok(()) => Ok(created(repository, digest)),
        // The commit continues in the background and ends the session itself.
        Err(error @ UploadError::Unfinished) => Err(error.into()),
        Err(error) => {
            match services.uploads.cancel(repository, &session.id).await {
                // A digest mismatch has already ended the session.
                Ok(()) | Err(UploadError::UnknownSession) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot remove the session of a failed upload; it will expire")
                }
            }
            Err(error.into())
        }
    }
}

/// `GET`: how many bytes the session has received.
pub async fn status(services: &Services, repository: &Repository, id: &SessionId) -> Result<Response, ApiError> {
    let status = services.uploads.status(repository, id).await?;
    Ok(progress(StatusCode::NO_CONTENT, repository, &status))
}

/// `PATCH`: a chunk, or the whole content in one stream.
pub async fn append(
    services: &Services,
    repository: &Repository,
    id: &SessionId,
    offset: Option<u64>,
    headers: &HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let place = place(offset, headers, &body)?;
    let appended = services.uploads.append(repository, id, place, body).await;
    let status = appended.map_err(|error| ApiError::of_session(error, repository, id))?;
    Ok(progress(StatusCode::ACCEPTED, repository, &status))
}

/// `PUT`: the last chunk, if any, and the digest of the whole content.
pub async fn finish(
    services: &Services,
    repository: &Repository,
    (id, offset): (&SessionId, Option<u64>),
    digest: &Digest,
    headers: &HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let place = place(offset, headers, &body)?;
    let finished = services.uploads.finish(repository, id, digest, place, body).await;
    finished.map_err(|error| ApiError::of_session(error, repository, id))?;
    Ok(created(repository, digest))
}

/// `PUT` to a session whose owner is unreachable. It may repeat a request that was completed.
pub async fn finish_without_owner(
    services: &Services,
    repository: &Repository,
    digest: &Digest,
) -> Result<Response, ApiError> {
    services.uploads.finished(repository, digest).await?;
    Ok(created(repository, digest))
}

/// `DELETE`: removes the session.
pub async fn cancel(services: &Services, repository: &Repository, id: &SessionId) -> Result<Response, ApiError> {
    services.uploads.cancel(repository, id).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// The position of the body in the upload. `Content-Range` takes precedence over the offset in the
/// URL, because the client may have used an older `Location`. A request without a body has no
/// chunk, whatever its headers state.
fn place(offset: Option<u64>, headers: &HeaderMap, body: &RequestBody) -> Result<Option<Place>, ApiError> {
    if body.is_end_stream() {
        return Ok(None);
    }
    match headers.get(CONTENT_RANGE) {
        Some(value) => Ok(Some(Place::Range(UploadRange::parse(value.to_str().unwrap_or_default())?))),
        None => Ok(offset.map(Place::Offset)),
    }
}

fn progress(code: StatusCode, repository: &Repository, status: &SessionStatus) -> Response {
    let mut response = empty(code);
    let map = response.headers_mut();
    headers::set(map, LOCATION, &headers::session_path(repository, &status.id, status.offset));
    headers::set(map, RANGE, &headers::received(status.offset));
    headers::set(map, headers::UPLOAD_UUID, &status.id.to_string());
    if code != StatusCode::NO_CONTENT {
        map.insert(CONTENT_LENGTH, 0.into());
    }
    response
}

fn created(repository: &Repository, digest: &Digest) -> Response {
    let mut response = empty(StatusCode::CREATED);
    let map = response.headers_mut();
    headers::set(map, LOCATION, &format!("/v2/{repository}/blobs/{digest}"));
    headers::set(map, headers::CONTENT_DIGEST, &digest.to_string());
    map.insert(CONTENT_LENGTH, 0.into());
    response
}
