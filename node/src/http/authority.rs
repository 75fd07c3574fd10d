//! The name under which a client reaches this registry.

use axum::http::header::{HOST, HeaderMap};
use axum::http::uri::{Authority, Uri};

/// The host and the port to which a request was sent. HTTP/2 has them in the URI, HTTP/1.1 in `Host`.
/// `None` if there is none, or if it is not valid.
pub fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    uri.authority().cloned().or_else(|| headers.get(HOST)?.to_str().ok()?.parse().ok())
}
