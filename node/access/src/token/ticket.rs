//! A token that was read.

use crate::identity::Caller;
use crate::scope::Scopes;
use entrepot_runtime::clock::Timestamp;
use std::sync::Arc;

/// Seconds by which the clocks of two nodes may differ, and for which a token is valid after its
/// end.
const LEEWAY: u64 = 60;

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Who it was issued to.
    pub caller: Caller,
    /// What it was asked for.
    pub scopes: Scopes,
    /// When it was issued, to the second.
    pub issued_at: Timestamp,
    /// Its ID (`jti`), for the audit log.
    pub id: String,
    /// The service that it is for. It is not compared with the name of this registry.
    pub service: String,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another issuer may know it: it does not have the type of this registry's tokens.
    #[error("is not a token of this registry")]
    Foreign,
    /// A field is missing or has the wrong type, or the token is too long.
    #[error("is malformed")]
    Malformed,
    /// The key that signed it is not known.
    #[error("was signed with an unknown key")]
    UnknownKey,
    /// The signature is wrong.
    #[error("has a wrong signature")]
    Signature,
    /// It has expired more than a minute ago.
    #[error("has expired")]
    Expired,
    /// It is of the future: the clock of the node that issued it is more than a minute ahead.
    #[error("is not valid yet")]
    NotYetValid,
    /// It was issued before `auth.tokens.notBefore`.
    #[error("was issued before auth.tokens.notBefore")]
    Revoked,
}

/// A token whose signature is right.
#[derive(Clone, Debug)]
pub(super) struct Valid {
    pub(super) ticket: Arc<Ticket>,
    /// The first second since the Unix epoch at which it is valid.
    pub(super) not_before: u64,
    /// The second since the Unix epoch at which it expires.
    pub(super) expires: u64,
}

impl Valid {
    /// The ticket, if it is valid at this time.
    pub(super) fn at(&self, now: Timestamp) -> Result<Arc<Ticket>, TokenError> {
        if now.0 >= self.expires.saturating_add(LEEWAY).saturating_mul(1000) {
            return Err(TokenError::Expired);
        }
        if self.not_before > (now.0 / 1000).saturating_add(LEEWAY) {
            return Err(TokenError::NotYetValid);
        }
        Ok(Arc::clone(&self.ticket))
    }
}
