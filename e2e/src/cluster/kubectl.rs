//! What scenarios do with the cluster as its users do: by kubectl.

use super::{Cluster, START, node};
use crate::tools::Tool;
use crate::{Registry, commands, wait};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Service, ServiceAccount};
use kube::api::{Api, ListParams};
use std::fs;
use tokio::process::Command;

impl Cluster {
    /// Runs kubectl as an administrator and returns its output.
    ///
    /// # Errors
    /// When it fails; the message has all that it wrote.
    pub async fn kubectl<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = Command::new(Tool::Kubectl.path()?);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        // Its caches belong to the cluster, for they go by its address, and the next one has the same.
        command.arg("--cache-dir").arg(self.folder.join("kubectl"));
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        commands::run(&mut command).await
    }

    /// `kubectl apply` of a manifest in YAML or JSON.
    ///
    /// # Errors
    /// When the API server refuses it; the message has its words.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new_in(&self.folder)?;
        fs::write(file.path(), manifest)?;
        let path = file.path().to_str().context("a path that is text")?;
        self.kubectl(["apply", "-f", path]).await
    }

    /// Where a Service answers (host and port): the host reaches Services by their own addresses.
    ///
    /// # Errors
    /// When there is no such Service, or it has no address of its own.
    pub async fn service(&self, namespace: &str, name: &str) -> Result<String> {
        let service = Api::<Service>::namespaced(self.client().clone(), namespace).get(name).await?;
        let spec = service.spec.context("a Service without spec")?;
        let address = spec.cluster_ip.filter(|address| address != "None").context("a headless Service")?;
        let port = spec.ports.unwrap_or_default().first().context("a Service without ports")?.port;
        Ok(format!("{address}:{port}"))
    }

    /// A registry behind a Service.
    ///
    /// # Errors
    /// When there is no such Service.
    pub async fn registry(&self, namespace: &str, name: &str) -> Result<Registry> {
        Ok(Registry::new(&format!("http://{}", self.service(namespace, name).await?)))
    }

    pub(super) async fn until_nodes_are_ready(&self) -> Result<()> {
        let nodes = Api::<Node>::all(self.client().clone());
        let wanted: Vec<_> = (1..).map(node::name).take(self.nodes.len()).collect();
        wait::until(&format!("{} are ready", wanted.join(", ")), START, || async {
            let Ok(list) = nodes.list(&ListParams::default()).await else { return false };
            let ready = list.iter().filter(|node| is_ready(node)).filter_map(|node| node.metadata.name.as_ref());
            let ready: Vec<_> = ready.collect();
            wanted.iter().all(|name| ready.contains(&name))
        })
        .await?;
        // Without it no pod is admitted.
        let accounts = Api::<ServiceAccount>::default_namespaced(self.client().clone());
        wait::until("the default service account exists", START, || async { accounts.get("default").await.is_ok() })
            .await
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}
