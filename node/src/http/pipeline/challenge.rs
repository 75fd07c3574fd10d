//! Where a client gets a token (distribution-spec, "Token Authentication"; RFC 6750, section 3).

use crate::http::client_address::ClientAddress;
use crate::http::error::ApiError;
use crate::http::headers::FORWARDED;
use axum::http::header::{HOST, HeaderName};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use entrepot_access::{Denied, Policy};

/// The path of the token service. No repository's name begins with an underscore.
pub const TOKEN_PATH: &str = "/v2/_token";

/// The names under which a client reaches this registry.
pub struct Origin {
    /// The audience of tokens: `auth.service`, or the host of the request.
    pub service: String,
    /// URL of the token service.
    realm: String,
}

impl Origin {
    /// # Errors
    /// `Host` if the request has no valid host, and the configuration names none.
    pub fn of(policy: &Policy, head: &Parts) -> Result<Origin, ApiError> {
        let host = || host(head).ok_or(ApiError::Host);
        let service = policy.service.clone().map_or_else(|| host().map(|host| host.to_string()), Ok)?;
        let realm = match &policy.realm {
            Some(realm) => realm.clone(),
            None => format!("{}://{}{TOKEN_PATH}", scheme(head), host()?),
        };
        Ok(Origin { service, realm })
    }

    /// The value of `WWW-Authenticate`, or `None` if other credentials would not help. There is one
    /// challenge in one header, because some clients read no other.
    pub fn challenge(&self, denied: &Denied, scope: &str) -> Option<String> {
        let error = match denied {
            Denied::NoCredential => None,
            Denied::InsufficientScope => Some("insufficient_scope"),
            Denied::Credential(_) => Some("invalid_token"),
            Denied::Forbidden { .. } | Denied::Unavailable(_) | Denied::TooMany { .. } => return None,
        };
        let mut challenge = format!("Bearer realm=\"{}\",service=\"{}\"", self.realm, self.service);
        for (name, value) in [("scope", Some(scope).filter(|scope| !scope.is_empty())), ("error", error)] {
            if let Some(value) = value {
                challenge.push_str(&format!(",{name}=\"{value}\""));
            }
        }
        Some(challenge)
    }
}

/// The host and the port that the client used. HTTP/2 has them in the URI, HTTP/1.1 in `Host`, and a
/// node that forwards a request in a header of its own.
pub fn host(head: &Parts) -> Option<Authority> {
    let header = |name: HeaderName| head.headers.get(name)?.to_str().ok()?.parse().ok();
    let sent = || head.uri.authority().cloned().or_else(|| header(HOST));
    header(FORWARDED).or_else(sent).filter(|host: &Authority| !host.as_str().contains('@'))
}

/// The scheme that the client used, as the connection or a trusted proxy says.
fn scheme(head: &Parts) -> &'static str {
    let https = head.extensions.get::<ClientAddress>().is_some_and(|client| client.https);
    if https { "https" } else { "http" }
}
