//! The decisions of one configuration.

use super::client::{Client, Presented, Proof};
use super::denied::Denied;
use crate::Rules;
use crate::kubernetes::Reviews;
use crate::scope::Scopes;
use crate::token::{IssuedToken, Tokens};
use crate::users::Passwords;
use crate::{AuthError, Authenticator, Caller, Credential, Via};
use entrepot_config::Action;
use entrepot_oci::Repository;
use entrepot_runtime::Clock;
use secrecy::ExposeSecret;
use std::sync::Arc;

/// Access control by one configuration.
pub struct Policy {
    /// Name of this registry in tokens. `None`: the `Host` of a request.
    pub service: Option<String>,
    /// URL of the token service. `None`: derived from a request.
    pub realm: Option<String>,
    /// The tokens of this registry.
    pub tokens: Tokens,
    /// Users with passwords.
    pub passwords: Arc<Passwords>,
    /// Who accepts credentials that are not tokens of this registry, in this order.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// The rules of the configuration. They are asked first, because they cost nothing.
    pub rules: Rules,
    /// Kubernetes, if it is configured. It is asked if no rule allows a request.
    pub kubernetes: Option<Arc<Reviews>>,
    /// The clock of the node.
    pub clock: Clock,
}

impl Policy {
    /// Who sent a request. A credential that is wrong is refused, also where none is needed:
    /// otherwise a login would succeed with any password.
    ///
    /// # Errors
    /// `Credential`, `Unavailable` or `TooMany`.
    pub async fn authenticate(&self, presented: &Presented) -> Result<Client, Denied> {
        match (&presented.credential, &presented.certificate) {
            (Some(credential), _) => self.credential(credential, presented).await,
            (None, Some(certificate)) => {
                Ok(Client { caller: Caller::Known(Arc::new(certificate.clone())), proof: Proof::Credential })
            }
            (None, None) => Ok(Client::without_credentials()),
        }
    }

    async fn credential(&self, credential: &Credential, presented: &Presented) -> Result<Client, Denied> {
        if let Credential::Bearer(token) = credential
            && Tokens::claims(token.expose_secret())
        {
            return self.token(token.expose_secret(), presented);
        }
        for authenticator in &self.authenticators {
            if let Some(result) = authenticator.authenticate(credential, presented.address).await {
                let identity = result?;
                return Ok(Client { caller: Caller::Known(Arc::new(identity)), proof: Proof::Credential });
            }
        }
        Err(AuthError::refused("no user and no issuer accepts a credential of this kind").into())
    }

    /// A token of this registry. The user of a file must still exist.
    fn token(&self, token: &str, presented: &Presented) -> Result<Client, Denied> {
        let refused = |reason: &str| Denied::from(AuthError::refused(reason));
        let ticket =
            self.tokens.verify(token, self.clock.now()).map_err(|error| AuthError::refused(error.to_string()))?;
        if ticket.service != presented.service {
            return Err(refused("the token was issued for another service"));
        }
        // The groups of a user are those of now, not those of the time of the token.
        let caller = match &ticket.caller {
            Caller::Known(identity) if identity.via == Via::File => {
                let now = self.passwords.identity(&identity.name);
                Caller::Known(Arc::new(now.ok_or_else(|| refused("the user of the token no longer exists"))?))
            }
            caller => caller.clone(),
        };
        let proof = Proof::Token { id: ticket.id.clone(), scopes: ticket.scopes.clone() };
        Ok(Client { caller, proof })
    }

    /// Checks that the client may do this, and returns what allows it, which the audit log shows.
    /// The bucket is not read, so a refusal does not depend on whether the repository exists.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub async fn authorize(
        &self,
        client: &Client,
        action: Action,
        repository: &Repository,
    ) -> Result<Arc<str>, Denied> {
        let allowed = self.allowed(&client.caller, action, repository).await?;
        let Some(reason) = allowed else {
            return Err(match (&client.caller, &client.proof) {
                (Caller::Known(identity), _) => {
                    Denied::Forbidden { caller: identity.name.clone(), action, repository: repository.to_string() }
                }
                (Caller::Anonymous, Proof::None) => Denied::NoCredential,
                // The client may have credentials, and use them when it is asked again.
                (Caller::Anonymous, _) => Denied::InsufficientScope,
            });
        };
        if client.covers(action, repository) { Ok(reason) } else { Err(Denied::InsufficientScope) }
    }

    /// Whether the client may list repositories, which lists those that it may pull.
    ///
    /// # Errors
    /// `NoCredential` or `InsufficientScope`.
    pub fn authorize_catalog(&self, client: &Client) -> Result<(), Denied> {
        match client.proof {
            Proof::None => Err(Denied::NoCredential),
            _ if client.covers_catalog() => Ok(()),
            _ => Err(Denied::InsufficientScope),
        }
    }

    /// What allows the caller to do this, whatever it has sent. `None` if nothing does.
    ///
    /// # Errors
    /// `Unavailable` if a service that decides does not answer.
    pub async fn allowed(
        &self,
        caller: &Caller,
        action: Action,
        repository: &Repository,
    ) -> Result<Option<Arc<str>>, Denied> {
        if let Some(rule) = self.rules.allows(caller, action, repository) {
            return Ok(Some(rule.text));
        }
        match &self.kubernetes {
            Some(reviews) => Ok(reviews.allows(caller, action, repository).await?.map(Arc::from)),
            None => Ok(None),
        }
    }

    /// A token for the client that is good for these scopes at most. What the caller may do is
    /// decided at each request, so a token never says more than who and what for.
    ///
    /// # Errors
    /// If the token cannot be signed.
    pub fn issue(&self, client: &Client, scopes: Scopes, service: &str) -> Result<IssuedToken, Denied> {
        let scopes = match &client.proof {
            Proof::Token { scopes: limit, .. } => scopes.within(limit),
            Proof::None | Proof::Credential => scopes,
        };
        let issued = self.tokens.issue(&client.caller, scopes, service, self.clock.now());
        issued.map_err(|error| {
            AuthError::Unavailable { service: "the token service".to_owned(), reason: error.to_string() }.into()
        })
    }
}
