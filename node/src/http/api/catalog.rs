//! `GET /v2/_catalog`: lists the repositories, in the format of CNCF Distribution.

use super::page;
use super::route::PageQuery;
use super::services::Services;
use crate::http::error::ApiError;
use crate::http::headers::JSON;
use axum::response::Response;
use entrepot_oci::Repository;
use serde::Serialize;

#[derive(Serialize)]
struct List<'a> {
    repositories: Vec<&'a str>,
}

pub async fn list(services: &Services, page: &PageQuery) -> Result<Response, ApiError> {
    let last = page.last.as_deref().map(Repository::parse).transpose()?;
    let listed = services.discover.repositories(last.as_ref(), page.count()).await?;
    let items = if page.is_empty() { &[][..] } else { &listed.items };
    let list = List { repositories: items.iter().map(Repository::as_str).collect() };
    let content = serde_json::to_vec(&list).map_err(|error| ApiError::Internal(error.to_string()))?;
    let last = items.last().filter(|_| listed.more);
    let next = last.map(|last| page::next("/v2/_catalog", None, page, last.as_str()));
    Ok(page::answer(content.into(), JSON, next))
}
