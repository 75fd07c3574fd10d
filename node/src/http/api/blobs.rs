//! `GET`, `HEAD` and `DELETE /v2/<name>/blobs/<digest>` (distribution-spec, "Pulling blobs",
//! "Deleting Blobs").

use super::body::exactly;
use super::byteranges::{ByteRanges, content_range};
use super::dispatch::Services;
use super::error::{ApiError, What};
use super::headers::{self, Identity};
use crate::fetch::{Content, FetchError};
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, IF_RANGE, RANGE,
};
use axum::response::Response;
use entrepot_oci::{Digest, Repository, RequestRange};
use std::ops::Range;

fn failed(error: FetchError) -> ApiError {
    ApiError::Fetch { error, what: What::Blob }
}

pub async fn head(
    services: &Services,
    repository: &Repository,
    digest: &Digest,
    asked: &HeaderMap,
) -> Result<Response, ApiError> {
    if !services.uploads.may_be_found(repository, digest).await? {
        return Err(failed(FetchError::NotFound));
    }
    let size = services.fetch.blob_size(repository, digest).await.map_err(failed)?;
    let identity = identity(digest)?;
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), &identity);
    if identity.is_known(asked) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        let map = response.headers_mut();
        map.insert(CONTENT_TYPE, headers::OCTETS);
        map.insert(CONTENT_LENGTH, size.into());
    }
    Ok(response)
}

pub async fn get(
    services: &Services,
    repository: &Repository,
    digest: &Digest,
    asked: &HeaderMap,
) -> Result<Response, ApiError> {
    let identity = identity(digest)?;
    if identity.is_known(asked) {
        // No content is sent, but the repository must still be checked for the blob.
        return head(services, repository, digest, asked).await;
    }
    let content = services.fetch.blob(repository, digest).await.map_err(failed)?;
    let size = content.size;
    let mut response = match RequestRange::resolve(range_of(asked, &identity), size)? {
        RequestRange::Whole => octets(StatusCode::OK, 0..size, content),
        RequestRange::Part(range) => {
            let content_range = content_range(&range, size);
            let mut response = octets(StatusCode::PARTIAL_CONTENT, range, content);
            headers::set(response.headers_mut(), CONTENT_RANGE, &content_range);
            response
        }
        RequestRange::Parts(ranges) => several(ByteRanges::new(ranges, size), content),
    };
    describe(response.headers_mut(), &identity);
    Ok(response)
}

fn octets(status: StatusCode, range: Range<u64>, content: Content) -> Response {
    let length = range.end - range.start;
    let body = if length == 0 { Body::empty() } else { exactly(length, content.read(range)) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let map = response.headers_mut();
    map.insert(CONTENT_TYPE, headers::OCTETS);
    map.insert(CONTENT_LENGTH, length.into());
    response
}

/// Only the parts have a `Content-Range` (RFC 9110, section 15.3.7.2).
fn several(parts: ByteRanges, content: Content) -> Response {
    let (content_type, length) = (parts.content_type(), parts.length());
    let mut response = Response::new(parts.body(content));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let map = response.headers_mut();
    headers::set(map, CONTENT_TYPE, &content_type);
    map.insert(CONTENT_LENGTH, length.into());
    response
}

pub async fn delete(services: &Services, repository: &Repository, digest: &Digest) -> Result<Response, ApiError> {
    let deleted = services.manage.delete_blob(repository, digest).await;
    deleted.map_err(|error| ApiError::Manage { error, what: What::Blob })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn identity(digest: &Digest) -> Result<Identity, ApiError> {
    Identity::of(digest).ok_or_else(|| ApiError::Internal(format!("{digest} is not a valid header value")))
}

fn describe(map: &mut HeaderMap, identity: &Identity) {
    map.insert(ACCEPT_RANGES, headers::BYTES);
    map.insert(CACHE_CONTROL, headers::IMMUTABLE);
    map.insert(ETAG, identity.etag.clone());
    map.insert(headers::CONTENT_DIGEST, identity.digest.clone());
}

/// The `Range`, unless `If-Range` states that it is a range of other content (RFC 9110, section
/// 13.1.5).
fn range_of<'a>(asked: &'a HeaderMap, identity: &Identity) -> Option<&'a str> {
    let applies = asked.get(IF_RANGE).is_none_or(|condition| *condition == identity.etag);
    asked.get(RANGE).filter(|_| applies).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::Algorithm;

    #[test]
    fn a_range_of_other_content_is_ignored() {
        let identity = Identity::of(&Digest::of(Algorithm::Sha256, b"x")).unwrap();
        let mut asked = HeaderMap::new();
        headers::set(&mut asked, RANGE, "bytes=0-1");
        assert_eq!(range_of(&asked, &identity), Some("bytes=0-1"));
        asked.insert(IF_RANGE, identity.etag.clone());
        assert_eq!(range_of(&asked, &identity), Some("bytes=0-1"));
        headers::set(&mut asked, IF_RANGE, "\"other\"");
        assert_eq!(range_of(&asked, &identity), None);
    }
}
