//! What a token says: its header and its claims.

use super::ticket::TokenError;
use crate::identity::{Caller, Identity, Via};
use crate::scope::Scopes;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The `typ` header of the tokens of this registry (RFC 8725, section 3.11, explicit typing).
pub(super) const TYPE: &str = "entrepot+jwt";

/// The most groups of a token.
const MAX_GROUPS: usize = 64;
/// The most bytes of the groups of a token, and of its other claims for rules. With the scopes they
/// keep a token below the limit of its length.
const MAX_GROUP_BYTES: usize = 4 * 1024;
const MAX_CLAIM_BYTES: usize = 2 * 1024;

/// The fields of a header that decide. `alg` is not among them: the algorithm is fixed.
#[derive(Deserialize)]
pub(super) struct TokenHeader {
    typ: Option<String>,
    pub(super) kid: Option<String>,
    /// Extensions that the recipient must understand (RFC 7515, section 4.1.11). There are none.
    pub(super) crit: Option<serde::de::IgnoredAny>,
}

impl TokenHeader {
    /// The header of a token, if it has the type of this registry's tokens.
    pub(super) fn of(token: &str) -> Option<TokenHeader> {
        let (header, _) = token.split_once('.')?;
        let header: TokenHeader = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        (header.typ.as_deref() == Some(TYPE)).then_some(header)
    }
}

/// The claims. The times are seconds since the Unix epoch; a time that is not a number is refused.
#[derive(Serialize, Deserialize)]
pub(super) struct Claims {
    /// The registry that issued the token.
    pub(super) iss: String,
    /// The service that the token is for.
    pub(super) aud: String,
    /// The name of the identity, empty for anonymous clients.
    pub(super) sub: String,
    /// How the identity was proved, absent for anonymous clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    via: Option<String>,
    /// Its groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    grp: Vec<String>,
    /// Its claims that rules can refer to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    clm: BTreeMap<String, String>,
    pub(super) iat: u64,
    pub(super) nbf: u64,
    pub(super) exp: u64,
    pub(super) jti: String,
    /// What the token was asked for.
    #[serde(default, skip_serializing_if = "Scopes::is_empty")]
    pub(super) acc: Scopes,
}

/// The times of a new token, in seconds since the Unix epoch.
pub(super) struct Times {
    pub(super) issued: u64,
    pub(super) expires: u64,
}

impl Claims {
    pub(super) fn new(caller: &Caller, acc: Scopes, service: &str, times: &Times) -> Claims {
        let (sub, via, grp, clm) = match caller {
            Caller::Anonymous => (String::new(), None, Vec::new(), BTreeMap::new()),
            Caller::Known(identity) => (
                identity.name.clone(),
                Some(identity.via.to_string()),
                bounded_groups(&identity.name, &identity.groups),
                bounded_claims(&identity.claims),
            ),
        };
        Claims {
            iss: service.to_owned(),
            aud: service.to_owned(),
            sub,
            via,
            grp,
            clm,
            iat: times.issued,
            nbf: times.issued,
            exp: times.expires,
            jti: uuid::Uuid::new_v4().simple().to_string(),
            acc,
        }
    }

    /// The caller whom the token names.
    pub(super) fn caller(&self) -> Result<Caller, TokenError> {
        match (&self.via, self.sub.as_str()) {
            (None, "") => Ok(Caller::Anonymous),
            (Some(via), name) if !name.is_empty() => Ok(Caller::Known(Arc::new(Identity {
                name: name.to_owned(),
                groups: self.grp.clone(),
                via: Via::parse(via).ok_or(TokenError::Malformed)?,
                claims: self.clm.clone(),
            }))),
            _ => Err(TokenError::Malformed),
        }
    }
}

/// The first groups that fit. Without a group a caller has fewer rights, never more.
fn bounded_groups(name: &str, groups: &[String]) -> Vec<String> {
    let mut bytes = 0;
    let fits = |group: &&String| {
        bytes += group.len();
        bytes <= MAX_GROUP_BYTES
    };
    let kept: Vec<_> = groups.iter().take(MAX_GROUPS).take_while(fits).cloned().collect();
    if kept.len() < groups.len() {
        tracing::warn!(
            user = name,
            groups = groups.len(),
            kept = kept.len(),
            "a token cannot hold all groups of a user"
        );
    }
    kept
}

fn bounded_claims(claims: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut bytes = 0;
    let fits = |(name, value): &(&String, &String)| {
        bytes += name.len() + value.len();
        bytes <= MAX_CLAIM_BYTES
    };
    claims.iter().take_while(fits).map(|(name, value)| (name.clone(), value.clone())).collect()
}
