//! Tokens of OpenID Connect issuers as credentials: of CI services, of other clusters, of any
//! issuer that publishes its keys. A token is verified with the keys of its issuer alone. An issuer
//! that cannot be reached is never a refusal. Nothing is written to the disk.
//!
//! - `source`: where the keys of an issuer are.
//! - `keys`: the keys with their age; who fetches them, and when.
//! - `set`: which key verifies a token.
//! - `claims`: whether a token is for this registry and valid now, and whose it is.

mod claims;
mod keys;
mod set;
mod source;
#[cfg(test)]
mod tests;

use crate::jwt::{self, claims_of, header_of};
use crate::verified::Verified;
use crate::{AuthError, Authenticator, Credential, Identity, Rules};
use async_trait::async_trait;
use claims::Refusal;
use entrepot_config::OidcIssuer;
use entrepot_runtime::Clock;
use keys::Keys;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use set::{KeySet, Signed};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longer tokens are refused. It holds 64 KiB of groups; usual tokens have 1 to 4 KiB.
const MAX_TOKEN: usize = 128 * 1024;

/// An issuer of OpenID Connect tokens.
pub struct Oidc {
    config: OidcIssuer,
    keys: Arc<Keys>,
    clock: Clock,
    /// The rules that use the claims of its tokens.
    rules: Mutex<Arc<Rules>>,
    verified: Verified<Remembered>,
}

/// What is known of an issuer, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerStatus {
    /// Time since its keys were fetched. `None` if they never were.
    pub age: Option<Duration>,
    /// Fetches of its keys that succeeded.
    pub fetched: u64,
    /// Fetches of its keys that failed.
    pub failed: u64,
}

/// A verified token. It counts only with the keys and the rules of its verification, so that a key
/// that is withdrawn and a rule that is changed have effect.
#[derive(Clone)]
struct Remembered {
    identity: Identity,
    /// Milliseconds since the Unix epoch.
    expires: u64,
    keys: Arc<KeySet>,
    rules: Arc<Rules>,
}

/// The claim that says whose token it is. Everything else is read after verification.
#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// The header of a token. Keys and addresses of keys in it are not read: whoever makes a token
/// could choose them.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that the recipient must understand (RFC 7515, section 4.1.11). There are none.
    crit: Option<IgnoredAny>,
}

impl Oidc {
    /// The issuer as configured. It connects when the first token comes. Identities have the claims
    /// that the rules use.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn new(config: &OidcIssuer, rules: &Rules, clock: &Clock) -> Result<Oidc, AuthError> {
        let service = format!("the issuer {}", config.name);
        let verified = Verified::new().ok_or_else(|| AuthError::Unavailable {
            service: service.clone(),
            reason: "there are no random bytes".to_owned(),
        })?;
        Ok(Oidc {
            config: config.clone(),
            keys: Arc::new(Keys::new(config, service, clock.clone())),
            clock: clock.clone(),
            rules: Mutex::new(Arc::new(rules.clone())),
            verified,
        })
    }

    /// The configuration from which this was made.
    #[must_use]
    pub fn config(&self) -> &OidcIssuer {
        &self.config
    }

    /// Replaces the rules. The keys stay, because the issuer may be unreachable just now.
    pub fn replace_rules(&self, rules: &Rules) {
        *self.rules.lock() = Arc::new(rules.clone());
        self.verified.forget();
    }

    /// What is known of the issuer.
    #[must_use]
    pub fn status(&self) -> IssuerStatus {
        self.keys.status()
    }

    async fn identify(&self, token: &str) -> Result<Identity, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::TooLong(MAX_TOKEN).into());
        }
        let header: Header = header_of(token).ok_or(Refusal::Malformed)?;
        let signed = Signed::new(&header.alg, header.kid).filter(|_| header.crit.is_none());
        let signed = signed.ok_or(Refusal::Header)?;
        let rules = self.rules.lock().clone();
        let keys = self.keys.current().await?;
        let place = self.verified.of(token);
        if let Some(known) = place.get()
            && Arc::ptr_eq(&known.rules, &rules)
            && Arc::ptr_eq(&known.keys, &keys)
            && self.clock.now().0 < known.expires
        {
            return Ok(known.identity);
        }
        let (claims, keys) = self.verify(token, &signed, keys).await?;
        let expires = claims::check(&claims, &self.config, self.clock.now())?;
        let identity = claims::identity(&claims, &self.config, &rules)?;
        place.insert(Remembered { identity: identity.clone(), expires, keys, rules });
        Ok(identity)
    }

    /// The claims of a token, and the keys with which it was verified.
    async fn verify(
        &self,
        token: &str,
        signed: &Signed,
        keys: Arc<KeySet>,
    ) -> Result<(Map<String, Value>, Arc<KeySet>), AuthError> {
        // The issuer may have a new key since.
        let keys = if keys.has(signed) { keys } else { self.keys.newer_than(keys).await? };
        if !keys.has(signed) {
            return Err(Refusal::UnknownKey.into());
        }
        let claims = keys.find(signed).find_map(|key| jwt::verify(token, key, signed.algorithm).ok());
        Ok((claims.ok_or(Refusal::Signature)?, keys))
    }
}

#[async_trait]
impl Authenticator for Oidc {
    async fn authenticate(&self, credential: &Credential, _: IpAddr) -> Option<Result<Identity, AuthError>> {
        let (Credential::Bearer(token) | Credential::Password { password: token, .. }) = credential;
        let token = token.expose_secret();
        let Issuer { iss } = claims_of(token)?;
        if iss == self.config.issuer { Some(self.identify(token).await) } else { None }
    }
}
