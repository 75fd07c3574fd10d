//! `GET /v2/<name>/tags/list` (distribution-spec, "Listing Tags").

use super::page;
use super::route::PageQuery;
use super::services::Services;
use crate::http::error::ApiError;
use crate::http::headers::JSON;
use axum::response::Response;
use entrepot_oci::{Repository, Tag};
use serde::Serialize;

#[derive(Serialize)]
struct List<'a> {
    name: &'a str,
    tags: Vec<&'a str>,
}

pub async fn list(services: &Services, repository: &Repository, page: &PageQuery) -> Result<Response, ApiError> {
    let listed = services.discover.tags(repository, page.last.as_deref(), page.count()).await?;
    let listed = listed.ok_or(ApiError::UnknownRepository)?;
    let items = if page.is_empty() { &[][..] } else { &listed.items };
    let list = List { name: repository.as_str(), tags: items.iter().map(Tag::as_str).collect() };
    let content = serde_json::to_vec(&list).map_err(|error| ApiError::Internal(error.to_string()))?;
    let next = listed.next.filter(|_| !page.is_empty());
    let next = next.map(|last| page::next(&format!("/v2/{repository}/tags/list"), None, page, &last));
    Ok(page::answer(content.into(), JSON, next))
}
