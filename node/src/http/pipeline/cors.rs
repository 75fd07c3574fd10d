//! What web pages of other origins may read in a browser (Fetch standard, "CORS protocol"):
//! nothing, unless `http.allowedOrigins` lists their origin.
//!
//! An allowed page sends its credentials itself, in `Authorization`. The browser's own credentials
//! (cookies, client certificates) are never allowed, so that no page can use those of its visitor.

use crate::http::api::endpoint::EndpointKind;
use crate::http::headers;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue,
    ORIGIN, VARY,
};
use axum::http::{Method, StatusCode};
use axum::response::Response;

/// Headers that a page may send in addition to those that every page may. `Authorization` must be
/// listed (Fetch standard, "CORS non-wildcard request-header name").
const SENT: HeaderValue = HeaderValue::from_static(
    "Accept, Authorization, Content-Range, Content-Type, If-Match, If-None-Match, If-Range, Range, X-Request-Id",
);

/// Headers that a page may read in addition to those that every page may.
const READ: HeaderValue = HeaderValue::from_static(
    "Accept-Ranges, Content-Length, Content-Range, Docker-Content-Digest, Docker-Distribution-Api-Version, \
     Docker-Upload-UUID, ETag, Link, Location, OCI-Filters-Applied, OCI-Subject, OCI-Tag, Range, Retry-After, Warning, \
     WWW-Authenticate, X-Request-Id",
);

/// Seconds for which a browser may cache a preflight response: two hours, the maximum of Chromium.
const MAX_AGE: u32 = 7200;

/// The origins whose pages may read responses.
pub enum Cors {
    /// No origin. Responses have no CORS headers.
    Off,
    Any,
    Listed(Vec<String>),
}

/// The CORS headers of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// None.
    Silent,
    /// This origin may not read the response, but another origin would get other headers.
    Refused,
    Everyone,
    With(HeaderValue),
}

impl Cors {
    /// From `http.allowedOrigins`.
    pub fn new(origins: &[String]) -> Cors {
        if origins.is_empty() {
            Cors::Off
        } else if origins.iter().any(|origin| origin == "*") {
            Cors::Any
        } else {
            Cors::Listed(origins.to_vec())
        }
    }

    /// The CORS headers of the response to a request with these headers.
    pub fn sharing(&self, headers: &HeaderMap) -> Sharing {
        match (self, headers.get(ORIGIN)) {
            (Cors::Off, _) => Sharing::Silent,
            (Cors::Any, _) => Sharing::Everyone,
            (Cors::Listed(origins), Some(origin)) if origins.iter().any(|listed| listed == origin) => {
                Sharing::With(origin.clone())
            }
            (Cors::Listed(_), _) => Sharing::Refused,
        }
    }

    /// The response to a browser's preflight request.
    pub fn preflight(&self, request: &Request) -> Option<Response> {
        let is_preflight = request.method() == Method::OPTIONS
            && request.headers().contains_key(ORIGIN)
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight {
            return None;
        }
        let methods = EndpointKind::of(request.uri().path()).methods();
        let may_read = matches!(self.sharing(request.headers()), Sharing::Everyone | Sharing::With(_));
        if !may_read || methods.is_empty() {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let map = response.headers_mut();
        headers::set(map, ACCESS_CONTROL_ALLOW_METHODS, methods);
        map.insert(ACCESS_CONTROL_ALLOW_HEADERS, SENT);
        map.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE.into());
        Some(response)
    }
}

impl Sharing {
    /// Adds the headers to a response.
    pub fn write(self, map: &mut HeaderMap) {
        let allowed = match self {
            Sharing::Silent => return,
            Sharing::Everyone => Some(HeaderValue::from_static("*")),
            // Caches must store one response per origin.
            Sharing::Refused => {
                map.append(VARY, HeaderValue::from_static("Origin"));
                None
            }
            Sharing::With(origin) => {
                map.append(VARY, HeaderValue::from_static("Origin"));
                Some(origin)
            }
        };
        if let Some(allowed) = allowed {
            map.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            map.insert(ACCESS_CONTROL_EXPOSE_HEADERS, READ);
        }
    }
}
