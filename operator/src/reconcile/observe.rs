//! What is there: from the stores of the watches, from the nodes themselves, and by a look at what is only referred to.

use super::build::{Child, Kind};
use super::rollout::{is_deleting, is_ready};
use super::storage::{self, Class, ObservedClaim, ObservedNode, ObservedSet, Volume};
use super::version::Version;
use super::{Context, ReconcileError};
use crate::crd::{CaKind, RegistryCluster, ResizePolicy};
use crate::names::{Identity, VOLUME};
use crate::watch::resource;
use entrepot_config::{ByteSize, NodeStatus};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};
use std::sync::Arc;

/// What a pass decides by.
pub struct Observed {
    pub children: Vec<(Kind, Arc<DynamicObject>)>,
    pub set: Option<StatefulSet>,
    pub pods: Vec<Arc<Pod>>,
    pub storage: storage::Observed,
    /// What ready nodes say of themselves.
    pub reports: Vec<NodeStatus>,
    /// Names of what the spec refers to and what is not there, with their kinds.
    pub missing: Missing,
    /// A pass over this very spec was finished before: a child that is not there was deleted by somebody.
    pub settled: bool,
    /// The last pass was replacing the StatefulSet: that it is not there is the operator's own doing.
    pub replacing: bool,
}

/// What the spec refers to and is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The Secret of the credentials.
    pub secret: Option<String>,
    /// The ConfigMap or Secret of the certificate authorities, as in `ConfigMap ca`.
    pub ca_bundle: Option<String>,
}

/// Looks at everything.
///
/// # Errors
/// When the API server does not answer.
pub async fn observe(cluster: &RegistryCluster, context: &Context) -> Result<Observed, ReconcileError> {
    let identity = Identity::of(cluster);
    let (namespace, name) = (identity.namespace.as_str(), identity.name.as_str());
    let mut children = Vec::new();
    for kind in Kind::ALL {
        let found = context.stores.children(kind, namespace, name).into_iter();
        children.extend(found.map(|object| (kind, object)));
    }
    children.extend(service_monitor(cluster, &identity, context).await?);
    let set = children.iter().find(|(kind, object)| *kind == Kind::StatefulSet && object.name_any() == name);
    let set = set.and_then(|(_, object)| DynamicObject::clone(object).try_parse::<StatefulSet>().ok());
    let pods = context.stores.pods(namespace, name);
    let claims = context.stores.claims(namespace, name);
    let storage = storage(cluster, &identity, set.as_ref(), &pods, &claims, context).await?;
    let missing = missing(cluster, &identity, context).await?;
    let reports = context.nodes.ask(pods.iter().map(AsRef::as_ref)).await;
    let status = cluster.status.as_ref();
    let settled = status.is_some_and(|status| {
        status.observed_generation.is_some() && status.observed_generation == cluster.metadata.generation
    });
    let replacing = status.is_some_and(|status| {
        status.conditions.iter().any(|known| known.type_ == "StorageResized" && known.reason == "Replacing")
    });
    Ok(Observed { children, set, pods, storage, reports, missing, settled, replacing })
}

impl Observed {
    /// The object that a child is to be, as it is.
    pub fn find(&self, child: &Child) -> Option<&Arc<DynamicObject>> {
        let same =
            |(kind, object): &&(Kind, Arc<DynamicObject>)| *kind == child.kind && object.name_any() == child.name;
        self.children.iter().find(same).map(|(_, object)| object)
    }
}

/// It is not watched, for its definition may not be installed. While it is not asked for it is looked for only in the
/// first pass after a change, which may be the one that removes it.
async fn service_monitor(
    cluster: &RegistryCluster,
    identity: &Identity,
    context: &Context,
) -> Result<Option<(Kind, Arc<DynamicObject>)>, ReconcileError> {
    let observed = cluster.status.as_ref().and_then(|status| status.observed_generation);
    let changed = observed.is_some() && observed != cluster.metadata.generation;
    if !cluster.spec.monitoring.service_monitor && !changed {
        return Ok(None);
    }
    let resource = resource(Kind::ServiceMonitor);
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &identity.namespace, &resource);
    let found = match api.get(&identity.name).await {
        Ok(found) => Some(found),
        // Without the definition it is not there either, and the answer is none of the API's own.
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => return Err(ReconcileError::api("look for the ServiceMonitor")(error)),
    };
    Ok(found.map(|object| (Kind::ServiceMonitor, Arc::new(object))))
}

