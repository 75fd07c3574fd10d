//! kubectl and Services: a cluster as its users use it.

use super::Cluster;
use crate::tools::Tool;
use crate::{Registry, commands};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use std::fs;
use tokio::process::Command;

/// What users do with any cluster.
pub trait Kubectl: Cluster {
    /// Runs kubectl as an administrator and returns its output.
    ///
    /// # Errors
    /// If it fails; the message contains all of its output.
    fn kubectl<A: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> impl Future<Output = Result<String>> + Send {
        let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        async move {
            let mut command = Command::new(Tool::Kubectl.path()?);
            command.arg("--kubeconfig").arg(self.kubeconfig());
            // A cache folder of this cluster, because kubectl keys its cache by the server's address
            // and the next cluster has the same.
            command.arg("--cache-dir").arg(self.folder().join("kubectl")).args(arguments);
            commands::run(&mut command).await
        }
    }

    /// Applies a manifest in YAML or JSON with `kubectl apply`.
    ///
    /// # Errors
    /// If the API server rejects it; the message contains the reason.
    fn apply(&self, manifest: &str) -> impl Future<Output = Result<String>> + Send {
        async move {
            let file = tempfile::NamedTempFile::new_in(self.folder())?;
            fs::write(file.path(), manifest)?;
            let path = file.path().to_str().context("path is not valid UTF-8")?;
            self.kubectl(["apply", "-f", path]).await
        }
    }

    /// Host and port of a Service by its cluster IP, which the host can reach.
    ///
    /// # Errors
    /// If the Service does not exist or is headless.
    fn service(&self, namespace: &str, name: &str) -> impl Future<Output = Result<String>> + Send {
        async move {
            let service = Api::<Service>::namespaced(self.client().clone(), namespace).get(name).await?;
            let spec = service.spec.context("the Service has no spec")?;
            let address = spec.cluster_ip.filter(|address| address != "None").context("the Service is headless")?;
            let port = spec.ports.unwrap_or_default().first().context("the Service has no ports")?.port;
            Ok(format!("{address}:{port}"))
        }
    }

    /// The registry behind a Service.
    ///
    /// # Errors
    /// If the Service does not exist or is headless.
    fn registry(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Registry>> + Send {
        async move { Ok(Registry::new(&format!("http://{}", self.service(namespace, name).await?))) }
    }
}

impl<C: Cluster + ?Sized> Kubectl for C {}
