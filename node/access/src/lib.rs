//! Access control of a node: who a client is ([`Authenticator`]), and what it may do ([`Policy`]).
//! This crate knows nothing of HTTP routes and statuses, and asks the bucket nothing.
//!
//! - `identity`: the identity of a client.
//! - `control`: the decisions for a request, as the HTTP layer uses them.
//! - `credential`: what a client sends to prove it.
//! - `scope`: the rights that a client requests for a token.
//! - `token`: the tokens that the nodes issue.
//! - `users`: users with passwords in a file.
//! - `rules`: the rules of the configuration.
//! - `https`: requests to issuers and to the Kubernetes API server.
//! - `oidc`: tokens of OpenID Connect issuers.
//! - `verified`: tokens whose signature was verified.
//! - `kubernetes`: tokens of service accounts, and RBAC as rules.

mod control;
mod credential;
mod error;
pub mod https;
mod identity;
pub mod jwt;
pub mod kubernetes;
mod memory_key;
pub mod oidc;
mod rules;
pub mod scope;
#[cfg(test)]
mod testing;
pub mod token;
pub mod users;
mod verified;

pub use control::{AccessControl, Client, Denied, Policy, Presented, Proof};
pub use credential::Credential;
pub use error::AuthError;
pub use identity::{Caller, Identity, Via};
pub use rules::{Listable, RuleRef, Rules};

use async_trait::async_trait;
use std::net::IpAddr;

/// Finds out who sent a credential.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// The identity that a credential proves. `None` if credentials of this kind are not its
    /// business; the next authenticator is asked then. A credential that it claims and refuses is
    /// refused for good. `peer` is the address of the client, by which wrong passwords are counted.
    async fn authenticate(&self, credential: &Credential, peer: IpAddr) -> Option<Result<Identity, AuthError>>;
}
