//! `/v2/<name>/blobs/uploads/…` (distribution-spec, "Pushing blobs"), at the node that has the session.

use super::body::RequestBody;
use super::dispatch::Services;
use super::error::ApiError;
use super::headers;
use super::routes::Begin;
use crate::oci::{Digest, Repository, SessionId, UploadRange};
use crate::upload::{SessionStatus, UploadError};
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, LOCATION, RANGE};
use axum::response::Response;
use http_body::Body as _;

/// `POST`: a mount, a whole blob, or a session. What cannot be mounted is uploaded.
pub async fn begin(
    services: &Services,
    repository: &Repository,
    begin: &Begin,
    body: RequestBody,
) -> Result<Response, ApiError> {
    match begin {
        Begin::Session => {}
        Begin::Whole(digest) => return whole(services, repository, digest, body).await,
        Begin::Mount { digest, from } => {
            if services.uploads.mount(repository, digest, from).await? {
                return Ok(created(repository, digest));
            }
        }
    }
    let status = services.uploads.open(repository).await?;
    Ok(progress(StatusCode::ACCEPTED, repository, &status))
}

/// A blob in one request. A failure leaves no session behind, for the client does not know of any.
async fn whole(
    services: &Services,
    repository: &Repository,
    digest: &Digest,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let session = services.uploads.open(repository).await?;
    match services.uploads.finish(repository, &session.id, digest, None, body).await {
        Ok(()) => Ok(created(repository, digest)),
        Err(error) => {
            match services.uploads.cancel(repository, &session.id).await {
                // A digest that does not match ended it.
                Ok(()) | Err(UploadError::UnknownSession) => {}
                Err(error) => tracing::warn!(%error, "a session of a failed upload stays until it expires"),
            }
            Err(error.into())
        }
    }
}

/// `GET`: how far the session is.
pub async fn status(services: &Services, repository: &Repository, id: &SessionId) -> Result<Response, ApiError> {
    let status = services.uploads.status(repository, id).await?;
    Ok(progress(StatusCode::NO_CONTENT, repository, &status))
}

/// `PATCH`: a chunk, or all that there is in one stream.
pub async fn append(
    services: &Services,
    repository: &Repository,
    id: &SessionId,
    asked: &HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let range = chunk_range(asked, &body)?;
    let appended = services.uploads.append(repository, id, range, body).await;
    let status = appended.map_err(|error| ApiError::of_session(error, repository, id))?;
    Ok(progress(StatusCode::ACCEPTED, repository, &status))
}

/// `PUT`: the last chunk, if there is one, and the digest of the whole.
pub async fn finish(
    services: &Services,
    repository: &Repository,
    id: &SessionId,
    digest: &Digest,
    asked: &HeaderMap,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let range = chunk_range(asked, &body)?;
    let finished = services.uploads.finish(repository, id, digest, range, body).await;
    finished.map_err(|error| ApiError::of_session(error, repository, id))?;
    Ok(created(repository, digest))
}

/// `DELETE`.
pub async fn cancel(services: &Services, repository: &Repository, id: &SessionId) -> Result<Response, ApiError> {
    services.uploads.cancel(repository, id).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Where a chunk lies. Without a body there is no chunk, whatever the client says of it.
fn chunk_range(asked: &HeaderMap, body: &RequestBody) -> Result<Option<UploadRange>, ApiError> {
    let Some(value) = asked.get(CONTENT_RANGE).filter(|_| !body.is_end_stream()) else { return Ok(None) };
    Ok(Some(UploadRange::parse(value.to_str().unwrap_or_default())?))
}

fn progress(code: StatusCode, repository: &Repository, status: &SessionStatus) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    let map = response.headers_mut();
    headers::set(map, LOCATION, &headers::session_path(repository, &status.id));
    headers::set(map, RANGE, &headers::received(status.offset));
    headers::set(map, headers::UPLOAD_UUID, &status.id.to_string());
    if code != StatusCode::NO_CONTENT {
        map.insert(CONTENT_LENGTH, 0.into());
    }
    response
}

fn created(repository: &Repository, digest: &Digest) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let map = response.headers_mut();
    headers::set(map, LOCATION, &format!("/v2/{repository}/blobs/{digest}"));
    headers::set(map, headers::CONTENT_DIGEST, &digest.to_string());
    map.insert(CONTENT_LENGTH, 0.into());
    response
}