async fn storage(
    cluster: &RegistryCluster,
    identity: &Identity,
    set: Option<&StatefulSet>,
    pods: &[Arc<Pod>],
    claims: &[Arc<PersistentVolumeClaim>],
    context: &Context,
) -> Result<storage::Observed, ReconcileError> {
    let claims: Vec<_> = claims.iter().filter_map(|claim| observed_claim(identity, claim)).collect();
    let class = class(cluster, &claims, context).await?;
    Ok(storage::Observed {
        replicas: cluster.spec.replicas,
        set: set.and_then(observed_set),
        claims,
        nodes: pods.iter().filter_map(|pod| observed_node(identity, pod)).collect(),
        class,
    })
}

fn ordinal(name: &str, prefix: &str) -> Option<i32> {
    name.strip_prefix(prefix)?.strip_prefix('-')?.parse().ok()
}

fn observed_set(set: &StatefulSet) -> Option<ObservedSet> {
    let template = set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?.spec.as_ref()?;
    let size = template.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()?;
    Some(ObservedSet {
        version: Version::of(set)?,
        volume: Volume { size, class: template.storage_class_name.clone() },
        deleting: set.metadata.deletion_timestamp.is_some(),
    })
}

fn observed_claim(identity: &Identity, claim: &PersistentVolumeClaim) -> Option<ObservedClaim> {
    let name = claim.name_any();
    let size = |sizes: &std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
        sizes.get("storage")?.0.parse::<ByteSize>().ok()
    };
    let spec = claim.spec.as_ref()?;
    let status = claim.status.clone().unwrap_or_default();
    let waits = |condition: &k8s_openapi::api::core::v1::PersistentVolumeClaimCondition| {
        condition.type_ == "FileSystemResizePending" && condition.status == "True"
    };
    Some(ObservedClaim {
        ordinal: ordinal(&name, &format!("{VOLUME}-{}", identity.name))?,
        version: Version::of(claim)?,
        requested: size(spec.resources.as_ref()?.requests.as_ref()?)?,
        capacity: status.capacity.as_ref().and_then(size),
        class: spec.storage_class_name.clone(),
        grows_at_restart: status.conditions.as_deref().unwrap_or_default().iter().any(waits),
        deleting: claim.metadata.deletion_timestamp.is_some(),
        name,
    })
}

fn observed_node(identity: &Identity, pod: &Pod) -> Option<ObservedNode> {
    let name = pod.name_any();
    Some(ObservedNode {
        ordinal: ordinal(&name, &identity.name)?,
        version: Version::of(pod)?,
        ready: is_ready(pod),
        scheduled: pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()),
        deleting: is_deleting(pod),
        name,
    })
}

/// The StorageClass matters where claims are to grow, and where they are not bound.
async fn class(
    cluster: &RegistryCluster,
    claims: &[ObservedClaim],
    context: &Context,
) -> Result<Class, ReconcileError> {
    let cache = &cluster.spec.cache;
    let grows = |claim: &&ObservedClaim| cache.resize_policy == ResizePolicy::Expand && claim.requested < cache.size;
    let unbound = |claim: &&ObservedClaim| claim.capacity.is_none();
    let Some(claim) = claims.iter().find(grows).or_else(|| claims.iter().find(unbound)) else {
        return Ok(Class::NotAsked);
    };
    let Some(name) = claim.class.as_deref().or(cache.storage_class_name.as_deref()) else {
        return Ok(Class::NotAsked);
    };
    let classes: Api<StorageClass> = Api::all(context.client.clone());
    let found = classes.get_opt(name).await.map_err(ReconcileError::api("look at the StorageClass"))?;
    Ok(match found {
        None => Class::Missing,
        Some(class) if class.allow_volume_expansion == Some(true) => Class::Expands,
        Some(_) => Class::CannotExpand,
    })
}

/// Only whether they are there: what is in a Secret is never asked for.
async fn missing(cluster: &RegistryCluster, identity: &Identity, context: &Context) -> Result<Missing, ReconcileError> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &identity.namespace);
    let bucket = &cluster.spec.bucket;
    let mut missing = Missing::default();
    if let Some(secret) = &bucket.auth.secret_ref {
        let found = secrets.get_metadata_opt(&secret.name).await.map_err(ReconcileError::api("look for the Secret"))?;
        missing.secret = found.is_none().then(|| secret.name.clone());
    }
    if let Some(bundle) = &bucket.ca_bundle_ref {
        let is_there = match bundle.kind {
            CaKind::Secret => secrets.get_metadata_opt(&bundle.name).await.map(|found| found.is_some()),
            CaKind::ConfigMap => {
                let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &identity.namespace);
                maps.get_metadata_opt(&bundle.name).await.map(|found| found.is_some())
            }
        };
        let is_there = is_there.map_err(ReconcileError::api("look for the certificate authorities"))?;
        missing.ca_bundle = (!is_there).then(|| format!("{:?} {}", bundle.kind, bundle.name));
    }
    Ok(missing)
}
