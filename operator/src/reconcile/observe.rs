//! Observes a cluster: from the stores of the watches, from the nodes' status, and by reading the
//! unwatched objects that the spec refers to.

mod referenced;
mod secrets;
mod volumes;

pub use secrets::{Purpose, ReferencedSecret, SecretState};

use super::build::{Child, Kind};
use super::context::Context;
use super::error::{Failure, Failures};
use super::storage::{self, Class};
use crate::crd::RegistryCluster;
use crate::names::Identity;
use crate::watch::resource;
use entrepot_config::NodeStatus;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};
use referenced::{missing_ca, ok_or_record, storage_class};
use std::sync::Arc;

/// What a reconciliation decides by.
pub struct Observed {
    pub children: Vec<(Kind, Arc<DynamicObject>)>,
    pub set: Option<StatefulSet>,
    pub pods: Vec<Arc<Pod>>,
    pub storage: storage::Observed,
    /// The status of the ready nodes.
    pub reports: Vec<NodeStatus>,
    /// The Secrets that the spec refers to.
    pub secrets: Vec<ReferencedSecret>,
    /// The ConfigMap with CA certificates that the spec refers to, if it does not exist.
    pub missing_ca: Option<String>,
    /// An earlier reconciliation applied all of this very spec: a missing child was deleted by
    /// somebody else.
    pub already_applied: bool,
    /// The last reconciliation was recreating the StatefulSet: the operator itself deleted it.
    pub recreating_set: bool,
}

/// Observes everything. A failed read does not stop the others. The failures are objects of the
/// cluster that cannot be decoded, and reads that failed: what they would have shown counts as
/// unknown, and no decision is based on it.
pub async fn observe(cluster: &RegistryCluster, context: &Context) -> (Observed, Failures) {
    let identity = Identity::of(cluster);
    let Cached { mut children, set, pods, claims, undecodable } = Cached::of(&identity, context);
    let unreadable = !undecodable.is_empty();
    let mut failures = Failures::default();
    undecodable.into_iter().for_each(|why| failures.push(Failure::Unreadable(why)));
    let monitor = service_monitor(cluster, &identity, context).await;
    children.extend(ok_or_record(monitor, &mut failures).flatten());
    let claims: Vec<_> = claims.iter().filter_map(|claim| volumes::claim(&identity, claim)).collect();
    let storage = storage::Observed {
        replicas: cluster.spec.replicas,
        set: set.as_ref().and_then(volumes::set),
        nodes: pods.iter().filter_map(|pod| volumes::node(&identity, pod)).collect(),
        class: ok_or_record(storage_class(cluster, &claims, context).await, &mut failures).unwrap_or(Class::Unknown),
        claims,
        unreadable,
    };
    let missing_ca = missing_ca(cluster, &identity, context, &mut failures).await;
    let secrets = secrets::secrets(&cluster.spec, &identity, context, &mut failures).await;
    let reports = context.node_status.read_all(pods.iter().map(AsRef::as_ref)).await;
    let conditions = cluster.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let already_applied = conditions.iter().any(|known| {
        (known.type_.as_str(), known.status.as_str()) == ("Applied", "True")
            && known.observed_generation == cluster.metadata.generation
    });
    let recreating_set = conditions.iter().any(|known| known.type_ == "StorageResized" && known.reason == "Replacing");
    (Observed { children, set, pods, storage, reports, secrets, missing_ca, already_applied, recreating_set }, failures)
}

/// What the stores of the watches hold of a cluster.
struct Cached {
    children: Vec<(Kind, Arc<DynamicObject>)>,
    set: Option<StatefulSet>,
    pods: Vec<Arc<Pod>>,
    claims: Vec<Arc<PersistentVolumeClaim>>,
    /// Objects that cannot be decoded, each with the reason.
    undecodable: Vec<String>,
}

impl Cached {
    fn of(identity: &Identity, context: &Context) -> Cached {
        let (namespace, name) = (identity.namespace.as_str(), identity.name.as_str());
        let mut undecodable = Vec::new();
        let mut children = Vec::new();
        for kind in Kind::ALL {
            let found = context.stores.children(kind, namespace, name);
            undecodable.extend(found.unreadable);
            children.extend(found.objects.into_iter().map(|object| (kind, object)));
        }
        let set = children.iter().find(|(kind, object)| *kind == Kind::StatefulSet && object.name_any() == name);
        let set = set.and_then(|(_, object)| {
            let decoded = DynamicObject::clone(object).try_parse::<StatefulSet>();
            decoded.map_err(|error| undecodable.push(format!("cannot decode StatefulSet {name}: {error}"))).ok()
        });
        let (pods, claims) = (context.stores.pods(namespace, name), context.stores.claims(namespace, name));
        undecodable.extend(pods.unreadable.into_iter().chain(claims.unreadable));
        Cached { children, set, pods: pods.objects, claims: claims.objects, undecodable }
    }
}

impl Observed {
    /// Whether it is known of every Secret whether a registry may use it.
    pub fn knows_secrets(&self) -> bool {
        self.secrets.iter().all(|secret| secret.state != SecretState::Unknown)
    }

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
        Err(error) => return Err(Failure::read("get the ServiceMonitor")(error)),
    };
    Ok(found.map(|object| (Kind::ServiceMonitor, Arc::new(object))))
}
