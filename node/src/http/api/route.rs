//! Which operation a request is for, from its method, path and query alone.
//!
//! All parts of a path are parsed into the types of `oci`; its unparsed text is not used after that.

use super::endpoint::{Endpoint, EndpointKind};
use super::token::TokenQuery;
use crate::http::error::ApiError;
use crate::http::query::Query;
use axum::http::Method;
use entrepot_oci::{Digest, Reference, Repository, SessionId, Tag};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The requested part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// Maximum number of entries. `None`: the maximum of this registry.
    pub n: Option<usize>,
    /// The list continues after this entry.
    pub last: Option<String>,
}

/// How an upload starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// By opening a session.
    Session,
    /// With the whole blob in the body of this request.
    Whole(Digest),
    /// By mounting a blob of another repository.
    Mount { digest: Digest, from: Repository },
}

/// A request that this registry supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Home,
    Version,
    /// A request for a token.
    Token(TokenQuery),
    Catalog {
        page: PageQuery,
    },
    Tags {
        repository: Repository,
        page: PageQuery,
    },
    Referrers {
        repository: Repository,
        subject: Digest,
        artifact_type: Option<String>,
        page: PageQuery,
    },
    PullManifest {
        repository: Repository,
        reference: Reference,
    },
    /// `tags` are the tags of the query.
    PushManifest {
        repository: Repository,
        reference: Reference,
        tags: Vec<Tag>,
    },
    DeleteManifest {
        repository: Repository,
        reference: Reference,
    },
    PullBlob {
        repository: Repository,
        digest: Digest,
    },
    DeleteBlob {
        repository: Repository,
        digest: Digest,
    },
    BeginUpload {
        repository: Repository,
        begin: Begin,
    },
    UploadStatus {
        repository: Repository,
        id: SessionId,
    },
    /// `offset`: the position of the first byte, from the session's `Location`.
    AppendUpload {
        repository: Repository,
        id: SessionId,
        offset: Option<u64>,
    },
    FinishUpload {
        repository: Repository,
        id: SessionId,
        offset: Option<u64>,
        digest: Digest,
    },
    CancelUpload {
        repository: Repository,
        id: SessionId,
    },
}

impl Route {
    /// Parses a request; `query` is the text after `?`.
    ///
    /// # Errors
    /// Returns the error of the response: 404 for an unknown path, 405 for a method that the path
    /// does not support, 400 for an invalid name or digest.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Route, ApiError> {
        let endpoint = Endpoint::of(path);
        let allowed = endpoint.kind.methods();
        if allowed.is_empty() {
            return Err(ApiError::NoRoute);
        }
        if !allowed.split(", ").any(|name| name == method.as_str()) {
            return Err(ApiError::Method { allowed });
        }
        if endpoint.kind == EndpointKind::Token {
            return Ok(Route::Token(TokenQuery::parse(query.unwrap_or_default())));
        }
        endpoint.route(method, &Query::new(query)?)
    }

    /// The repository, for the access log.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Route::Home | Route::Version | Route::Token(_) | Route::Catalog { .. } => None,
            Route::Tags { repository, .. }
            | Route::Referrers { repository, .. }
            | Route::PullManifest { repository, .. }
            | Route::PushManifest { repository, .. }
            | Route::DeleteManifest { repository, .. }
            | Route::PullBlob { repository, .. }
            | Route::DeleteBlob { repository, .. }
            | Route::BeginUpload { repository, .. }
            | Route::UploadStatus { repository, .. }
            | Route::AppendUpload { repository, .. }
            | Route::FinishUpload { repository, .. }
            | Route::CancelUpload { repository, .. } => Some(repository),
        }
    }
}

