//! Why a request got no response.

use crate::AuthError;
use std::path::PathBuf;
use std::time::Duration;

/// Why a request got no response. The text names the URL without its user and query, and contains
/// no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpsError {
    /// The request cannot be sent.
    #[error("{url}: {problem}")]
    Invalid {
        /// The URL.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// There was no whole response in time.
    #[error("{url}: no response within {limit:?}")]
    Timeout {
        /// The URL.
        url: String,
        /// The time that a request may take.
        limit: Duration,
    },
    /// The connection or the response failed.
    #[error("{url}: {reason}")]
    Failed {
        /// The URL.
        url: String,
        /// The error and its causes.
        reason: String,
    },
    /// The response is too large.
    #[error("{url}: the response is larger than {limit} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// The largest response, in bytes.
        limit: usize,
    },
    /// The CA certificates cannot be used.
    #[error("cannot use the CA file {}: {problem}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The TLS library refuses its configuration.
    #[error("cannot configure TLS: {0}")]
    Tls(String),
}

impl HttpsError {
    /// The error of a decision that depends on this request.
    #[must_use]
    pub fn unavailable(&self, service: &str) -> AuthError {
        AuthError::Unavailable { service: service.to_owned(), reason: self.to_string() }
    }

    pub(super) fn invalid(url: &str, problem: &str) -> HttpsError {
        HttpsError::Invalid { url: shown(url), problem: problem.to_owned() }
    }

    pub(super) fn timeout(url: &str, limit: Duration) -> HttpsError {
        HttpsError::Timeout { url: shown(url), limit }
    }

    pub(super) fn too_large(url: &str, limit: usize) -> HttpsError {
        HttpsError::TooLarge { url: shown(url), limit }
    }

    pub(super) fn failed(url: &str, error: &dyn std::error::Error) -> HttpsError {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        HttpsError::Failed { url: shown(url), reason }
    }
}

/// A URL without its user, password, query and fragment, which may be secret.
fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return "the URL".to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}
