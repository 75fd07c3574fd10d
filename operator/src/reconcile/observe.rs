//! Observes a cluster: from the stores of the watches, from the nodes' status, and by reading the
//! unwatched objects that the spec refers to.

use super::build::{Child, Kind};
use super::rollout::{is_deleting, is_ready};
use super::storage::{self, Class, ObservedClaim, ObservedNode, ObservedSet, Volume};
use super::version::Version;
use super::{Context, Failure};
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

/// What a reconciliation decides by.
pub struct Observed {
    pub children: Vec<(Kind, Arc<DynamicObject>)>,
    pub set: Option<StatefulSet>,
    pub pods: Vec<Arc<Pod>>,
    pub storage: storage::Observed,
    /// The status of the ready nodes.
    pub reports: Vec<NodeStatus>,
    /// Names and kinds of the objects that the spec refers to and that do not exist.
    pub missing: Missing,
    /// Objects of the cluster that cannot be decoded, and reads that failed. What they would have
    /// shown counts as unknown, and no decision is based on it.
    pub failures: Vec<Failure>,
    /// An earlier reconciliation applied all of this very spec: a missing child was deleted by
    /// somebody else.
    pub settled: bool,
    /// The last reconciliation was replacing the StatefulSet: the operator itself deleted it.
    pub replacing: bool,
}

/// Objects that the spec refers to and that do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The Secret that holds the credentials.
    pub secret: Option<String>,
    /// The ConfigMap or Secret that holds the CA certificates, such as `ConfigMap ca`.
    pub ca_bundle: Option<String>,
}

/// Observes everything. A failed read does not stop the others.
pub async fn observe(cluster: &RegistryCluster, context: &Context) -> Observed {
    let identity = Identity::of(cluster);
    let (namespace, name) = (identity.namespace.as_str(), identity.name.as_str());
    let mut failures = Vec::new();
    let mut children = Vec::new();
    for kind in Kind::ALL {
        let found = context.stores.children(kind, namespace, name);
        failures.extend(found.unreadable.into_iter().map(Failure::Unreadable));
        children.extend(found.objects.into_iter().map(|object| (kind, object)));
    }
    let monitor = service_monitor(cluster, &identity, context).await;
    children.extend(noted(monitor, &mut failures).flatten());
    let set = children.iter().find(|(kind, object)| *kind == Kind::StatefulSet && object.name_any() == name);
    let set = set.map(|(_, object)| DynamicObject::clone(object).try_parse::<StatefulSet>());
    let set = noted(
        set.transpose().map_err(|error| Failure::Unreadable(format!("cannot decode StatefulSet {name}: {error}"))),
        &mut failures,
    );
    let set = set.flatten();
    let (pods, claims) = (context.stores.pods(namespace, name), context.stores.claims(namespace, name));
    failures.extend(pods.unreadable.into_iter().chain(claims.unreadable).map(Failure::Unreadable));
    let unreadable = failures.iter().any(|failure| matches!(failure, Failure::Unreadable(_)));
    let (pods, claims) = (pods.objects, claims.objects);
    let claims: Vec<_> = claims.iter().filter_map(|claim| observed_claim(&identity, claim)).collect();
    let storage = storage::Observed {
        replicas: cluster.spec.replicas,
        set: set.as_ref().and_then(observed_set),
        nodes: pods.iter().filter_map(|pod| observed_node(&identity, pod)).collect(),
        class: noted(class(cluster, &claims, context).await, &mut failures).unwrap_or(Class::Unknown),
        claims,
        unreadable,
    };
    let missing = missing(cluster, &identity, context, &mut failures).await;
    let reports = context.nodes.ask(pods.iter().map(AsRef::as_ref)).await;
    let conditions = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let settled = conditions.iter().any(|known| {
        (known.type_.as_str(), known.status.as_str()) == ("Applied", "True")
            && known.observed_generation == cluster.metadata.generation
    });
    let replacing = conditions.iter().any(|known| known.type_ == "StorageResized" && known.reason == "Replacing");
    Observed { children, set, pods, storage, reports, missing, failures, settled, replacing }
}

