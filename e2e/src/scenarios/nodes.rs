//! The nodes of a registry, each in its pod.

use crate::client::Registry;
use anyhow::{Context, Result};
use entrepot_config::NodeStatus;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::ResourceExt;

/// The pod of a registry node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub restarts: i32,
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// The revision of the StatefulSet from which it was created.
    pub revision: String,
    pub address: String,
}

impl Node {
    /// The node in a pod.
    pub fn of(pod: &Pod) -> Node {
        let status = pod.status.clone().unwrap_or_default();
        let is_ready = |condition: &PodCondition| condition.type_ == "Ready" && condition.status == "True";
        Node {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            restarts: status.container_statuses.iter().flatten().map(|container| container.restart_count).sum(),
            ready: status.conditions.iter().flatten().any(is_ready),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            revision: pod.labels().get("controller-revision-hash").cloned().unwrap_or_default(),
            address: status.pod_ip.unwrap_or_default(),
        }
    }

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
