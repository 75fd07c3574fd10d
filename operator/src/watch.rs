//! What is watched: RegistryClusters, and of everything else only what carries the operator's label. Each watch keeps
//! a store, which passes read instead of the API server, and triggers the cluster that its objects belong to.

use crate::crd::RegistryCluster;
use crate::metrics::Metrics;
use crate::names::{INSTANCE, MANAGED_BY, MANAGER};
use crate::reconcile::build::Kind;
use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt, future};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::store::{Store, Writer};
use kube::runtime::reflector::{Lookup, ObjectRef};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// What passes read.
pub struct Stores {
    pub clusters: Store<RegistryCluster>,
    children: BTreeMap<Kind, Store<DynamicObject>>,
    pods: Store<Pod>,
    claims: Store<PersistentVolumeClaim>,
}

/// Clusters that something happened to.
pub type Triggers = SelectAll<BoxStream<'static, Result<ObjectRef<RegistryCluster>, Infallible>>>;

/// The kind as the dynamic API has it.
pub fn resource(kind: Kind) -> ApiResource {
    let (group, version) = kind.api_version().split_once('/').unwrap_or(("", kind.api_version()));
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.name()));
    if kind == Kind::Ingress {
        resource.plural = "ingresses".into();
    }
    resource
}

/// Begins all watches. Nothing comes in before the triggers are polled.
pub fn start(client: &Client, metrics: &Arc<Metrics>) -> (Stores, Triggers) {
    let mut triggers = SelectAll::new();
    let clusters = watch(Api::all(client.clone()), (), watcher::Config::default(), &mut triggers, metrics, |object| {
        Some(ObjectRef::from_obj(object))
    });
    let ours = || watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    // Its definition may not be installed: it is looked at where it is asked for.
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::ServiceMonitor);
    let children = kinds.map(|kind| {
        let resource = resource(kind);
        let api = Api::all_with(client.clone(), &resource);
        (kind, watch(api, resource, ours(), &mut triggers, metrics, cluster_of))
    });
    let children = children.collect();
    let pods = watch(Api::all(client.clone()), (), ours(), &mut triggers, metrics, cluster_of);
    let claims = watch(Api::all(client.clone()), (), ours(), &mut triggers, metrics, cluster_of);
    (Stores { clusters, children, pods, claims }, triggers)
}

/// By its label: an object whose owner somebody edited away is still put back.
fn cluster_of<K: ResourceExt>(object: &K) -> Option<ObjectRef<RegistryCluster>> {
    let name = object.labels().get(INSTANCE)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

fn watch<K>(
    api: Api<K>,
    kind: <K as Resource>::DynamicType,
    config: watcher::Config,
    triggers: &mut Triggers,
    metrics: &Arc<Metrics>,
    cluster_of: impl Fn(&K) -> Option<ObjectRef<RegistryCluster>> + Send + 'static,
) -> Store<K>
where
    K: Resource
        + Lookup<DynamicType = <K as Resource>::DynamicType>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
    <K as Resource>::DynamicType: Clone + Eq + Hash + Debug + Unpin + Send + Sync,
{
    let name = <K as Resource>::kind(&kind).into_owned();
    let writer = Writer::new(kind);
    let store = writer.as_reader();
    let (errors, counted) = (metrics.watch_errors.clone(), metrics.triggers.clone());
    let source = name.clone();
    let stream = watcher(api, config)
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .inspect_err(move |error| {
            errors.with_label_values(&[name.as_str()]).inc();
            tracing::warn!(kind = name, %error, "a watch broke and begins anew");
        })
        .filter_map(move |object| {
            let cluster = object.ok().and_then(|object| cluster_of(&object));
            if cluster.is_some() {
                counted.with_label_values(&[source.as_str()]).inc();
            }
            future::ready(cluster.map(Ok))
        });
    triggers.push(stream.boxed());
    store
}

impl Stores {
    /// Waits until all of them were filled for the first time: to act on less would make what is there already.
    pub async fn ready(&self) {
        let gone = "a watch ended";
        let filled = async |filled: Result<(), kube::runtime::reflector::store::WriterDropped>| {
            if filled.is_err() {
                tracing::error!(gone, "nothing more is reconciled");
                future::pending::<()>().await;
            }
        };
        filled(self.clusters.wait_until_ready().await).await;
        for store in self.children.values() {
            filled(store.wait_until_ready().await).await;
        }
        filled(self.pods.wait_until_ready().await).await;
        filled(self.claims.wait_until_ready().await).await;
    }

    /// The cluster's objects of a kind, by its label.
    pub fn children(&self, kind: Kind, namespace: &str, cluster: &str) -> Vec<Arc<DynamicObject>> {
        self.children.get(&kind).map(|store| of(store, namespace, cluster)).unwrap_or_default()
    }

    pub fn pods(&self, namespace: &str, cluster: &str) -> Vec<Arc<Pod>> {
        of(&self.pods, namespace, cluster)
    }

    pub fn claims(&self, namespace: &str, cluster: &str) -> Vec<Arc<PersistentVolumeClaim>> {
        of(&self.claims, namespace, cluster)
    }
}

fn of<K>(store: &Store<K>, namespace: &str, cluster: &str) -> Vec<Arc<K>>
where
    K: Lookup + ResourceExt + Clone + 'static,
    <K as Lookup>::DynamicType: Eq + Hash + Clone,
{
    let belongs = |object: &K| {
        object.meta().namespace.as_deref() == Some(namespace)
            && object.labels().get(INSTANCE).is_some_and(|instance| instance == cluster)
    };
    let mut found: Vec<_> = store.state().into_iter().filter(|object| belongs(object)).collect();
    found.sort_by_key(|object| object.name_any());
    found
}
