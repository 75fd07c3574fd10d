//! The fixture of a scenario: a small registry in its own namespace, with its own prefix in the
//! bucket; and its nodes.

use super::registry::secret;
use crate::client::Registry;
use crate::cluster::Cluster;
use crate::s3::{BUCKET, REGION};
use crate::wait;
use anyhow::{Context, Result};
use entrepot_config::NodeStatus;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::Duration;

/// Time limit for a small registry to match its spec: its pods are replaced one after the other,
/// and each takes ten seconds.
pub const SOON: Duration = Duration::from_secs(180);

/// The pod of a registry node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub restarts: i32,
    pub ready: bool,
    /// Whether it is being deleted.
    pub going: bool,
    /// The revision of the StatefulSet from which it was created.
    pub revision: String,
    pub address: String,
}

/// The RegistryCluster `images` in a namespace. `spec` adds fields, or overrides those given here.
pub fn registry_cluster(namespace: &str, spec: &Value) -> Value {
    let mut whole = json!({
        "replicas": 1,
        "bucket": {
            "name": BUCKET,
            "prefix": format!("{namespace}/"),
            "region": REGION,
            "endpoint": "http://s3.storage:7070",
            "pathStyle": true,
            "auth": {"secretRef": {"name": "s3-credentials"}},
        },
        "store": {"size": "1Gi"},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        whole[field] = value.clone();
    }
    json!({
        "apiVersion": "entrepot.dev/v1alpha1",
        "kind": "RegistryCluster",
        "metadata": {"name": "images", "namespace": namespace},
        "spec": whole,
    })
}

/// Creates the registry, and returns it when all of its nodes are ready.
///
/// # Errors
/// If they do not become ready.
pub async fn make(cluster: &Cluster, namespace: &str, spec: &Value) -> Result<Registry> {
    cluster.apply(&secret(namespace)).await?;
    cluster.apply(&registry_cluster(namespace, spec).to_string()).await?;
    until_settled(cluster, namespace).await?;
    cluster.registry(namespace, "images").await
}

/// Deletes the namespace without waiting for its end.
///
/// # Errors
/// If the namespace does not exist.
pub async fn remove(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster.kubectl(["delete", "namespace", namespace, "--wait=false"]).await.map(drop)
}

fn registries(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("entrepot.dev", "v1alpha1", "RegistryCluster"));
    Api::namespaced_with(cluster.client().clone(), namespace, &resource)
}

/// The present RegistryCluster.
///
/// # Errors
/// If it does not exist.
pub async fn look(cluster: &Cluster, namespace: &str) -> Result<DynamicObject> {
    Ok(registries(cluster, namespace).get("images").await?)
}

/// Changes fields of its spec; null removes a field.
///
/// # Errors
/// If the API server rejects it.
pub async fn change(cluster: &Cluster, namespace: &str, spec: &Value) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    registries(cluster, namespace).patch("images", &PatchParams::default(), &patch).await.map(drop)?;
    Ok(())
}

/// The condition of this type in the registry's status.
///
/// # Errors
/// If the registry does not exist.
pub async fn condition(cluster: &Cluster, namespace: &str, kind: &str) -> Result<Option<Condition>> {
    let registry = look(cluster, namespace).await?;
    let conditions: Vec<Condition> = serde_json::from_value(registry.data["status"]["conditions"].clone())?;
    Ok(conditions.into_iter().find(|condition| condition.type_ == kind))
}

/// Waits for a condition with this reason. Returns its message.
///
/// # Errors
/// If it does not appear in time.
pub async fn until_reason(cluster: &Cluster, namespace: &str, kind: &str, reason: &str) -> Result<String> {
    wait::value(&format!("{kind} of {namespace} has reason {reason}"), SOON, || async {
        let found = condition(cluster, namespace, kind).await.ok()??;
        (found.reason == reason).then_some(found.message)
    })
    .await
}

/// Waits until the registry matches its spec: every pod has the newest revision and is ready, there
/// are no others, and the status reports that.
///
/// # Errors
/// If it does not in time.
pub async fn until_settled(cluster: &Cluster, namespace: &str) -> Result<()> {
    let what = format!("the registry of {namespace} matches its spec");
    wait::until(&what, SOON, || async { is_settled(cluster, namespace).await.is_some() }).await
}

