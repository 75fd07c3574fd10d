//! Headers of the registry API, prepared so that a request builds as few as possible.

use axum::http::header::{HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use entrepot_oci::{Digest, Repository, SessionId};

pub const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub const TAG: HeaderName = HeaderName::from_static("oci-tag");
pub const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Marks a request that another node forwarded. Its value is the host under which the client reached
/// that node; `Host` is this node. A client that sends the header says no more than it can say in
/// `Host`.
pub const FORWARDED: HeaderName = HeaderName::from_static("entrepot-forwarded");

pub const REGISTRY_2: HeaderValue = HeaderValue::from_static("registry/2.0");
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
pub const BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// Content with a digest never changes. One year is the longest time that caches keep anything;
/// CNCF Distribution sends the same value.
pub const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000");
/// The same for content that not every client may have.
pub const IMMUTABLE_PRIVATE: HeaderValue = HeaderValue::from_static("private, max-age=31536000");

/// Sets a header to text that this program generated. Text that is not a valid header value is left
/// out.
pub fn set(map: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        map.insert(name, value);
    }
}

/// Adds another value of a header. Invalid text is handled as in [`set`].
pub fn add(map: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        map.append(name, value);
    }
}

/// The two headers that identify content.
#[derive(Clone, Debug)]
pub struct Identity {
    pub digest: HeaderValue,
    /// The digest in double quotes.
    pub etag: HeaderValue,
}

impl Identity {
    /// `None` if the digest is not a valid header value, which never happens for a valid digest.
    pub fn of(digest: &Digest) -> Option<Identity> {
        let quoted = bytes::Bytes::from(format!("\"{digest}\""));
        // One allocation for both: the digest is the quoted text without its quotes.
        let digest = HeaderValue::from_maybe_shared(quoted.slice(1..quoted.len() - 1)).ok()?;
        Some(Identity { digest, etag: HeaderValue::from_maybe_shared(quoted).ok()? })
    }

    /// Whether the client already has the content (RFC 9110, section 13.1.2: weak comparison).
    pub fn is_known(&self, headers: &HeaderMap) -> bool {
        headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|list| {
            list.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
        })
    }
}

/// The `Location` at which a session continues, as an absolute path. The client resolves it against
/// the URL that it used, so no header of a proxy has to be trusted. `offset` is the position of the
/// next byte, so that a repeated request can be told from the next one.
pub fn session_path(repository: &Repository, id: &SessionId, offset: u64) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?offset={offset}")
}

/// The `Range` of a session that has received `offset` bytes: `0-<last byte>`. An empty session has
/// `0-0`, which is what CNCF Distribution sends and clients expect.
pub fn received(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::Algorithm;

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
    fn the_range_of_a_session_ends_at_its_last_byte() {
        assert_eq!(received(0), "0-0");
        assert_eq!(received(1024), "0-1023");
    }
}
