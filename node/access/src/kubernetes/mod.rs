//! Tokens of service accounts as credentials, and Kubernetes RBAC as rules: the API server is asked
//! for both (TokenReview, SubjectAccessReview). What it answers is remembered for a short time. A
//! question that cannot be answered is never a refusal.
//!
//! - `api`: requests to the API server.
//! - `jwt`: what a token says of itself, unverified.
//! - `remembered`: answers with their age; one question at a time for each key.
//! - `tokens`: who a token belongs to.
//! - `subject`: how an identity is called in a question to Kubernetes.
//! - `access`: what a caller may do.

mod access;
mod api;
mod jwt;
mod remembered;
mod subject;
#[cfg(test)]
mod tests;
mod tokens;

use crate::memory_key::MemoryKey;
use crate::{AuthError, Authenticator, Caller, Credential, Identity};
use access::Access;
use api::Api;
use async_trait::async_trait;
use entrepot_config::{Action, Kubernetes, KubernetesIssuers};
use entrepot_oci::Repository;
use entrepot_runtime::Clock;
use remembered::Remembered;
use std::net::IpAddr;
use tokens::Reviewed;

/// The service of errors.
const API_SERVER: &str = "the Kubernetes API server";

/// The claim with the UID that a TokenReview gave. Access reviews contain it. The names of this claim
/// and the next sort after those that rules use, because a token with too many claims loses the last.
pub const UID_CLAIM: &str = "user.uid";

/// The claim with the extra fields that a TokenReview gave, as JSON. Access reviews contain them.
pub const EXTRA_CLAIM: &str = "user.extra";

/// Asks the Kubernetes API server who a token belongs to, and what a caller may do.
pub struct Reviews {
    api: Api,
    review: bool,
    authorize: bool,
    issuers: KubernetesIssuers,
    audience: String,
    resource: String,
    key: MemoryKey,
    tokens: Remembered<Reviewed>,
    access: Remembered<Access>,
}

impl Reviews {
    /// Reviews as configured. `audience` is `auth.kubernetes.audience`, or `auth.service` if that is
    /// unset. It connects at the first question.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn new(config: &Kubernetes, audience: &str, clock: &Clock) -> Result<Reviews, AuthError> {
        let key = MemoryKey::new().ok_or_else(|| unavailable("there are no random bytes"))?;
        Ok(Reviews {
            api: Api::new(config),
            review: config.review,
            authorize: config.authorize,
            issuers: config.issuers,
            audience: audience.to_owned(),
            resource: config.resource.clone(),
            key,
            tokens: Remembered::new(clock.clone()),
            access: Remembered::new(clock.clone()),
        })
    }

    /// The reason for which Kubernetes lets a caller do this. `None` if it does not.
    ///
    /// # Errors
    /// `Unavailable` if the API server cannot be asked and nothing is remembered.
    pub async fn allows(
        &self,
        caller: &Caller,
        action: Action,
        repository: &Repository,
    ) -> Result<Option<String>, AuthError> {
        if !self.authorize {
            return Ok(None);
        }
        let (namespace, name) = match repository.as_str().split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, repository.as_str()),
        };
        self.may(caller, action, namespace, Some(name)).await
    }

    /// Whether a caller may pull all repositories whose name begins with this part and a slash: what
    /// the catalog shows below it. Rights on single repositories (`resourceNames`) do not count.
    ///
    /// # Errors
    /// `Unavailable` if the API server cannot be asked and nothing is remembered.
    pub async fn may_pull_namespace(&self, caller: &Caller, part: &str) -> Result<bool, AuthError> {
        if !self.authorize {
            return Ok(false);
        }
        Ok(self.may(caller, Action::Pull, Some(part), None).await?.is_some())
    }
}

#[async_trait]
impl Authenticator for Reviews {
    async fn authenticate(&self, credential: &Credential, _: IpAddr) -> Option<Result<Identity, AuthError>> {
        let (Credential::Bearer(token) | Credential::Password { password: token, .. }) = credential;
        if self.review { self.review(token).await } else { None }
    }
}

fn unavailable(reason: impl Into<String>) -> AuthError {
    AuthError::Unavailable { service: API_SERVER.to_owned(), reason: reason.into() }
}
