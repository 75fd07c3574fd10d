//! A registry of a scenario's own: small, in its own namespace, below its own prefix of the bucket; and its nodes.

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

/// Within this a small registry is as it was asked to be: its nodes go one after the other, and each takes ten seconds.
pub const SOON: Duration = Duration::from_secs(180);

/// A node's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub restarts: i32,
    pub ready: bool,
    /// Somebody is deleting it.
    pub going: bool,
    /// Of the StatefulSet that it was made of.
    pub revision: String,
    pub address: String,
}

/// The RegistryCluster `images` of a namespace. `spec` has fields beside the bucket's, and instead of those here.
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
        "cache": {"size": "1Gi"},
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

/// Makes it, and returns it when all of its nodes serve.
///
/// # Errors
/// When they do not.
pub async fn make(cluster: &Cluster, namespace: &str, spec: &Value) -> Result<Registry> {
    cluster.apply(&secret(namespace)).await?;
    cluster.apply(&registry_cluster(namespace, spec).to_string()).await?;
    until_settled(cluster, namespace).await?;
    cluster.registry(namespace, "images").await
}

/// Deletes the namespace, and does not wait for the end of it.
///
/// # Errors
/// When there is no such namespace.
pub async fn remove(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster.kubectl(["delete", "namespace", namespace, "--wait=false"]).await.map(drop)
}

fn registries(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("entrepot.dev", "v1alpha1", "RegistryCluster"));
    Api::namespaced_with(cluster.client().clone(), namespace, &resource)
}

/// The registry as it is.
///
/// # Errors
/// When it is not there.
pub async fn look(cluster: &Cluster, namespace: &str) -> Result<DynamicObject> {
    Ok(registries(cluster, namespace).get("images").await?)
}

/// Changes fields of its spec; null removes one.
///
/// # Errors
/// When the API server refuses it.
pub async fn change(cluster: &Cluster, namespace: &str, spec: &Value) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    registries(cluster, namespace).patch("images", &PatchParams::default(), &patch).await.map(drop)?;
    Ok(())
}

/// What the operator tells of the registry by a condition of this type.
///
/// # Errors
/// When the registry is not there.
pub async fn condition(cluster: &Cluster, namespace: &str, kind: &str) -> Result<Option<Condition>> {
    let registry = look(cluster, namespace).await?;
    let conditions: Vec<Condition> = serde_json::from_value(registry.data["status"]["conditions"].clone())?;
    Ok(conditions.into_iter().find(|condition| condition.type_ == kind))
}

/// Waits for a condition of that reason, and returns its message.
///
/// # Errors
/// When it does not come to that.
pub async fn until_reason(cluster: &Cluster, namespace: &str, kind: &str, reason: &str) -> Result<String> {
    wait::value(&format!("{kind} of {namespace} says {reason}"), SOON, || async {
        let found = condition(cluster, namespace, kind).await.ok()??;
        (found.reason == reason).then_some(found.message)
    })
    .await
}

/// Waits until the registry is as its spec says: each node of the newest revision, ready, and none beside them; and the
/// operator has told so.
///
/// # Errors
/// When it does not come to that.
pub async fn until_settled(cluster: &Cluster, namespace: &str) -> Result<()> {
    let what = format!("the registry of {namespace} is as it was asked to be");
    wait::until(&what, SOON, || async { is_settled(cluster, namespace).await.is_some() }).await
}

async fn is_settled(cluster: &Cluster, namespace: &str) -> Option<()> {
    let registry = look(cluster, namespace).await.ok()?;
    let (spec, status) = (&registry.data["spec"], &registry.data["status"]);
    // What the operator has seen it has applied; and what is applied the StatefulSet's controller must have seen.
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

/// The nodes' StatefulSet.
///
/// # Errors
/// When it is not there.
pub async fn set(cluster: &Cluster, namespace: &str) -> Result<StatefulSet> {
    Ok(Api::namespaced(cluster.client().clone(), namespace).get("images").await?)
}

/// The image of the nodes, as the StatefulSet has it.
///
/// # Errors
/// When there is none.
pub async fn image(cluster: &Cluster, namespace: &str) -> Result<String> {
    let pod = set(cluster, namespace).await?.spec.and_then(|spec| spec.template.spec).context("no pods")?;
    pod.containers.into_iter().find_map(|container| container.image).context("no image")
}

/// The nodes that there are, by their names.
///
/// # Errors
/// When the API server does not say.
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
    /// The node as clients reach it, past the Service.
    pub fn registry(&self) -> Registry {
        Registry::new(&format!("http://{}:5000", self.address))
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<NodeStatus> {
        let body = self.operations("/status").await?;
        serde_json::from_str(&body).with_context(|| format!("not a status: {body}"))
    }

    /// The sum of a metric over all of its labels.
    ///
    /// # Errors
    /// When it does not answer.
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
