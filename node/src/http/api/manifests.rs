//! `GET`, `HEAD`, `PUT` and `DELETE /v2/<name>/manifests/<reference>` (distribution-spec, "Pulling
//! manifests", "Pushing Manifests", "Deleting Manifests").
//!
//! A manifest is served as it was pushed, whatever `Accept` states, because any other form would
//! have another digest.

use super::audited::Audited;
use super::body::empty;
use super::manifest_body::Gathered;
use super::outcome::Outcome;
use super::running;
use super::services::Services;
use crate::fetch::{FetchError, Resolved};
use crate::http::error::{ApiError, ContentKind};
use crate::http::headers::{self, Identity};
use crate::repository::tags::{Condition, Conditions};
use crate::upload::ManifestPush;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
    LOCATION, WARNING,
};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use entrepot_oci::manifest::media_type_of;
use entrepot_oci::{Digest, Reference, Repository, Tag};
use quick_cache::sync::Cache;

/// Number of manifests whose headers are cached, at about 300 bytes each.
const REMEMBERED: usize = 10_000;

/// How many times a tag is resolved for one request. It is resolved again if its manifest was
/// deleted since the last time.
const RESOLUTIONS: usize = 4;

/// RFC 7234, section 5.5.1: the tag has its last known value, which may have changed since.
const STALE: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");

/// The headers of recently served manifests, by digest, so that a manifest is not parsed each time
/// it is served.
pub struct DescriptionCache(Cache<Digest, Description>);

#[derive(Clone)]
struct Description {
    identity: Identity,
    media_type: HeaderValue,
}

impl Default for DescriptionCache {
    fn default() -> DescriptionCache {
        DescriptionCache(Cache::new(REMEMBERED))
    }
}

impl DescriptionCache {
    fn of(&self, digest: &Digest, content: &[u8]) -> Result<Description, ApiError> {
        if let Some(known) = self.0.get(digest) {
            return Ok(known);
        }
        let internal = || ApiError::Internal(format!("the headers of {digest} are invalid"));
        let description = Description {
            identity: Identity::of(digest).ok_or_else(internal)?,
            media_type: HeaderValue::from_maybe_shared(Bytes::from(media_type_of(content))).map_err(|_| internal())?,
        };
        self.0.insert(*digest, description.clone());
        Ok(description)
    }
}

fn failed(error: FetchError) -> ApiError {
    ApiError::Fetch { error, kind: ContentKind::Manifest }
}

/// Serves `GET`. The response to `HEAD` is the same without the body.
pub async fn get(
    services: &Services,
    descriptions: &DescriptionCache,
    repository: &Repository,
    reference: &Reference,
    headers: &HeaderMap,
    with_body: bool,
) -> Result<Outcome, ApiError> {
    let (digest, content, stale) = match reference {
        Reference::Digest(digest) => {
            if !with_body {
                services.fetch.recheck_manifest(repository, digest).await;
            }
            (*digest, services.fetch.manifest(repository, digest).await.map_err(failed)?, false)
        }
        Reference::Tag(tag) => {
            let resolved = services.fetch.resolve(repository, tag).await.map_err(failed)?;
            let (digest, content) = tagged(services, repository, tag, resolved).await?;
            (digest, content, resolved.stale)
        }
    };
    let description = descriptions.of(&digest, &content)?;
    let mut map = HeaderMap::new();
    map.insert(ETAG, description.identity.etag.clone());
    map.insert(headers::CONTENT_DIGEST, description.identity.digest.clone());
    if matches!(reference, Reference::Digest(_)) {
        map.insert(CACHE_CONTROL, headers::IMMUTABLE);
    }
    if stale {
        map.insert(WARNING, STALE);
    }
    if description.identity.is_known(headers) {
        return Ok(Outcome::NotModified { headers: map });
    }
    map.insert(CONTENT_TYPE, description.media_type);
    map.insert(CONTENT_LENGTH, content.len().into());
    let body = if with_body { Body::from(content) } else { Body::empty() };
    Ok(Outcome::Stream { status: StatusCode::OK, headers: map, body })
}

