//! The identity of a client.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A client without credentials.
    Anonymous,
    /// A client that has proved its identity.
    Known(Arc<Identity>),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Anonymous => f.write_str("anonymous"),
            Caller::Known(identity) => f.write_str(&identity.name),
        }
    }
}

/// A proven identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The name, unique among the identities of the same `via`. Of a service account:
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// The groups that the identity is a member of.
    pub groups: Vec<String>,
    /// How the identity was proved.
    pub via: Via,
    /// What rules can refer to by name: claims of an OpenID Connect token that a rule names, and
    /// `namespace` and `serviceaccount` of a service account.
    pub claims: BTreeMap<String, String>,
}

/// How an identity was proved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// By a password of the users file.
    File,
    /// By a token of this OpenID Connect issuer (`auth.oidc[].name`).
    Oidc(String),
    /// By a token that the Kubernetes API server has reviewed.
    Kubernetes,
    /// By a client certificate.
    Certificate,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::File => f.write_str("file"),
            Via::Oidc(name) => write!(f, "oidc:{name}"),
            Via::Kubernetes => f.write_str("kubernetes"),
            Via::Certificate => f.write_str("cert"),
        }
    }
}

impl Via {
    /// Parses the text of [`fmt::Display`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Via> {
        match text.split_once(':') {
            Some(("oidc", name)) => Some(Via::Oidc(name.to_owned())),
            None if text == "file" => Some(Via::File),
            None if text == "kubernetes" => Some(Via::Kubernetes),
            None if text == "cert" => Some(Via::Certificate),
            _ => None,
        }
    }
}
