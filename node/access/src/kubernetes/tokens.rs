//! Who a token belongs to, by TokenReview.

use super::api::TOKEN_REVIEW;
use super::jwt::Unverified;
use super::{EXTRA_CLAIM, Reviews, UID_CLAIM, unavailable};
use crate::{AuthError, Identity, Via};
use entrepot_config::KubernetesIssuers;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// Time for which an accepted token is not reviewed again. A deleted service account can use its
/// token that long.
const ACCEPTED: Duration = Duration::from_secs(60);

/// The same for a refused token: every client of a stale secret repeats it.
const REFUSED: Duration = Duration::from_secs(30);

/// Longer ones are refused without asking. Tokens of service accounts have about 1 KiB.
const MAX_TOKEN: usize = 16 * 1024;

/// What the API server says about a token: the identity, or why it is refused.
pub(super) type Reviewed = Result<Identity, String>;

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'a str; 1],
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: Map<String, Value>,
}

impl Reviews {
    /// The identity of a token. `None` if the token is not of an issuer that the API server knows.
    pub(super) async fn review(&self, token: &SecretString) -> Option<Result<Identity, AuthError>> {
        let claims = Unverified::of(token.expose_secret())?;
        let key = self.key.hash(&[b"token", token.expose_secret().as_bytes()]);
        let known = self.tokens.fresh(&key, lifetime);
        let reviewed = match known {
            Some(reviewed) => Ok(reviewed),
            None => match self.is_ours(&claims).await {
                Ok(Claimed::No) => return None,
                Ok(Claimed::Refused(reason)) => Ok(Err(reason)),
                Ok(Claimed::Yes) => self.tokens.get(&key, lifetime, self.ask_who(token)).await,
                Err(error) => Err(error),
            },
        };
        Some(reviewed.and_then(|reviewed| reviewed.map_err(AuthError::refused)))
    }

    async fn is_ours(&self, claims: &Unverified) -> Result<Claimed, AuthError> {
        let own = self.api.own_token().await?;
        let own = Unverified::of(own.expose_secret())
            .ok_or_else(|| unavailable("auth.kubernetes.tokenFile contains no token with an issuer"))?;
        if self.issuers == KubernetesIssuers::Cluster && claims.issuer != own.issuer {
            return Ok(Claimed::No);
        }
        // The token of this node is one for the API server, so it has the audiences of that.
        if claims.audiences().iter().any(|audience| own.audiences().contains(audience)) {
            let why = "the token is for the Kubernetes API server: request one whose only audience is this registry";
            return Ok(Claimed::Refused(why.to_owned()));
        }
        Ok(Claimed::Yes)
    }

    async fn ask_who(&self, token: &SecretString) -> Result<Reviewed, AuthError> {
        if token.expose_secret().len() > MAX_TOKEN {
            return Ok(Err(format!("the token is longer than {MAX_TOKEN} bytes")));
        }
        let spec = Spec { token: token.expose_secret(), audiences: [&self.audience] };
        let status: Status = self.api.ask(&TOKEN_REVIEW, &spec).await?;
        if !status.authenticated || status.user.username.is_empty() {
            return Ok(Err("the Kubernetes API server does not accept the token for this registry".to_owned()));
        }
        // An API server that does not know audiences accepts any token and returns none.
        if !status.audiences.contains(&self.audience) {
            return Ok(Err("the token is not for the audience of this registry".to_owned()));
        }
        Ok(Ok(identity(status.user)))
    }
}

/// Whether the API server is asked about a token.
enum Claimed {
    Yes,
    No,
    Refused(String),
}

fn lifetime(reviewed: &Reviewed) -> Duration {
    if reviewed.is_ok() { ACCEPTED } else { REFUSED }
}

fn identity(user: User) -> Identity {
    let mut claims = BTreeMap::new();
    let account = user.username.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    if let Some((namespace, name)) = account {
        claims.insert("namespace".to_owned(), namespace.to_owned());
        claims.insert("serviceaccount".to_owned(), name.to_owned());
    }
    if !user.uid.is_empty() {
        claims.insert(UID_CLAIM.to_owned(), user.uid);
    }
    if !user.extra.is_empty() {
        claims.insert(EXTRA_CLAIM.to_owned(), Value::Object(user.extra).to_string());
    }
    Identity { name: user.username, groups: user.groups, via: Via::Kubernetes, claims }
}
