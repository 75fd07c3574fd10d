//! `GET /v2/_catalog`: lists the repositories, in the format of CNCF Distribution.

use super::page;
use super::requester::Requester;
use super::route::PageQuery;
use super::services::Services;
use crate::discover::Scope;
use crate::http::error::ApiError;
use crate::http::headers::JSON;
use axum::response::Response;
use entrepot_oci::Repository;
use serde::Serialize;

#[derive(Serialize)]
struct List<'a> {
    repositories: Vec<&'a str>,
}

/// Lists the repositories that the requester may pull, and reads nothing else in the bucket.
pub async fn list(services: &Services, page: &PageQuery, requester: &Requester) -> Result<Response, ApiError> {
    // The start of the next page need not be a name, but it is always visible ASCII.
    if let Some(last) = page.last.as_deref().filter(|last| !last.bytes().all(|byte| byte.is_ascii_graphic())) {
        Repository::parse(last)?;
    }
    let listable = requester.policy.as_ref().map(|policy| policy.rules.listable(&requester.client.caller));
    let may_pull = |name: &Repository| listable.as_ref().is_none_or(|listable| listable.contains(name));
    let scope = match &listable {
        Some(listable) => Scope { prefixes: listable.prefixes().to_vec(), allows: &may_pull },
        None => Scope::all(),
    };
    let listed = services.discover.repositories(&scope, page.last.as_deref(), page.count()).await?;
    let items = if page.is_empty() { &[][..] } else { &listed.items };
    let list = List { repositories: items.iter().map(Repository::as_str).collect() };
    let content = serde_json::to_vec(&list).map_err(|error| ApiError::Internal(error.to_string()))?;
    let next = listed.next.filter(|_| !page.is_empty());
    let next = next.map(|last| page::next("/v2/_catalog", None, page, &last));
    Ok(page::answer(content.into(), JSON, next))
}