pub async fn put(
    services: &Services,
    repository: &Repository,
    reference: &Reference,
    tags: &[Tag],
    head: &Parts,
    gathered: Gathered,
) -> Result<Response, ApiError> {
    let headers = &head.headers;
    let Gathered { content, memory } = gathered;
    // A content type that is not text cannot be the type of a manifest. The manifest's own
    // `mediaType` is used then.
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let conditions = conditions(headers);
    let push = ManifestPush { reference: reference.clone(), tags: tags.to_vec(), content_type, content, conditions };
    let accepted = services.uploads.manifest(repository, push, (running(head), memory)).await?;
    let mut response = empty(StatusCode::CREATED);
    let map = response.headers_mut();
    headers::set(map, LOCATION, &format!("/v2/{repository}/manifests/{}", accepted.digest));
    headers::set(map, headers::CONTENT_DIGEST, &accepted.digest.to_string());
    if let Some(subject) = accepted.subject {
        headers::set(map, headers::SUBJECT, &subject.to_string());
    }
    for tag in tags {
        headers::add(map, headers::TAG, tag.as_str());
    }
    Ok(Audited { digest: Some(accepted.digest), tags: accepted.moved }.attach(response))
}

/// The manifest of a tag. Since the tag was resolved, its manifest may have been deleted and the
/// tag may refer to another one.
async fn tagged(
    services: &Services,
    repository: &Repository,
    tag: &Tag,
    resolved: Resolved,
) -> Result<(Digest, Bytes), ApiError> {
    let mut digest = resolved.digest;
    for _ in 0..RESOLUTIONS {
        match services.fetch.manifest(repository, &digest).await {
            Err(FetchError::NotFound) if !resolved.stale && !services.read_only => {
                let now = services.uploads.relink(repository, tag, &digest).await?;
                digest = now.ok_or_else(|| failed(FetchError::NotFound))?;
            }
            content => return Ok((digest, content.map_err(failed)?)),
        }
    }
    Err(failed(FetchError::NotFound))
}

/// The client's preconditions on the tag that it writes (RFC 9110, sections 13.1.1 and 13.1.2).
fn conditions(headers: &HeaderMap) -> Conditions {
    let lists = |name: HeaderName| {
        let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        let tags: Vec<&str> = values.iter().flat_map(|list| list.split(',')).map(str::trim).collect();
        let digests = tags.iter().filter_map(|tag| Digest::parse(tag.strip_prefix('"')?.strip_suffix('"')?).ok());
        (!values.is_empty()).then(|| (tags.contains(&"*"), digests.collect()))
    };
    let of = |any, of_list: fn(Vec<Digest>) -> Condition, (is_any, list)| if is_any { any } else { of_list(list) };
    let matching = lists(IF_MATCH).map(|list| of(Condition::Exists, Condition::OneOf, list));
    let differing = lists(IF_NONE_MATCH).map(|list| of(Condition::Absent, Condition::NoneOf, list));
    Conditions(matching.into_iter().chain(differing).collect())
}

pub async fn delete(
    services: &Services,
    repository: &Repository,
    reference: &Reference,
    head: &Parts,
) -> Result<Response, ApiError> {
    let deleted = match reference {
        Reference::Tag(tag) => services.manage.delete_tag(repository, tag).await,
        Reference::Digest(digest) => {
            let deleted = services.manage.delete_manifest(repository, digest, running(head)).await;
            deleted.map(|()| Some(*digest))
        }
    };
    let digest = deleted.map_err(|error| ApiError::Manage { error, kind: ContentKind::Manifest })?;
    Ok(Audited { digest, tags: Vec::new() }.attach(empty(StatusCode::ACCEPTED)))
}
