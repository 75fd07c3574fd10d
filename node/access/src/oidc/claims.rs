//! Whether a token is for this registry and valid now, and whose it is. Its signature is verified
//! before.

use crate::{AuthError, Identity, Rules, Via};
use entrepot_config::OidcIssuer;
use entrepot_runtime::clock::Timestamp;
use serde_json::{Map, Value};

/// How far the clocks of an issuer and of this node may differ, in seconds.
const LEEWAY: f64 = 60.0;

/// The longest validity, in seconds. A token that is valid for longer is a password.
const LONGEST: f64 = 24.0 * 3600.0;

/// The most groups of an identity; the tokens of the registry hold no more.
const MAX_GROUPS: usize = 64;

/// The longest name, in bytes. It is part of tokens, logs and messages.
const MAX_NAME: usize = 512;

/// Why a token is refused, without its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the token is longer than {0} bytes")]
    TooLong(usize),
    #[error("the header of the token cannot be read")]
    Malformed,
    #[error("the token names no key, needs an extension, or has an algorithm that is not accepted")]
    Header,
    #[error("the issuer does not have the key of the token")]
    UnknownKey,
    #[error("the signature of the token is wrong")]
    Signature,
    #[error("the claim {0} of the token is missing or is not a number")]
    Time(&'static str),
    #[error("the token is expired")]
    Expired,
    #[error("the token is not valid yet; compare the clocks of the issuer and of this node")]
    TooEarly,
    #[error("the token is valid for more than 24 hours")]
    TooLongValid,
    #[error("no `aud` of the token is in auth.oidc[].audiences")]
    Audience,
    #[error("the claim {0} of the token does not have a value of auth.oidc[].require")]
    Required(String),
    #[error("the token lacks a claim of auth.oidc[].username")]
    NoName,
    #[error("the name of the user is longer than {MAX_NAME} bytes or contains a control character")]
    Name,
}

impl From<Refusal> for AuthError {
    fn from(refusal: Refusal) -> AuthError {
        AuthError::refused(refusal.to_string())
    }
}

type Claims = Map<String, Value>;

/// Whether the token is for this registry, valid now, and has the required claims. Returns when it
/// expires, in milliseconds since the Unix epoch.
pub(super) fn check(claims: &Claims, config: &OidcIssuer, now: Timestamp) -> Result<u64, Refusal> {
    let expires = check_times(claims, now)?;
    if !audiences(claims).any(|audience| config.audiences.iter().any(|accepted| accepted == audience)) {
        return Err(Refusal::Audience);
    }
    for (claim, accepted) in &config.require {
        let value = claims.get(claim).and_then(text);
        if !value.is_some_and(|value| accepted.contains(&value)) {
            return Err(Refusal::Required(claim.clone()));
        }
    }
    Ok(expires)
}

/// The times are seconds since the Unix epoch, which may have a fraction (RFC 7519, section 2).
#[allow(clippy::cast_precision_loss, reason = "milliseconds of this era are exact in a float")]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is near the time of now")]
fn check_times(claims: &Claims, now: Timestamp) -> Result<u64, Refusal> {
    let time = |name| match claims.get(name) {
        None => Ok(None),
        // Never a text: libraries that skipped those accepted expired tokens (CVE-2026-25537).
        Some(value) => value.as_f64().map(Some).ok_or(Refusal::Time(name)),
    };
    let now = now.0 as f64 / 1000.0;
    let expires = time("exp")?.ok_or(Refusal::Time("exp"))?;
    let issued = time("iat")?.unwrap_or(now);
    let not_before = time("nbf")?.unwrap_or(issued);
    if now >= expires + LEEWAY {
        return Err(Refusal::Expired);
    }
    if now + LEEWAY < issued.max(not_before) {
        return Err(Refusal::TooEarly);
    }
    if expires - issued > LONGEST {
        return Err(Refusal::TooLongValid);
    }
    Ok((expires.max(0.0) * 1000.0) as u64)
}

/// One audience, or several (RFC 7519, section 4.1.3).
fn audiences(claims: &Claims) -> impl Iterator<Item = &str> {
    texts(claims.get("aud"))
}

/// Whose token it is. Of its claims the identity has those that rules use.
pub(super) fn identity(claims: &Claims, config: &OidcIssuer, rules: &Rules) -> Result<Identity, Refusal> {
    let claim = |name: &str| claims.get(name).and_then(text);
    let name = config.username.expand(claim).ok_or(Refusal::NoName)?;
    if name.len() > MAX_NAME || name.contains(char::is_control) {
        return Err(Refusal::Name);
    }
    let groups = config.groups.as_ref().map(|groups| texts(claims.get(groups)).collect()).unwrap_or_default();
    let used = rules.claims_used().iter().filter_map(|name| Some((name.clone(), claim(name)?)));
    Ok(Identity { name, groups: bounded(groups, rules), via: Via::Oidc(config.name.clone()), claims: used.collect() })
}

/// The groups that rules use come first, so that they remain if there are too many.
fn bounded(mut groups: Vec<&str>, rules: &Rules) -> Vec<String> {
    groups.retain(|group| !group.is_empty());
    if groups.len() > MAX_GROUPS {
        groups.sort_by_cached_key(|group| !rules.is_group_used(group));
        groups.truncate(MAX_GROUPS);
    }
    groups.into_iter().map(str::to_owned).collect()
}

/// The text, or the texts of a list.
fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let values = match value {
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => &[],
    };
    values.iter().filter_map(Value::as_str)
}

/// A claim as rules compare it: a text, or the text of a boolean or an integer.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}
