//! A rule of access control.

use super::{NamePattern, Subject};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Allows identities some actions on some repositories.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// The identities: `anonymous` (every client, also one with credentials), `authenticated`,
    /// `user:NAME` (of the users file), `group:NAME`, `serviceaccount:NAMESPACE/NAME`, `oidc:ISSUER`
    /// or `cert:NAME`. `*` stands for any characters of a name.
    #[schemars(with = "Vec<String>")]
    pub who: Vec<Subject>,
    /// The actions. `delete` includes `push`, and `push` includes `pull`.
    pub may: Vec<Action>,
    /// The repositories: names in which `*` stands for any characters of one part, `**` for any
    /// number of parts, and `{claim}` for a claim of the identity, such as `{namespace}` of a
    /// service account.
    #[serde(rename = "in")]
    #[schemars(with = "Vec<String>")]
    pub repositories: Vec<NamePattern>,
    /// Claims that the identity must have: for each name, one of these values.
    #[serde(rename = "where")]
    pub claims: BTreeMap<String, Vec<String>>,
}

/// What a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read content, tags and referrers.
    Pull,
    /// Add content and tags, and pull.
    Push,
    /// Delete content and tags, push, and pull.
    Delete,
}
