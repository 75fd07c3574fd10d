//! A request in the pipeline.

use super::request_id::RequestId;
use crate::http::api::route::Route;
use axum::http::request::Parts;

/// What the stages know about a request. Its body is passed separately.
pub struct Call<'a> {
    pub route: Route,
    pub head: Parts,
    pub request_id: &'a RequestId,
}
