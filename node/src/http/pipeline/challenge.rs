//! Where a client gets a token (distribution-spec, "Token Authentication"; RFC 6750, section 3).

use crate::http::authority::authority;
use crate::http::client_address::ClientAddress;
use crate::http::error::ApiError;
use crate::http::headers::FORWARDED;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use entrepot_access::{Denied, Policy};
use std::fmt;

/// The path of the token service. No repository's name begins with an underscore.
pub const TOKEN_PATH: &str = "/v2/_token";

/// The names under which a client reaches this registry.
pub struct Origin<'a> {
    /// The audience of tokens: `auth.service`, or the host of the request.
    pub service: String,
    realm: Realm<'a>,
}

/// URL of the token service. It is written only into a challenge.
enum Realm<'a> {
    /// `auth.realm`.
    Configured(&'a str),
    /// At this node, under the name that the client uses.
    Here { scheme: &'static str, host: Authority },
}

impl fmt::Display for Realm<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Realm::Configured(realm) => f.write_str(realm),
            Realm::Here { scheme, host } => write!(f, "{scheme}://{host}{TOKEN_PATH}"),
        }
    }
}

impl<'a> Origin<'a> {
    /// # Errors
    /// `Host` if the request has no valid host, and the configuration names none.
    pub fn of(policy: &'a Policy, head: &Parts) -> Result<Origin<'a>, ApiError> {
        let host = || host(head).ok_or(ApiError::Host);
        let realm = match &policy.realm {
            Some(realm) => Realm::Configured(realm),
            None => Realm::Here { scheme: scheme(head), host: host()? },
        };
        let service = match (&policy.service, &realm) {
            (Some(service), _) => service.clone(),
            (None, Realm::Here { host, .. }) => host.to_string(),
            (None, Realm::Configured(_)) => host()?.to_string(),
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

/// The host and the port that the client used, of which a node tells another when it forwards a
/// request.
pub fn host(head: &Parts) -> Option<Authority> {
    let forwarded = head.headers.get(FORWARDED).and_then(|value| value.to_str().ok()?.parse().ok());
    forwarded.or_else(|| authority(&head.uri, &head.headers)).filter(|host| !host.as_str().contains('@'))
}

/// The scheme that the client used, as the connection or a trusted proxy says.
fn scheme(head: &Parts) -> &'static str {
    let https = head.extensions.get::<ClientAddress>().is_some_and(|client| client.https);
    if https { "https" } else { "http" }
}
