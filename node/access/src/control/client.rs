//! Who sent a request, and at most what for.

use crate::scope::Scopes;
use crate::{Caller, Credential, Identity};
use entrepot_config::Action;
use entrepot_oci::Repository;
use std::net::IpAddr;

/// What a request presents to prove who sent it.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The credential of `Authorization`, if it has one.
    pub credential: Option<Credential>,
    /// The identity of the client's certificate.
    pub certificate: Option<Identity>,
    /// The address of the client, which limits wrong passwords.
    pub address: IpAddr,
    /// The audience that a token needs: `auth.service`, or the `Host` of the request.
    pub service: String,
}

/// An authenticated client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Who sent the request.
    pub caller: Caller,
    /// How the caller was proved.
    pub proof: Proof,
}

/// How a caller was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Not at all: the request has no credential.
    None,
    /// By a token of this registry.
    Token {
        /// The ID of the token (`jti`). The audit log shows it.
        id: String,
        /// What the token is good for, at most.
        scopes: Scopes,
    },
    /// By a password, a token of an issuer, or a certificate.
    Credential,
}

impl Client {
    /// A client without credentials.
    #[must_use]
    pub fn without_credentials() -> Client {
        Client { caller: Caller::Anonymous, proof: Proof::None }
    }

    /// Whether what the client sent can be used for this action, if the caller may do it.
    pub(super) fn covers(&self, action: Action, repository: &Repository) -> bool {
        match &self.proof {
            Proof::None | Proof::Credential => true,
            Proof::Token { scopes, .. } => scopes.covers(action, repository),
        }
    }

    /// Whether what the client sent can be used to list repositories.
    pub(super) fn covers_catalog(&self) -> bool {
        match &self.proof {
            Proof::None | Proof::Credential => true,
            Proof::Token { scopes, .. } => scopes.covers_catalog(),
        }
    }
}
