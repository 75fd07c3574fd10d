//! Refusals of access control.

use super::refusal::{Refusal, UNAVAILABLE, code, retry_after};
use axum::http::StatusCode as S;
use axum::http::header::WWW_AUTHENTICATE;
use entrepot_access::Denied;

/// A request that access control refuses.
#[derive(Debug, thiserror::Error)]
#[error("{denied}")]
pub struct AccessError {
    #[source]
    denied: Denied,
    /// The value of `WWW-Authenticate`, if other credentials would help.
    challenge: Option<String>,
}

impl AccessError {
    /// A refusal with its challenge.
    pub fn new(denied: Denied, challenge: impl FnOnce(&Denied) -> Option<String>) -> Box<AccessError> {
        let challenge = challenge(&denied);
        Box::new(AccessError { denied, challenge })
    }

    /// Why the request is refused.
    pub fn denied(&self) -> &Denied {
        &self.denied
    }
}

pub fn refusal(error: &AccessError) -> Refusal {
    let refusal = match &error.denied {
        Denied::NoCredential | Denied::InsufficientScope | Denied::Credential(_) => {
            Refusal::new((S::UNAUTHORIZED, code::UNAUTHORIZED), error)
        }
        Denied::Forbidden { .. } => Refusal::new((S::FORBIDDEN, code::DENIED), error),
        // Never 401: clients would discard their credentials.
        Denied::Unavailable(_) => Refusal::new(UNAVAILABLE, error).retry_after(retry_after::ACCESS),
        Denied::TooMany { retry_after_seconds } => {
            Refusal::new((S::TOO_MANY_REQUESTS, code::TOOMANYREQUESTS), error).retry_after(*retry_after_seconds)
        }
    };
    match &error.challenge {
        Some(challenge) => refusal.header(WWW_AUTHENTICATE, challenge),
        None => refusal,
    }
}
