//! kubectl and Services: the cluster as its users use it.

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
    /// If it fails; the message contains all of its output.
    pub async fn kubectl<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = Command::new(Tool::Kubectl.path()?);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        // A cache folder of this cluster, because kubectl keys its cache by the server's address
        // and the next cluster has the same.
        command.arg("--cache-dir").arg(self.folder.join("kubectl"));
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        commands::run(&mut command).await
    }

    /// Applies a manifest in YAML or JSON with `kubectl apply`.
    ///
    /// # Errors
    /// If the API server rejects it; the message contains the reason.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        let file = tempfile::NamedTempFile::new_in(&self.folder)?;
        fs::write(file.path(), manifest)?;
        let path = file.path().to_str().context("path is not valid UTF-8")?;
        self.kubectl(["apply", "-f", path]).await
    }

    /// Host and port of a Service by its cluster IP, which the host can reach.
    ///
    /// # Errors
    /// If the Service does not exist or is headless.
    pub async fn service(&self, namespace: &str, name: &str) -> Result<String> {
        let service = Api::<Service>::namespaced(self.client().clone(), namespace).get(name).await?;
        let spec = service.spec.context("the Service has no spec")?;
        let address = spec.cluster_ip.filter(|address| address != "None").context("the Service is headless")?;
        let port = spec.ports.unwrap_or_default().first().context("the Service has no ports")?.port;
        Ok(format!("{address}:{port}"))
    }

    /// The registry behind a Service.
    ///
    /// # Errors
    /// If the Service does not exist or is headless.
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
        // No pod is admitted before this service account exists.
        let accounts = Api::<ServiceAccount>::default_namespaced(self.client().clone());
        wait::until("the default service account exists", START, || async { accounts.get("default").await.is_ok() })
            .await
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}
