//! Errors while the body of a request is read.

use super::refusal::{Refusal, code};
use axum::http::StatusCode;
use std::io;

/// The message does not contain the text of the error's source.
pub fn refusal(error: &io::Error) -> Refusal {
    let (status, external) = match error.kind() {
        io::ErrorKind::TimedOut => (
            StatusCode::REQUEST_TIMEOUT,
            "cannot read the request body: the client sent too slowly (http.stallTimeout, http.minRate)",
        ),
        io::ErrorKind::UnexpectedEof => {
            (StatusCode::BAD_REQUEST, "cannot read the request body: it is shorter than its Content-Length")
        }
        _ => (StatusCode::BAD_REQUEST, "cannot read the request body: the connection failed"),
    };
    Refusal::new((status, code::BLOB_UPLOAD_INVALID), external)
}
