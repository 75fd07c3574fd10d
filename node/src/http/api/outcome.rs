//! How a request for content is answered.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::HeaderMap;
use axum::response::{IntoResponse, Response};

/// The answer to a request for content that exists. A redirect to the bucket would be another
/// variant, with its `Location`.
pub enum Outcome {
    /// The content, or the requested ranges of it. The body is empty for `HEAD`; the headers then
    /// state its length.
    Stream { status: StatusCode, headers: HeaderMap, body: Body },
    /// The client already has the content.
    NotModified { headers: HeaderMap },
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let (status, headers, body) = match self {
            Outcome::Stream { status, headers, body } => (status, headers, body),
            Outcome::NotModified { headers } => (StatusCode::NOT_MODIFIED, headers, Body::empty()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}
