//! Reads the unwatched objects that the spec refers to, except for its Secrets.

use crate::crd::{CaKind, RegistryCluster, ResizePolicy};
use crate::names::Identity;
use crate::reconcile::context::Context;
use crate::reconcile::error::{Failure, Failures};
use crate::reconcile::storage::{Class, ObservedClaim};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::Api;

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

/// The ConfigMap of spec.bucket.caBundleRef, if it does not exist. If the read fails, it is not
/// reported as missing.
pub(super) async fn missing_ca(
    cluster: &RegistryCluster,
    identity: &Identity,
    context: &Context,
    failures: &mut Failures,
) -> Option<String> {
    let bundle = cluster.spec.bucket.ca_bundle_ref.as_ref().filter(|bundle| bundle.kind == CaKind::ConfigMap)?;
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &identity.namespace);
    let found = maps.get_metadata_opt(&bundle.name).await;
    let found = ok_or_record(found.map_err(Failure::read("get the ConfigMap of spec.bucket.caBundleRef")), failures)?;
    found.is_none().then(|| format!("ConfigMap {}", bundle.name))
}
