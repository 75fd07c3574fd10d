//! `GET`, `HEAD` and `DELETE /v2/<name>/blobs/<digest>` (distribution-spec, "Pulling blobs",
//! "Deleting Blobs").

use super::body::{empty, exactly};
use super::byteranges::{ByteRanges, content_range};
use super::outcome::Outcome;
use super::running;
use super::services::Services;
use crate::fetch::{Content, FetchError};
use crate::http::error::{ApiError, ContentKind};
use crate::http::headers::{self, Identity};
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, IF_RANGE, RANGE,
};
use axum::http::request::Parts;
use axum::response::Response;
use entrepot_oci::{Digest, Repository, RequestRange};
use std::ops::Range;

fn failed(error: FetchError) -> ApiError {
    ApiError::Fetch { error, kind: ContentKind::Blob }
}

pub async fn head(
    services: &Services,
    repository: &Repository,
    digest: &Digest,
    headers: &HeaderMap,
) -> Result<Outcome, ApiError> {
    if !services.uploads.may_be_found(repository, digest).await? {
        return Err(failed(FetchError::NotFound));
    }
    let size = services.fetch.blob_size(repository, digest).await.map_err(failed)?;
    let identity = identity(digest)?;
    let mut map = HeaderMap::new();
    describe(&mut map, &identity);
    if identity.is_known(headers) {
        return Ok(Outcome::NotModified { headers: map });
    }
    map.insert(CONTENT_TYPE, headers::OCTETS);
    map.insert(CONTENT_LENGTH, size.into());
    Ok(Outcome::Stream { status: StatusCode::OK, headers: map, body: Body::empty() })
}

pub async fn get(
    services: &Services,
    repository: &Repository,
    digest: &Digest,
    headers: &HeaderMap,
) -> Result<Outcome, ApiError> {
    let identity = identity(digest)?;
    if identity.is_known(headers) {
        // No content is sent, but the repository must still be checked for the blob.
        return head(services, repository, digest, headers).await;
    }
    let content = services.fetch.blob(repository, digest).await.map_err(failed)?;
    let size = content.size;
    let mut map = HeaderMap::new();
    describe(&mut map, &identity);
    let (status, length, body) = match RequestRange::resolve(range_of(headers, &identity), size)? {
        RequestRange::Whole => {
            map.insert(CONTENT_TYPE, headers::OCTETS);
            (StatusCode::OK, size, octets(0..size, content))
        }
        RequestRange::Part(range) => {
            map.insert(CONTENT_TYPE, headers::OCTETS);
            headers::set(&mut map, CONTENT_RANGE, &content_range(&range, size));
            (StatusCode::PARTIAL_CONTENT, range.end - range.start, octets(range, content))
        }
        // Only the parts have a `Content-Range` (RFC 9110, section 15.3.7.2).
        RequestRange::Parts(ranges) => {
            let parts = ByteRanges::new(ranges, size);
            headers::set(&mut map, CONTENT_TYPE, &parts.content_type());
            (StatusCode::PARTIAL_CONTENT, parts.length(), parts.body(content))
        }
    };
    map.insert(CONTENT_LENGTH, length.into());
    Ok(Outcome::Stream { status, headers: map, body })
}

fn octets(range: Range<u64>, content: Content) -> Body {
    let length = range.end - range.start;
    if length == 0 { Body::empty() } else { exactly(length, content.read(range)) }
}

pub async fn delete(
    services: &Services,
    repository: &Repository,
    digest: &Digest,
    head: &Parts,
) -> Result<Response, ApiError> {
    let deleted = services.manage.delete_blob(repository, digest, running(head)).await;
    deleted.map_err(|error| ApiError::Manage { error, kind: ContentKind::Blob })?;
    Ok(empty(StatusCode::ACCEPTED))
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
fn range_of<'a>(headers: &'a HeaderMap, identity: &Identity) -> Option<&'a str> {
    let applies = headers.get(IF_RANGE).is_none_or(|condition| *condition == identity.etag);
    headers.get(RANGE).filter(|_| applies).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::Algorithm;

    #[test]
    fn a_range_of_other_content_is_ignored() {
        let identity = Identity::of(&Digest::of(Algorithm::Sha256, b"x")).unwrap();
        let mut headers = HeaderMap::new();
        headers::set(&mut headers, RANGE, "bytes=0-1");
        assert_eq!(range_of(&headers, &identity), Some("bytes=0-1"));
        headers.insert(IF_RANGE, identity.etag.clone());
        assert_eq!(range_of(&headers, &identity), Some("bytes=0-1"));
        headers::set(&mut headers, IF_RANGE, "\"other\"");
        assert_eq!(range_of(&headers, &identity), None);
    }
}
