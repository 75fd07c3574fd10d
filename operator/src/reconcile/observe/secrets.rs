//! The Secrets that a spec refers to, and whether the owner of each allows its use. The operator
//! requests only their metadata, never their content.

use crate::crd::{CaKind, RegistryClusterSpec};
use crate::names::{Identity, USE};
use crate::reconcile::context::Context;
use crate::reconcile::error::{Failure, Failures};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Api;

/// What a registry does with a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Sign requests to the bucket.
    Bucket,
    /// Verify the certificate of the bucket's endpoint.
    Ca,
}

impl Purpose {
    /// The value of the label that allows it.
    pub fn label(self) -> &'static str {
        match self {
            Purpose::Bucket => "bucket",
            Purpose::Ca => "ca",
        }
    }

    /// The field of the spec that names the Secret.
    pub fn field(self) -> &'static str {
        match self {
            Purpose::Bucket => "spec.bucket.auth.secretRef",
            Purpose::Ca => "spec.bucket.caBundleRef",
        }
    }
}

/// A Secret that the spec refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencedSecret {
    pub purpose: Purpose,
    pub name: String,
    pub state: SecretState,
}

/// Whether a registry may use a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretState {
    Allowed,
    /// It lacks the label, or the label has another value.
    NotLabelled,
    /// It does not exist. Whoever creates it decides then.
    Missing,
    /// The read failed.
    Unknown,
}

/// The Secrets that the spec refers to.
fn referenced(spec: &RegistryClusterSpec) -> impl Iterator<Item = (Purpose, &str)> {
    let keys = spec.bucket.auth.secret_ref.as_ref().map(|secret| (Purpose::Bucket, secret.name.as_str()));
    let bundle = spec.bucket.ca_bundle_ref.as_ref().filter(|bundle| bundle.kind == CaKind::Secret);
    keys.into_iter().chain(bundle.map(|bundle| (Purpose::Ca, bundle.name.as_str())))
}

/// Reads the metadata of every Secret that the spec refers to. A failed read keeps the nodes as they
/// are.
pub(super) async fn secrets(
    spec: &RegistryClusterSpec,
    identity: &Identity,
    context: &Context,
    failures: &mut Failures,
) -> Vec<ReferencedSecret> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &identity.namespace);
    let mut found = Vec::new();
    for (purpose, name) in referenced(spec) {
        let metadata = secrets.get_metadata_opt(name).await;
        let state = match metadata.map_err(Failure::read_of("get the Secret of", purpose.field())) {
            Ok(None) => SecretState::Missing,
            Ok(Some(secret)) if secret.labels().get(USE).is_some_and(|value| value == purpose.label()) => {
                SecretState::Allowed
            }
            Ok(Some(_)) => SecretState::NotLabelled,
            Err(failure) => {
                failures.push_of_nodes(failure);
                SecretState::Unknown
            }
        };
        found.push(ReferencedSecret { purpose, name: name.to_owned(), state });
    }
    found
}
