//! `?ns=<registry>`: the parameter that containerd's client adds when it uses this registry as a
//! mirror of another one.

use crate::http::api::route::Route;
use crate::http::authority::authority;
use crate::http::error::{ApiError, ContentKind};
use crate::http::query::Query;
use axum::extract::Request;

/// Refuses to read content of another registry, because this registry has no upstream. The content
/// is this registry's own if the namespace is the host name that the client used, or one of
/// `http.namespaces`.
///
/// # Errors
/// Returns 404. The client then tries the next registry that it has for the namespace.
pub fn check(request: &Request, route: &Route, ours: &[String]) -> Result<(), ApiError> {
    let kind = match route {
        Route::PullManifest { .. } => Some(ContentKind::Manifest),
        Route::PullBlob { .. } => Some(ContentKind::Blob),
        Route::Tags { .. } | Route::Referrers { .. } => None,
        Route::Home
        | Route::Version
        | Route::Token(_)
        | Route::Catalog { .. }
        | Route::PushManifest { .. }
        | Route::DeleteManifest { .. }
        | Route::DeleteBlob { .. }
        | Route::BeginUpload { .. }
        | Route::UploadStatus { .. }
        | Route::AppendUpload { .. }
        | Route::FinishUpload { .. }
        | Route::CancelUpload { .. } => return Ok(()),
    };
    match Query::new(request.uri().query())?.get("ns")? {
        Some(namespace)
            if !ours.iter().any(|name| name.eq_ignore_ascii_case(&namespace)) && !is_own(&namespace, request) =>
        {
            Err(ApiError::UnknownNamespace { namespace: namespace.into_owned(), kind })
        }
        _ => Ok(()),
    }
}

/// Whether a name, with or without a port, is the host name that the client used for this registry.
fn is_own(name: &str, request: &Request) -> bool {
    authority(request.uri(), request.headers())
        .is_some_and(|own| name.eq_ignore_ascii_case(own.as_str()) || name.eq_ignore_ascii_case(own.host()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::header::HOST;

    fn own(name: &str, uri: &str, host: &str) -> bool {
        is_own(name, &Request::get(uri).header(HOST, host).body(Body::empty()).unwrap())
    }

    #[test]
    fn a_name_of_this_registry_is_the_one_that_the_client_uses() {
        for name in ["registry.example.com", "Registry.Example.com:5000"] {
            assert!(own(name, "/v2/", "registry.example.com:5000"), "{name}");
            assert!(own(name, "http://registry.example.com:5000/v2/", "other"), "{name}");
        }
        assert!(own("[::1]", "/v2/", "[::1]:5000") && own("[::1]", "/v2/", "[::1]"));
        for name in ["docker.io", "registry.example.com:5001", "example.com", "registry", ""] {
            assert!(!own(name, "/v2/", "registry.example.com:5000"), "{name}");
        }
        assert!(!own("registry.example.com", "http://other/v2/", "registry.example.com"));
    }
}