impl Endpoint<'_> {
    fn route(&self, method: &Method, query: &Query<'_>) -> Result<Route, ApiError> {
        let repository = || Ok::<_, ApiError>(Repository::parse(&decode(self.name)?)?);
        Ok(match (self.kind, method) {
            (EndpointKind::Unknown | EndpointKind::Token, _) => return Err(ApiError::NoRoute),
            (EndpointKind::Home, _) => Route::Home,
            (EndpointKind::Version, _) => Route::Version,
            (EndpointKind::Catalog, _) => Route::Catalog { page: page(query)? },
            (EndpointKind::Tags, _) => Route::Tags { repository: repository()?, page: page(query)? },
            (EndpointKind::Referrers, _) => Route::Referrers {
                repository: repository()?,
                subject: self.digest()?,
                artifact_type: query.get("artifactType")?.map(Cow::into_owned),
                page: page(query)?,
            },
            (EndpointKind::Manifest, &Method::PUT) => {
                let (repository, item) = (repository()?, decode(self.item)?);
                let reference = Reference::parse(&item).map_err(ApiError::PushedReference)?;
                let tags = match reference {
                    Reference::Digest(_) => pushed_tags(query)?,
                    // The specification defines `tag` only for a push by digest. For a push by tag
                    // no further tags are created. The client can tell, because the response does
                    // not list them.
                    Reference::Tag(_) => Vec::new(),
                };
                Route::PushManifest { repository, reference, tags }
            }
            (EndpointKind::Manifest, &Method::DELETE) => {
                Route::DeleteManifest { repository: repository()?, reference: self.known_reference()? }
            }
            (EndpointKind::Manifest, _) => {
                Route::PullManifest { repository: repository()?, reference: self.known_reference()? }
            }
            (EndpointKind::Blob, &Method::DELETE) => {
                Route::DeleteBlob { repository: repository()?, digest: self.digest()? }
            }
            (EndpointKind::Blob, _) => Route::PullBlob { repository: repository()?, digest: self.digest()? },
            (EndpointKind::Uploads, _) => Route::BeginUpload { repository: repository()?, begin: begin(query)? },
            (EndpointKind::Session, _) => self.session(method, repository()?, query)?,
        })
    }

    fn session(&self, method: &Method, repository: Repository, query: &Query<'_>) -> Result<Route, ApiError> {
        // An ID that this registry cannot have generated belongs to no session.
        let id = SessionId::parse(&decode(self.item)?).map_err(|_| ApiError::UnknownSession)?;
        let offset = query.get("offset")?;
        // This registry never sends a `Location` with any other text, so there is no such session.
        let offset = offset.map(|text| parse_offset(&text).ok_or(ApiError::UnknownSession)).transpose()?;
        Ok(match *method {
            Method::PATCH => Route::AppendUpload { repository, id, offset },
            Method::PUT => {
                let digest = query.get("digest")?.ok_or(ApiError::DigestMissing)?;
                Route::FinishUpload { repository, id, offset, digest: Digest::parse(&digest)? }
            }
            Method::DELETE => Route::CancelUpload { repository, id },
            _ => Route::UploadStatus { repository, id },
        })
    }

    fn digest(&self) -> Result<Digest, ApiError> {
        Ok(Digest::parse(&decode(self.item)?)?)
    }

    /// A reference to something that should exist. An invalid tag cannot exist, so it is answered
    /// with 404, as the conformance suite requires for `.INVALID_MANIFEST_NAME`.
    fn known_reference(&self) -> Result<Reference, ApiError> {
        let item = decode(self.item)?;
        if item.contains(':') {
            return Ok(Reference::Digest(Digest::parse(&item)?));
        }
        Tag::parse(&item).map(Reference::Tag).map_err(|_| ApiError::UnknownManifest)
    }
}

/// Percent-decodes a part of a path. An encoded slash is refused, because a program that checks the
/// URL before it is decoded, such as a proxy with rules on paths, would see another path.
fn decode(part: &str) -> Result<Cow<'_, str>, ApiError> {
    if !part.contains('%') {
        return Ok(Cow::Borrowed(part));
    }
    let decoded = percent_decode_str(part).decode_utf8().map_err(|_| ApiError::PathEncoding)?;
    let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    if slashes(&decoded) == slashes(part) { Ok(decoded) } else { Err(ApiError::PathEncoding) }
}

fn page(query: &Query<'_>) -> Result<PageQuery, ApiError> {
    let n = query.get("n")?.map(|text| parse_count(&text).ok_or(ApiError::PageSize)).transpose()?;
    Ok(PageQuery { n, last: query.get("last")?.map(Cow::into_owned) })
}

/// Parses a plain decimal number. A number that is larger than any list is reduced to the largest
/// possible one.
fn parse_count(text: &str) -> Option<usize> {
    let plain = text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(usize::MAX))
}

/// Parses a plain decimal number of bytes.
fn parse_offset(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The tags that a manifest gets in addition to its digest, without duplicates (distribution-spec,
/// "Pushing Manifests", end-7b). The limit on query parameters also limits the tags; the
/// specification requires support for at least ten.
fn pushed_tags(query: &Query<'_>) -> Result<Vec<Tag>, ApiError> {
    let mut tags: Vec<Tag> = Vec::new();
    for text in query.all("tag")? {
        let tag = Tag::parse(&text).map_err(ApiError::PushedReference)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

/// How an upload starts. A mount from an invalid repository opens a session, as does a mount from a
/// repository that does not have the blob.
fn begin(query: &Query<'_>) -> Result<Begin, ApiError> {
    if let Some(digest) = query.get("mount")? {
        let digest = Digest::parse(&digest)?;
        let from = query.get("from")?.and_then(|from| Repository::parse(&from).ok());
        return Ok(from.map_or(Begin::Session, |from| Begin::Mount { digest, from }));
    }
    match query.get("digest")? {
        Some(digest) => Ok(Begin::Whole(Digest::parse(&digest)?)),
        None => Ok(Begin::Session),
    }
}

#[cfg(test)]
mod tests;