/// The result of a read. A failure is added to `failures`.
fn noted<T>(look: Result<T, Failure>, failures: &mut Vec<Failure>) -> Option<T> {
    look.map_err(|failure| failures.push(failure)).ok()
}

impl Observed {
    /// The present object of a child.
    pub fn find(&self, child: &Child) -> Option<&Arc<DynamicObject>> {
        let same =
            |(kind, object): &&(Kind, Arc<DynamicObject>)| *kind == child.kind && object.name_any() == child.name;
        self.children.iter().find(same).map(|(_, object)| object)
    }
}

/// ServiceMonitors are not watched, because the CRD may not be installed. If the spec requests
/// none, the object is read only in the first reconciliation after a change, because that one may
/// have to delete it.
async fn service_monitor(
    cluster: &RegistryCluster,
    identity: &Identity,
    context: &Context,
) -> Result<Option<(Kind, Arc<DynamicObject>)>, Failure> {
    let observed = cluster.status.as_ref().and_then(|status| status.observed_generation);
    let changed = observed.is_some() && observed != cluster.metadata.generation;
    if !cluster.spec.monitoring.service_monitor && !changed {
        return Ok(None);
    }
    let resource = resource(Kind::ServiceMonitor);
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &identity.namespace, &resource);
    let found = match api.get(&identity.name).await {
        Ok(found) => Some(found),
        // 404: without the CRD the object does not exist either. 403: an operator without the
        // permission to read it has created none; if the spec requests one, the apply fails and
        // reports the reason.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => None,
        Err(error) => return Err(Failure::look("get the ServiceMonitor")(error)),
    };
    Ok(found.map(|object| (Kind::ServiceMonitor, Arc::new(object))))
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

/// The StorageClass matters if claims have to grow, or if one is not bound.
async fn class(cluster: &RegistryCluster, claims: &[ObservedClaim], context: &Context) -> Result<Class, Failure> {
    let store = &cluster.spec.store;
    let grows = |claim: &&ObservedClaim| store.resize_policy == ResizePolicy::Expand && claim.requested < store.size;
    let unbound = |claim: &&ObservedClaim| claim.capacity.is_none();
    let Some(claim) = claims.iter().find(grows).or_else(|| claims.iter().find(unbound)) else {
        return Ok(Class::NotAsked);
    };
    let Some(name) = claim.class.as_deref().or(store.storage_class_name.as_deref()) else {
        return Ok(Class::NotAsked);
    };
    let classes: Api<StorageClass> = Api::all(context.client.clone());
    let found = classes.get_opt(name).await.map_err(Failure::look("get the StorageClass"))?;
    Ok(match found {
        None => Class::Missing,
        Some(class) if class.allow_volume_expansion == Some(true) => Class::Expands,
        Some(_) => Class::CannotExpand,
    })
}

/// Reads only metadata, never the contents of a Secret. If a read fails, the object is not reported
/// as missing.
async fn missing(
    cluster: &RegistryCluster,
    identity: &Identity,
    context: &Context,
    failures: &mut Vec<Failure>,
) -> Missing {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &identity.namespace);
    let bucket = &cluster.spec.bucket;
    let mut missing = Missing::default();
    if let Some(secret) = &bucket.auth.secret_ref {
        let found = secrets
            .get_metadata_opt(&secret.name)
            .await
            .map_err(Failure::look("get the Secret of spec.bucket.auth.secretRef"));
        missing.secret = noted(found, failures).filter(Option::is_none).map(|_| secret.name.clone());
    }
    if let Some(bundle) = &bucket.ca_bundle_ref {
        let is_there = match bundle.kind {
            CaKind::Secret => secrets.get_metadata_opt(&bundle.name).await.map(|found| found.is_some()),
            CaKind::ConfigMap => {
                let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &identity.namespace);
                maps.get_metadata_opt(&bundle.name).await.map(|found| found.is_some())
            }
        };
        let is_there = noted(is_there.map_err(Failure::look("get the object of spec.bucket.caBundleRef")), failures);
        missing.ca_bundle = (is_there == Some(false)).then(|| format!("{:?} {}", bundle.kind, bundle.name));
    }
    missing
}
