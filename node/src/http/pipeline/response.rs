//! What every response has, whatever handled its request.

use super::cors::Sharing;
use super::request_id::RequestId;
use crate::http::headers;
use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::response::Response;
use http_body::Body as _;

/// Adds the headers of every response, and removes the body of a response to `HEAD`.
pub fn complete(mut response: Response, request_id: &RequestId, sharing: Sharing, is_head: bool) -> Response {
    let map = response.headers_mut();
    map.insert(headers::API_VERSION, headers::REGISTRY_2);
    map.insert(headers::REQUEST_ID, request_id.header());
    sharing.write(map);
    if is_head { without_body(response) } else { response }
}

/// The response to `HEAD`: the length that `GET` would have, and no body.
fn without_body(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0)
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, Body::empty())
}