async fn is_settled(cluster: &Cluster, namespace: &str) -> Option<()> {
    let registry = look(cluster, namespace).await.ok()?;
    let (spec, status) = (&registry.data["spec"], &registry.data["status"]);
    // The operator has applied every generation that it has observed; the StatefulSet controller
    // must have observed what was applied.
    let seen = status["observedGeneration"].as_i64() == registry.metadata.generation;
    let set = set(cluster, namespace).await.ok()?;
    let rollout = set.status?;
    let rolled = rollout.observed_generation == set.metadata.generation
        && rollout.current_revision == rollout.update_revision
        && set.spec?.replicas == Some(rollout.replicas);
    let nodes = nodes(cluster, namespace).await.ok()?;
    let wanted = usize::try_from(spec["replicas"].as_i64()?).ok()?;
    let whole = nodes.len() == wanted && nodes.iter().all(|node| node.ready && !node.going);
    let told = condition(cluster, namespace, "Ready").await.ok()??.reason == "AllNodesReady"
        && status["readyReplicas"].as_u64() == u64::try_from(wanted).ok();
    (seen && rolled && whole && told).then_some(())
}

/// The StatefulSet of the registry nodes.
///
/// # Errors
/// If it does not exist.
pub async fn set(cluster: &Cluster, namespace: &str) -> Result<StatefulSet> {
    Ok(Api::namespaced(cluster.client().clone(), namespace).get("images").await?)
}

/// The node image in the StatefulSet.
///
/// # Errors
/// If it has none.
pub async fn image(cluster: &Cluster, namespace: &str) -> Result<String> {
    let pod = set(cluster, namespace)
        .await?
        .spec
        .and_then(|spec| spec.template.spec)
        .context("the StatefulSet has no pod template")?;
    pod.containers.into_iter().find_map(|container| container.image).context("the pod template has no image")
}

/// The registry's pods, ordered by name.
///
/// # Errors
/// If the API server does not respond.
pub async fn nodes(cluster: &Cluster, namespace: &str) -> Result<Vec<Node>> {
    let pods = Api::<Pod>::namespaced(cluster.client().clone(), namespace);
    let ours = ListParams::default().labels("app.kubernetes.io/name=entrepot");
    let mut nodes: Vec<_> = pods.list(&ours).await?.into_iter().map(|pod| node(&pod)).collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(nodes)
}

fn node(pod: &Pod) -> Node {
    let status = pod.status.clone().unwrap_or_default();
    let is_ready =
        |condition: &k8s_openapi::api::core::v1::PodCondition| condition.type_ == "Ready" && condition.status == "True";
    Node {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        restarts: status.container_statuses.iter().flatten().map(|container| container.restart_count).sum(),
        ready: status.conditions.iter().flatten().any(is_ready),
        going: pod.metadata.deletion_timestamp.is_some(),
        revision: pod.labels().get("controller-revision-hash").cloned().unwrap_or_default(),
        address: status.pod_ip.unwrap_or_default(),
    }
}

impl Node {
    /// The node at its pod's address, past the Service.
    pub fn registry(&self) -> Registry {
        Registry::new(&format!("http://{}:5000", self.address))
    }

    /// The node's own status.
    ///
    /// # Errors
    /// If it does not respond.
    pub async fn status(&self) -> Result<NodeStatus> {
        let body = self.operations("/status").await?;
        serde_json::from_str(&body).with_context(|| format!("cannot parse the status {body}"))
    }

    /// The sum of a metric over all of its labels.
    ///
    /// # Errors
    /// If it does not respond.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.operations("/metrics").await?;
        let series = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        Ok(series.sum())
    }

    async fn operations(&self, path: &str) -> Result<String> {
        let listener = Registry::new(&format!("http://{}:5001", self.address));
        let reply = listener.get(path).await?.expect(200)?;
        Ok(String::from_utf8(reply.body.to_vec())?)
    }
}
