//! The fixture of a scenario: a registry in its own namespace, with its own prefix in the bucket.

use super::nodes::Node;
use crate::client::Registry;
use crate::cluster::{Cluster, Kubectl};
use crate::s3::{ACCESS_KEY, BUCKET, REGION, SECRET_KEY};
use crate::wait;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::time::Duration;

/// Time limit for a registry to match its spec, and for anything else that a healthy cluster is
/// asked to do: pods are replaced one after the other, and each takes ten seconds.
pub const TIMEOUT: Duration = Duration::from_secs(180);

/// The label of a Secret with the bucket's keys that registries may use.
pub fn allowed_use() -> Value {
    json!({"entrepot.dev/use": "bucket"})
}

/// A RegistryCluster by namespace and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixture {
    pub namespace: &'static str,
    pub name: &'static str,
}

impl Fixture {
    /// The registry `images` in a namespace.
    pub const fn new(namespace: &'static str) -> Fixture {
        Fixture::named(namespace, "images")
    }

    pub const fn named(namespace: &'static str, name: &'static str) -> Fixture {
        Fixture { namespace, name }
    }

    /// The RegistryCluster: one small pod, with `spec` merged into its spec.
    pub fn manifest(self, spec: &Value) -> Value {
        let mut whole = json!({
            "replicas": 1,
            "bucket": {
                "name": BUCKET,
                "prefix": self.prefix(),
                "region": REGION,
                "endpoint": "http://s3.storage:7070",
                "insecure": true,
                "pathStyle": true,
                "auth": {"secretRef": {"name": "s3-credentials"}},
            },
            "store": {"size": "1Gi"},
            "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        });
        json_patch::merge(&mut whole, spec);
        json!({
            "apiVersion": "entrepot.dev/v1alpha1",
            "kind": "RegistryCluster",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": whole,
        })
    }

    /// The prefix of its keys in the bucket.
    pub fn prefix(self) -> String {
        format!("{}/{}/", self.namespace, self.name)
    }

    /// Creates the namespace, the Secret with the bucket's keys, and the RegistryCluster. Returns
    /// the registry when all of its nodes are ready.
    ///
    /// # Errors
    /// If they do not become ready.
    pub async fn create(self, cluster: &dyn Cluster, spec: &Value) -> Result<Registry> {
        cluster.apply(&self.secret()).await?;
        cluster.apply(&self.manifest(spec).to_string()).await?;
        self.until_settled(cluster).await?;
        self.registry(cluster).await
    }

    /// The namespace, and in it the Secret with the bucket's keys.
    pub fn secret(self) -> String {
        json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": self.namespace,
                    "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
                },
            },
            {
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "s3-credentials", "namespace": self.namespace, "labels": allowed_use()},
                "stringData": {"accessKeyId": ACCESS_KEY, "secretAccessKey": SECRET_KEY},
            },
        ]})
        .to_string()
    }

    /// The registry at its Service, after that responds: the Kubernetes nodes learn about an
    /// endpoint shortly after its pod is ready.
    ///
    /// # Errors
    /// If the Service does not exist or does not respond.
    pub async fn registry(self, cluster: &dyn Cluster) -> Result<Registry> {
        let registry = cluster.registry(self.namespace, self.name).await?;
        wait::until(&format!("the Service of {self:?} responds"), TIMEOUT, || registry.answers()).await?;
        Ok(registry)
    }

    /// Changes fields of the spec by a merge patch; null removes a field. By kubectl, because no
    /// other client parses every object of the scenarios.
    ///
    /// # Errors
    /// If the API server rejects it; the message contains the reason.
    pub async fn change(self, cluster: &dyn Cluster, spec: &Value) -> Result<()> {
        let (name, patch) = (format!("rgc/{}", self.name), json!({"spec": spec}).to_string());
        cluster.kubectl(["-n", self.namespace, "patch", &name, "--type=merge", "-p", &patch]).await.map(drop)
    }

    /// Waits until the registry matches its spec: every pod has the newest revision and is ready,
    /// there are no others, and the status reports that.
    ///
    /// # Errors
    /// If it does not in time.
    pub async fn until_settled(self, cluster: &dyn Cluster) -> Result<()> {
        let what = format!("the registry {}/{} matches its spec", self.namespace, self.name);
        wait::until(&what, TIMEOUT, || async { self.is_settled(cluster).await.is_some() }).await
    }

    async fn is_settled(self, cluster: &dyn Cluster) -> Option<()> {
        let registry = self.object(cluster).await.ok()?;
        let (spec, status) = (&registry.data["spec"], &registry.data["status"]);
        // The operator has applied every generation that it has observed; the StatefulSet controller
        // must have observed what was applied.
        let observed = status["observedGeneration"].as_i64() == registry.metadata.generation;
        let set = self.stateful_set(cluster).await.ok()?;
        let rollout = set.status?;
        let rolled_out = rollout.observed_generation == set.metadata.generation
            && rollout.current_revision == rollout.update_revision
            && set.spec?.replicas == Some(rollout.replicas);
        let nodes = self.nodes(cluster).await.ok()?;
        let wanted = usize::try_from(spec["replicas"].as_i64()?).ok()?;
        let all_ready = nodes.len() == wanted && nodes.iter().all(|node| node.ready && !node.terminating);
        let reported = self.condition(cluster, "Ready").await.ok()??.reason == "AllNodesReady"
            && status["readyReplicas"].as_u64() == u64::try_from(wanted).ok();
        (observed && rolled_out && all_ready && reported).then_some(())
    }

    /// The StatefulSet of the nodes.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn stateful_set(self, cluster: &dyn Cluster) -> Result<StatefulSet> {
        Ok(Api::namespaced(cluster.client().clone(), self.namespace).get(self.name).await?)
    }

    /// The node image in the StatefulSet.
    ///
    /// # Errors
    /// If it has none.
    pub async fn node_image(self, cluster: &dyn Cluster) -> Result<String> {
        let set = self.stateful_set(cluster).await?;
        let pod = set.spec.and_then(|spec| spec.template.spec).context("the StatefulSet has no pod template")?;
        pod.containers.into_iter().find_map(|container| container.image).context("the pod template has no image")
    }

    /// Selects all objects that the operator creates for it.
    pub fn selector(self) -> ListParams {
        ListParams::default().labels(&format!("app.kubernetes.io/instance={}", self.name))
    }

    /// Its pods, ordered by name.
    ///
    /// # Errors
    /// If the API server does not respond.
    pub async fn pods(self, cluster: &dyn Cluster) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), self.namespace);
        let mut pods = pods.list(&self.selector()).await?.items;
        pods.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        Ok(pods)
    }

    /// Its nodes, ordered by name.
    ///
    /// # Errors
    /// If the API server does not respond.
    pub async fn nodes(self, cluster: &dyn Cluster) -> Result<Vec<Node>> {
        Ok(self.pods(cluster).await?.iter().map(Node::of).collect())
    }

    /// Each node by its pod's address, ordered by name.
    ///
    /// # Errors
    /// If a pod has no address.
    pub async fn node_registries(self, cluster: &dyn Cluster) -> Result<Vec<Registry>> {
        let nodes = self.nodes(cluster).await?;
        ensure!(nodes.iter().all(|node| !node.address.is_empty()), "a pod has no IP address: {nodes:?}");
        Ok(nodes.iter().map(Node::registry).collect())
    }

    /// Deletes the namespace without waiting for its end.
    ///
    /// # Errors
    /// If the namespace does not exist.
    pub async fn remove(self, cluster: &dyn Cluster) -> Result<()> {
        cluster.kubectl(["delete", "namespace", self.namespace, "--wait=false"]).await.map(drop)
    }
}
