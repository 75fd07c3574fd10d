//! What every response has, whatever handled its request.

use super::cors::Sharing;
use super::request_id::RequestId;
use crate::http::headers;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderMap, HeaderValue, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::response::Response;
use http_body::Body as _;

/// A browser must not run a blob as a script because it looks like one: anybody may push content,
/// and it has the origin of the registry.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Adds the headers of every response, and removes the body of a response to `HEAD`. `private`: the
/// registry has access control.
pub fn complete(
    mut response: Response,
    request_id: &RequestId,
    sharing: Sharing,
    is_head: bool,
    private: bool,
) -> Response {
    let map = response.headers_mut();
    map.insert(headers::API_VERSION, headers::REGISTRY_2);
    map.insert(headers::REQUEST_ID, request_id.header());
    map.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    sharing.write(map);
    if private {
        only_for_this_client(map);
    }
    if is_head { without_body(response) } else { response }
}

/// Keeps shared caches from giving content to clients that may not have it.
fn only_for_this_client(map: &mut HeaderMap) {
    map.append(VARY, HeaderValue::from_static("Authorization"));
    if map.get(CACHE_CONTROL) == Some(&headers::IMMUTABLE) {
        map.insert(CACHE_CONTROL, headers::IMMUTABLE_PRIVATE);
    }
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
