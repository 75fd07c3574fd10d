//! The tokens that the nodes issue: JSON Web Tokens that say who a client is and what it asked for.
//! What it may do is not in them; that is decided at each request.
//!
//! All nodes share the keys, so a token of one node is valid at the next, also after a restart. Clients
//! do not recover from a token that is refused before its time, so a token is valid for a minute
//! longer than its client was told.

mod claims;
mod keys;
mod ticket;

pub use keys::{KeyFileError, Keys};
pub use ticket::{Ticket, TokenError};

use crate::identity::Caller;
use crate::jwt;
use crate::scope::Scopes;
use crate::verified::Verified;
use claims::{Claims, TYPE, Times, TokenHeader};
use entrepot_runtime::clock::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header};
use secrecy::SecretString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use ticket::Valid;

/// The shortest `expires_in`: old clients take less for 60 s
/// (<https://distribution.github.io/distribution/spec/auth/token/>).
const SHORTEST_LIFETIME: u64 = 60;

/// The longest token that is read. A node issues none that is longer.
const MAX_LENGTH: usize = 16 * 1024;

/// What tokens are made of. Other settings need other [`Tokens`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// The keys.
    pub keys: Keys,
    /// The time for which a token is valid; at least a minute.
    pub lifetime: Duration,
    /// Tokens that were issued before this time are refused.
    pub not_before: Option<Timestamp>,
}

/// Issues and verifies tokens. Clones share the settings and the cache.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

struct Shared {
    settings: Settings,
    verified: Verified<Valid>,
}

/// A new token.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// Seconds for which it is valid; at least 60.
    pub expires_in: u64,
    /// When it was issued, to the second.
    pub issued_at: Timestamp,
}

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign a token: {0}")]
pub struct IssueError(#[from] jsonwebtoken::errors::Error);

impl Tokens {
    /// Tokens with these settings.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn new(settings: Settings) -> Result<Tokens, KeyFileError> {
        let verified = Verified::new().ok_or(KeyFileError::NoRandom)?;
        Ok(Tokens(Arc::new(Shared { settings, verified })))
    }

    /// Whether a text has the type of this registry's tokens. If so, no other issuer is asked.
    #[must_use]
    pub fn claims(token: &str) -> bool {
        token.len() <= MAX_LENGTH && TokenHeader::of(token).is_some()
    }

    /// Issues a token to a caller, who may be anonymous. `service` is the audience.
    ///
    /// # Errors
    /// If the token cannot be signed.
    pub fn issue(
        &self,
        caller: &Caller,
        scopes: Scopes,
        service: &str,
        now: Timestamp,
    ) -> Result<IssuedToken, IssueError> {
        let settings = &self.0.settings;
        let expires_in = settings.lifetime.as_secs().max(SHORTEST_LIFETIME);
        let issued = now.0 / 1000;
        // Rounded up, so that the token is not refused before its time.
        let times = Times { issued, expires: now.0.div_ceil(1000).saturating_add(expires_in) };
        let key = settings.keys.signing().ok_or_else(|| IssueError(ErrorKind::InvalidKeyFormat.into()))?;
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.id.clone());
        let token = jwt::sign(&header, &Claims::new(caller, scopes, service, &times), &key.signs)?;
        Ok(IssuedToken { token: token.into(), expires_in, issued_at: Timestamp(issued * 1000) })
    }

    /// What a token says, if it is valid now.
    ///
    /// # Errors
    /// If it is not valid.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Ticket>, TokenError> {
        if token.len() > MAX_LENGTH {
            return Err(TokenError::Malformed);
        }
        let remembered = self.0.verified.of(token);
        if let Some(valid) = remembered.get() {
            return valid.at(now);
        }
        let valid = read(token, &self.0.settings)?;
        let ticket = valid.at(now)?;
        remembered.insert(valid);
        Ok(ticket)
    }
}

fn read(token: &str, settings: &Settings) -> Result<Valid, TokenError> {
    let header = TokenHeader::of(token).ok_or(TokenError::Foreign)?;
    if header.crit.is_some() {
        return Err(TokenError::Malformed);
    }
    let key = header.kid.and_then(|id| settings.keys.by_id(&id)).ok_or(TokenError::UnknownKey)?;
    let claims: Claims = jwt::verify(token, &key.verifies, Algorithm::HS256).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        _ => TokenError::Malformed,
    })?;
    let caller = claims.caller()?;
    let issued_at = Timestamp(claims.iat.saturating_mul(1000));
    if claims.iss != claims.aud {
        return Err(TokenError::Malformed);
    }
    if settings.not_before.is_some_and(|limit| issued_at < limit) {
        return Err(TokenError::Revoked);
    }
    let ticket = Ticket { caller, scopes: claims.acc, issued_at, id: claims.jti, service: claims.aud };
    Ok(Valid { ticket: Arc::new(ticket), not_before: claims.nbf.max(claims.iat), expires: claims.exp })
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.0.settings).finish()
    }
}

#[cfg(test)]
mod tests;
