//! What is watched: RegistryClusters, and of everything else only what carries the operator's label. Each watch keeps
//! a store, which passes read instead of the API server, and triggers the cluster that its objects belong to. Each
//! object is read by itself: an odd one is kept as what it is, and ends no watch.

use crate::crd::RegistryCluster;
use crate::lists::Lists;
use crate::metrics::Metrics;
use crate::names::{INSTANCE, MANAGED_BY, MANAGER};
use crate::parsed::Parsed;
use crate::reconcile::build::Kind;
use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, future};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::{Store, Writer};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// A RegistryCluster, or why it cannot be read.
pub type Cluster = Parsed<RegistryCluster>;

/// What passes read.
pub struct Stores {
    pub clusters: Store<Cluster>,
    children: BTreeMap<Kind, Store<Parsed<DynamicObject>>>,
    pods: Store<Parsed<Pod>>,
    claims: Store<Parsed<PersistentVolumeClaim>>,
}

/// A cluster's objects of a kind.
pub struct Found<K> {
    pub objects: Vec<Arc<K>>,
    /// Of those that cannot be read: which, and why.
    pub unreadable: Vec<String>,
}

/// Clusters that something happened to.
pub type Triggers = SelectAll<BoxStream<'static, Result<ObjectRef<Cluster>, Infallible>>>;

/// What all watches have in common.
struct Watches<'a> {
    client: &'a Client,
    metrics: &'a Arc<Metrics>,
    lists: &'a Lists,
    triggers: Triggers,
}

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
pub fn start(client: &Client, metrics: &Arc<Metrics>, lists: &Lists) -> (Stores, Triggers) {
    let mut watches = Watches { client, metrics, lists, triggers: SelectAll::new() };
    let clusters = watches.watch((), watcher::Config::default(), |object| Some(ObjectRef::from_obj(object)));
    let ours = || watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    // Its definition may not be installed: it is looked at where it is asked for.
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::ServiceMonitor);
    let children = kinds.map(|kind| (kind, watches.watch(resource(kind), ours(), cluster_of))).collect();
    let pods = watches.watch((), ours(), cluster_of);
    let claims = watches.watch((), ours(), cluster_of);
    (Stores { clusters, children, pods, claims }, watches.triggers)
}

/// By its label: an object whose owner somebody edited away is still put back.
fn cluster_of<K: ResourceExt>(object: &K) -> Option<ObjectRef<Cluster>> {
    let name = object.labels().get(INSTANCE)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

impl Watches<'_> {
    fn watch<K>(
        &mut self,
        kind: K::DynamicType,
        config: watcher::Config,
        cluster_of: impl Fn(&Parsed<K>) -> Option<ObjectRef<Cluster>> + Send + 'static,
    ) -> Store<Parsed<K>>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Clone + Eq + Hash + Debug + Unpin + Send + Sync,
    {
        let name = K::kind(&kind).into_owned();
        self.lists.expect(&name);
        let api: Api<Parsed<K>> = Api::all_with(self.client.clone(), &kind);
        let writer = Writer::new(kind);
        let store = writer.as_reader();
        let (errors, counted) = (self.metrics.watch_errors.clone(), self.metrics.triggers.clone());
        let (lists, source) = (self.lists.clone(), name.clone());
        let stream = watcher(api, config)
            .default_backoff()
            .inspect(move |outcome| {
                lists.note(&name, outcome);
                if outcome.is_err() {
                    errors.with_label_values(&[name.as_str()]).inc();
                }
            })
            .reflect(writer)
            .touched_objects()
            .filter_map(move |object| {
                let cluster = object.ok().and_then(|object| cluster_of(&object));
                if cluster.is_some() {
                    counted.with_label_values(&[source.as_str()]).inc();
                }
                future::ready(cluster.map(Ok))
            });
        self.triggers.push(stream.boxed());
        store
    }
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
    pub fn children(&self, kind: Kind, namespace: &str, cluster: &str) -> Found<DynamicObject> {
        match self.children.get(&kind) {
            Some(store) => of(store, kind.name(), namespace, cluster),
            None => Found { objects: Vec::new(), unreadable: Vec::new() },
        }
    }

    pub fn pods(&self, namespace: &str, cluster: &str) -> Found<Pod> {
        of(&self.pods, "Pod", namespace, cluster)
    }

    pub fn claims(&self, namespace: &str, cluster: &str) -> Found<PersistentVolumeClaim> {
        of(&self.claims, "PersistentVolumeClaim", namespace, cluster)
    }
}

fn of<K>(store: &Store<Parsed<K>>, kind: &str, namespace: &str, cluster: &str) -> Found<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let belongs = |object: &Parsed<K>| {
        object.meta().namespace.as_deref() == Some(namespace)
            && object.labels().get(INSTANCE).is_some_and(|instance| instance == cluster)
    };
    let mut all: Vec<_> = store.state().into_iter().filter(|object| belongs(object)).collect();
    all.sort_by_key(|object| object.name_any());
    let mut found = Found { objects: Vec::new(), unreadable: Vec::new() };
    for object in all {
        match &object.content {
            Ok(content) => found.objects.push(content.clone()),
            Err(why) => found.unreadable.push(format!("{kind} {} cannot be read: {why}", object.name_any())),
        }
    }
    found
}
