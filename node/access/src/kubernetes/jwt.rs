//! What a token says of itself. Nothing here is verified: it only decides whom to ask.

use crate::jwt::claims_of;
use serde::Deserialize;

/// Issuer and audiences of a JSON Web Token, unverified.
#[derive(Deserialize)]
pub(super) struct Unverified {
    #[serde(rename = "iss")]
    pub(super) issuer: String,
    #[serde(rename = "aud", default)]
    audiences: Audiences,
}

/// One audience, or several (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Audiences {
        Audiences::Many(Vec::new())
    }
}

impl Unverified {
    /// `None` if the text is not a token with an issuer.
    pub(super) fn of(token: &str) -> Option<Unverified> {
        claims_of(token)
    }

    pub(super) fn audiences(&self) -> &[String] {
        match &self.audiences {
            Audiences::One(audience) => std::slice::from_ref(audience),
            Audiences::Many(audiences) => audiences,
        }
    }
}
