//! The limits for the head of a request, and its route.

use super::namespace;
use crate::http::api::route::Route;
use crate::http::error::ApiError;
use axum::extract::Request;
use axum::http::header::HeaderMap;

/// Twice the size of a repository name of 255 characters, a sha512 digest and a session ID, all
/// percent-encoded.
const MAX_URI_BYTES: usize = 4096;

/// Limit for names and values together. Bearer tokens are the largest headers that registries
/// receive, at 8 KiB and more.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// Parses requests.
pub struct Parse {
    /// `http.namespaces`.
    pub namespaces: Vec<String>,
}

impl Parse {
    /// Parses a request and checks that it may be served here.
    ///
    /// # Errors
    /// Returns the error of the response.
    pub fn route(&self, request: &Request) -> Result<Route, ApiError> {
        check_sizes(request)?;
        let route = Route::parse(request.method(), request.uri().path(), request.uri().query())?;
        namespace::check(request, &route, &self.namespaces)?;
        Ok(route)
    }
}

/// Checks sizes that the client controls. A request that exceeds a limit is refused before anything
/// is done with it.
fn check_sizes(request: &Request) -> Result<(), ApiError> {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > MAX_URI_BYTES {
        return Err(ApiError::UriTooLong(MAX_URI_BYTES));
    }
    if header_bytes(request.headers()) > MAX_HEADER_BYTES {
        return Err(ApiError::HeadersTooLarge(MAX_HEADER_BYTES));
    }
    Ok(())
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}
