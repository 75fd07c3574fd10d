//! Service accounts as users, and Kubernetes RBAC as rules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Service accounts as users, and Kubernetes RBAC as rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Kubernetes {
    /// Accept tokens of service accounts, which the API server reviews (TokenReview).
    pub review: bool,
    /// Ask the API server (SubjectAccessReview) whether an identity may `pull`, `push` or `delete`
    /// the resource `repositories.registry.entrepot.dev`: the first part of a repository's name is
    /// the namespace, the rest is the name.
    pub authorize: bool,
    /// Audience that a service account's token must have. If unset, `auth.service`.
    pub audience: Option<String>,
    /// Resource of the access reviews. Registries of one cluster with different rights need
    /// different resources.
    pub resource: String,
    /// Which tokens are reviewed, by their `iss` claim.
    pub issuers: KubernetesIssuers,
    /// URL of the API server.
    pub api_server: String,
    /// PEM file with the CA certificates of the API server.
    pub ca_file: PathBuf,
    /// File with the token of this node for the API server. It is read for each connection.
    pub token_file: PathBuf,
}

/// Which tokens the API server reviews.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KubernetesIssuers {
    /// Tokens of the issuer that issued the token of this node.
    #[default]
    Cluster,
    /// All tokens that no other issuer claims.
    Any,
}

impl Default for Kubernetes {
    fn default() -> Kubernetes {
        let mounted = |name: &str| PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount").join(name);
        Kubernetes {
            review: true,
            authorize: true,
            audience: None,
            resource: "repositories".to_owned(),
            issuers: KubernetesIssuers::default(),
            api_server: "https://kubernetes.default.svc".to_owned(),
            ca_file: mounted("ca.crt"),
            token_file: mounted("token"),
        }
    }
}
