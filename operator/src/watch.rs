//! The watches of all namespaces or of one: all RegistryClusters, and of every other kind only the
//! objects with the operator's label. Each watch keeps a store, which reconciliations read instead of the API server, and
//! triggers the cluster that a changed object belongs to. Each object is decoded on its own: one
//! that cannot be decoded is kept with the reason and ends no watch.

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
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

/// A RegistryCluster, or why it cannot be decoded.
pub type Cluster = Parsed<RegistryCluster>;

/// The stores of all watches.
pub struct Stores {
    pub clusters: Store<Cluster>,
    children: BTreeMap<Kind, Store<Parsed<DynamicObject>>>,
    pods: Store<Parsed<Pod>>,
    claims: Store<Parsed<PersistentVolumeClaim>>,
}

/// A cluster's objects of one kind.
pub struct Found<K> {
    pub objects: Vec<Arc<K>>,
    /// Objects that cannot be decoded, each with the reason.
    pub unreadable: Vec<String>,
}

/// References to clusters that have to be reconciled.
pub type Triggers = SelectAll<BoxStream<'static, Result<ObjectRef<Cluster>, Infallible>>>;

/// The namespaces that a group of watches covers. An operator with permissions in some namespaces
/// only has a group for each, so that one namespace that it cannot read does not stop the others.
#[derive(Clone, Debug)]
pub enum Scope {
    All,
    Namespace(String),
}

impl Scope {
    /// One for each namespace; without namespaces, all of them.
    pub fn of(namespaces: &[String]) -> Vec<Scope> {
        let namespaces: BTreeSet<_> = namespaces.iter().cloned().collect();
        let scopes: Vec<_> = namespaces.into_iter().map(Scope::Namespace).collect();
        if scopes.is_empty() { vec![Scope::All] } else { scopes }
    }

    fn api<K>(&self, client: &Client, kind: &K::DynamicType) -> Api<Parsed<K>>
    where
        K: Resource,
    {
        match self {
            Scope::All => Api::all_with(client.clone(), kind),
            Scope::Namespace(namespace) => Api::namespaced_with(client.clone(), namespace, kind),
        }
    }

    /// The kind with its namespace, for messages.
    fn describe(&self, kind: &str) -> String {
        match self {
            Scope::All => kind.to_owned(),
            Scope::Namespace(namespace) => format!("{kind} in namespace {namespace}"),
        }
    }
}

/// What all watches share.
struct Watches<'a> {
    client: &'a Client,
    scope: &'a Scope,
    metrics: &'a Arc<Metrics>,
    lists: &'a Lists,
    triggers: Triggers,
}

/// The kind in the form of the dynamic API.
pub fn resource(kind: Kind) -> ApiResource {
    let (group, version) = kind.api_version().split_once('/').unwrap_or(("", kind.api_version()));
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind.name()));
    if kind == Kind::Ingress {
        resource.plural = "ingresses".into();
    }
    resource
}

/// Starts all watches of a scope. No event arrives before the triggers are polled.
pub fn start(client: &Client, scope: &Scope, metrics: &Arc<Metrics>, lists: &Lists) -> (Stores, Triggers) {
    let mut watches = Watches { client, scope, metrics, lists, triggers: SelectAll::new() };
    let clusters = watches.watch((), watcher::Config::default(), |object| Some(ObjectRef::from_obj(object)));
    let ours = || watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    // The ServiceMonitor CRD may not be installed, so a reconciliation gets the object when it
    // needs it.
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::ServiceMonitor);
    let children = kinds.map(|kind| (kind, watches.watch(resource(kind), ours(), cluster_of))).collect();
    let pods = watches.watch((), ours(), cluster_of);
    let claims = watches.watch((), ours(), cluster_of);
    (Stores { clusters, children, pods, claims }, watches.triggers)
}

/// Goes by the label, so that an object whose owner reference was removed is still restored.
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
        let listed = self.scope.describe(&name);
        self.lists.expect(&listed);
        let api = self.scope.api::<K>(self.client, &kind);
        let writer = Writer::new(kind);
        let store = writer.as_reader();
        let (errors, counted) = (self.metrics.watch_errors.clone(), self.metrics.triggers.clone());
        let (lists, source) = (self.lists.clone(), name.clone());
        let stream = watcher(api, config)
            .default_backoff()
            .inspect(move |outcome| {
                lists.record(&listed, outcome);
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
    /// Waits until all stores were filled once. Acting on less would create objects that already
    /// exist.
    pub async fn ready(&self) {
        let filled = async |filled: Result<(), kube::runtime::reflector::store::WriterDropped>| {
            if filled.is_err() {
                tracing::error!("a watch ended unexpectedly; reconciliation has stopped until the operator restarts");
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

    /// The cluster's objects of a kind, selected by the cluster's label.
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
            Err(why) => found.unreadable.push(format!("cannot decode {kind} {}: {why}", object.name_any())),
        }
    }
    found
}
