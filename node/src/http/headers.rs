//! Headers of registries, prepared so that a request builds as few as it can.

use crate::oci::{Digest, Repository, SessionId};
use axum::http::header::{HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};

pub const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub const TAG: HeaderName = HeaderName::from_static("oci-tag");
pub const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub const REGISTRY_2: HeaderValue = HeaderValue::from_static("registry/2.0");
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
pub const BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// What has a digest never changes; a year is the longest that caches keep anything (as CNCF Distribution says).
pub const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Sets a header to text that this program made. Text that no header can hold is left out.
pub fn set(map: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        map.insert(name, value);
    }
}

/// Adds one more of a header, as [`set`] sets it.
pub fn add(map: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        map.append(name, value);
    }
}

/// The two headers that name content.
#[derive(Clone, Debug)]
pub struct Identity {
    pub digest: HeaderValue,
    /// The digest in quotes.
    pub etag: HeaderValue,
}

impl Identity {
    /// `None` when a digest cannot be written, which no digest is a cause for.
    pub fn of(digest: &Digest) -> Option<Identity> {
        let quoted = bytes::Bytes::from(format!("\"{digest}\""));
        // One allocation for both: the digest is the quoted text without its quotes.
        let digest = HeaderValue::from_maybe_shared(quoted.slice(1..quoted.len() - 1)).ok()?;
        Some(Identity { digest, etag: HeaderValue::from_maybe_shared(quoted).ok()? })
    }

    /// Whether the client has the content already (RFC 9110, section 13.1.2: weak comparison).
    pub fn is_known(&self, headers: &HeaderMap) -> bool {
        headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| {
            list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
        })
    }
}

/// Where a session goes on, as an absolute path: a client resolves it against the URL that it used, so that no header of
/// a proxy needs to be believed. The offset says which bytes a request to it brings, so that a request which comes again
/// is told from the next one.
pub fn session_path(repository: &Repository, id: &SessionId, offset: u64) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?offset={offset}")
}

/// The `Range` of a session that has received so many bytes: `0-<last byte>`. One that has none is `0-0`, which is
/// what CNCF Distribution says and clients expect.
pub fn received(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn an_etag_is_known_however_the_client_writes_it() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let identity = Identity::of(&digest).unwrap();
        assert_eq!(identity.digest, digest.to_string());
        for (header, known) in [
            (format!("\"{digest}\""), true),
            (format!("W/\"{digest}\""), true),
            (format!("\"a\", \"{digest}\""), true),
            ("*".into(), true),
            (digest.to_string(), false),
            ("\"a\"".into(), false),
        ] {
            let mut map = HeaderMap::new();
            set(&mut map, IF_NONE_MATCH, &header);
            assert_eq!(identity.is_known(&map), known, "{header}");
        }
        assert!(!identity.is_known(&HeaderMap::new()));
    }

    #[test]
    fn a_session_says_its_last_byte() {
        assert_eq!(received(0), "0-0");
        assert_eq!(received(1024), "0-1023");
    }
}
