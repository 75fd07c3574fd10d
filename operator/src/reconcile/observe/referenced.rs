//! Reads the unwatched objects that the spec refers to.

use crate::crd::{CaKind, RegistryCluster, ResizePolicy};
use crate::names::Identity;
use crate::reconcile::context::Context;
use crate::reconcile::error::{Failure, Failures};
use crate::reconcile::storage::{Class, ObservedClaim};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::Api;

/// Objects that the spec refers to and that do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The Secret that holds the credentials.
    pub secret: Option<String>,
    /// The ConfigMap or Secret that holds the CA certificates, such as `ConfigMap ca`.
    pub ca_bundle: Option<String>,
}

/// The result of a read. A failure is added to `failures`.
pub(super) fn ok_or_record<T>(read: Result<T, Failure>, failures: &mut Failures) -> Option<T> {
    read.map_err(|failure| failures.push(failure)).ok()
}

/// The StorageClass matters if claims have to grow, or if one is not bound.
pub(super) async fn storage_class(
    cluster: &RegistryCluster,
    claims: &[ObservedClaim],
    context: &Context,
) -> Result<Class, Failure> {
    let store = &cluster.spec.store;
    let grows = |claim: &&ObservedClaim| store.resize_policy == ResizePolicy::Expand && claim.requested < store.size;
    let unbound = |claim: &&ObservedClaim| claim.capacity.is_none();
    let Some(claim) = claims.iter().find(grows).or_else(|| claims.iter().find(unbound)) else {
        return Ok(Class::NotNeeded);
    };
    let Some(name) = claim.class.as_deref().or(store.storage_class_name.as_deref()) else {
        return Ok(Class::NotNeeded);
    };
    let classes: Api<StorageClass> = Api::all(context.client.clone());
    let found = classes.get_opt(name).await.map_err(Failure::read("get the StorageClass"))?;
    Ok(match found {
        None => Class::Missing,
        Some(class) if class.allow_volume_expansion == Some(true) => Class::Expands,
        Some(_) => Class::CannotExpand,
    })
}

/// Reads only metadata, never the contents of a Secret. If a read fails, the object is not reported
/// as missing.
pub(super) async fn missing(
    cluster: &RegistryCluster,
    identity: &Identity,
    context: &Context,
    failures: &mut Failures,
) -> Missing {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &identity.namespace);
    let bucket = &cluster.spec.bucket;
    let mut missing = Missing::default();
    if let Some(secret) = &bucket.auth.secret_ref {
        let found = secrets
            .get_metadata_opt(&secret.name)
            .await
            .map_err(Failure::read("get the Secret of spec.bucket.auth.secretRef"));
        missing.secret = ok_or_record(found, failures).filter(Option::is_none).map(|_| secret.name.clone());
    }
    if let Some(bundle) = &bucket.ca_bundle_ref {
        let is_there = match bundle.kind {
            CaKind::Secret => secrets.get_metadata_opt(&bundle.name).await.map(|found| found.is_some()),
            CaKind::ConfigMap => {
                let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &identity.namespace);
                maps.get_metadata_opt(&bundle.name).await.map(|found| found.is_some())
            }
        };
        let is_there =
            ok_or_record(is_there.map_err(Failure::read("get the object of spec.bucket.caBundleRef")), failures);
        missing.ca_bundle = (is_there == Some(false)).then(|| format!("{:?} {}", bundle.kind, bundle.name));
    }
    missing
}
