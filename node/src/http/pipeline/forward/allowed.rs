//! The headers that pass from one node to another, in both directions. All others stay: cookies,
//! headers of one connection (RFC 9110, section 7.6.1), and whatever a client or a node adds.
//! `Connection` cannot remove an allowed header.

use crate::http::headers::{CONTENT_DIGEST, REQUEST_ID, UPLOAD_UUID};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RANGE,
    RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
};

/// Of requests: what an upload session reads, who the client is, and the ID of the request.
const OF_REQUESTS: [HeaderName; 6] =
    [AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, REQUEST_ID, USER_AGENT];

/// Of responses: what the API sends in answer to a request of an upload session. The headers of every
/// response are added by the node that sends it to the client.
const OF_RESPONSES: [HeaderName; 9] =
    [ALLOW, CONTENT_DIGEST, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, UPLOAD_UUID, WWW_AUTHENTICATE];

/// The headers of a request that another node receives.
pub fn of_request(headers: &HeaderMap) -> HeaderMap {
    only(headers, &OF_REQUESTS)
}

/// The headers of another node's response that a client receives.
pub fn of_response(headers: &HeaderMap) -> HeaderMap {
    only(headers, &OF_RESPONSES)
}

fn only(headers: &HeaderMap, allowed: &[HeaderName]) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(allowed.len());
    for name in allowed {
        for value in headers.get_all(name) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}
