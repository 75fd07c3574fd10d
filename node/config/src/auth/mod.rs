//! Access control: who may pull, push and delete.

mod check;
mod kubernetes;
mod name_pattern;
mod oidc;
mod rule;
mod subject;

pub(crate) use check::check;
pub use check::is_loopback;
pub use kubernetes::{Kubernetes, KubernetesIssuers};
pub use name_pattern::{NamePattern, NamePatternError, Part};
pub use oidc::{OidcIssuer, UserTemplate};
pub use rule::{Action, Rule};
pub use subject::{Subject, SubjectError};

use crate::{Duration, PointInTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Access control: who may pull, push and delete. If unset, every client may do everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Auth {
    /// Name of this registry in tokens: their audience, and `service` of the challenge. If unset,
    /// the `Host` header of the request.
    pub service: Option<String>,
    /// URL of the token service that clients are sent to, which ends with `/v2/_token`. If unset, it
    /// is derived from the request: its scheme (`X-Forwarded-Proto` of a trusted proxy) and its
    /// `Host` header.
    pub realm: Option<String>,
    /// The tokens that the nodes issue.
    pub tokens: AuthTokens,
    /// Users with passwords. If unset, there are none.
    pub users: Option<AuthUsers>,
    /// Groups of users: the members of each group, by their name in the users file.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Issuers of OpenID Connect whose tokens are accepted as passwords.
    pub oidc: Vec<OidcIssuer>,
    /// Service accounts as users, and Kubernetes RBAC as rules. If unset, Kubernetes is not asked.
    pub kubernetes: Option<Kubernetes>,
    /// What identities may do. A request is allowed if one rule allows it. Their order does not
    /// matter.
    pub rules: Vec<Rule>,
}

/// The tokens that the nodes issue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthTokens {
    /// File with the keys that sign tokens: one key in each line, base64 of at least 32 bytes. The
    /// first key signs; all keys verify. All nodes need the same file. If unset, the node generates
    /// a key in its store; that is only allowed without peers.
    pub key_file: Option<PathBuf>,
    /// Time for which a token is valid, from `1m` to `24h`. A node accepts it for one more minute, so
    /// that clocks may differ.
    pub lifetime: Duration,
    /// Tokens that were issued before this time (RFC 3339, such as `2026-11-01T00:00:00Z`) are
    /// refused.
    pub not_before: Option<PointInTime>,
}

impl Default for AuthTokens {
    fn default() -> AuthTokens {
        AuthTokens { key_file: None, lifetime: Duration::from_secs(300), not_before: None }
    }
}

/// Users with passwords.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct AuthUsers {
    /// File of `name:hash` lines, as `htpasswd -B` writes it. Hashes are bcrypt or argon2id. A name
    /// may have several lines, each with a password.
    pub file: PathBuf,
}
