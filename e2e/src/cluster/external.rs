//! An existing cluster that a kubeconfig names, such as kind or k3s.
//!
//! The scenarios install the operator and a registry in it and remove both at the end. The host
//! must reach pods and Services by their addresses, as on a machine that is a node of the cluster or
//! has routes to its networks.

use super::{Cluster, Kubectl, OwnCluster, control, push_image, services};
use crate::container::Image;
use crate::s3::S3;
use anyhow::{Context, Result, bail};
use futures::future::{BoxFuture, FutureExt};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The path of the kubeconfig. Without it, scenarios run on a cluster of our own.
const KUBECONFIG: &str = "ENTREPOT_E2E_KUBECONFIG";
/// Host and port of a registry without TLS, to which the host pushes images and from which the
/// cluster pulls them, such as `localhost:5001`.
const IMAGES: &str = "ENTREPOT_E2E_IMAGES";
/// Address and port of an S3 server without TLS with the keys of [`crate::s3`], reachable from the
/// host and from pods, such as `172.18.0.1:7070`.
const S3_ADDRESS: &str = "ENTREPOT_E2E_S3";

/// Namespaces of a new cluster, in addition to those that start with `kube-`.
const SYSTEM_NAMESPACES: [&str; 2] = ["default", "local-path-storage"];

/// The variables that name a cluster of our own as an existing one.
pub fn variables(cluster: &OwnCluster) -> [String; 3] {
    let s3 = cluster.s3().endpoint.trim_start_matches("http://");
    [
        format!("{KUBECONFIG}={}", cluster.kubeconfig().display()),
        format!("{IMAGES}={}", cluster.images()),
        format!("{S3_ADDRESS}={s3}"),
    ]
}

/// An existing cluster.
pub struct ExternalCluster {
    folder: TempDir,
    client: kube::Client,
    kubeconfig: PathBuf,
    images: String,
    s3: S3,
}

impl ExternalCluster {
    /// The cluster that the environment names, if it names one. Creates the namespace `storage`
    /// with the Service `s3`, and the bucket.
    ///
    /// # Errors
    /// If a variable is missing, or the cluster or the S3 server does not respond.
    pub async fn from_environment() -> Result<Option<ExternalCluster>> {
        let Some(kubeconfig) = std::env::var_os(KUBECONFIG) else { return Ok(None) };
        let kubeconfig = std::path::absolute(PathBuf::from(kubeconfig))?;
        let variable = |name: &str| std::env::var(name).with_context(|| format!("{KUBECONFIG} also requires {name}"));
        let (images, address) = (variable(IMAGES)?, variable(S3_ADDRESS)?);
        let address: SocketAddrV4 = address.parse().with_context(|| format!("{S3_ADDRESS} is not ADDRESS:PORT"))?;
        let client = control::client(&kubeconfig).await?;
        let s3 = S3::new(&format!("http://{address}"));
        let cluster = ExternalCluster { folder: TempDir::new()?, client, kubeconfig, images, s3 };
        cluster.ensure_unused().await?;
        if !cluster.s3.has_bucket().await? {
            cluster.s3.make_bucket().await?;
        }
        cluster.apply(&services::s3(*address.ip(), address.port()).to_string()).await?;
        Ok(Some(cluster))
    }

    /// Checks that only Kubernetes uses the cluster, because scenarios create and delete namespaces
    /// and the CRD.
    async fn ensure_unused(&self) -> Result<()> {
        let names = self.kubectl(["get", "namespaces,crds", "-o", "name"]).await?;
        match names.lines().find(|name| is_of_others(name)) {
            Some(name) => {
                bail!("scenarios need a cluster that nothing else uses, and this one has {name}; use a new one")
            }
            None => Ok(()),
        }
    }
}

/// Whether an object is one that a new cluster does not have.
fn is_of_others(name: &str) -> bool {
    match name.split_once('/') {
        Some(("namespace", name)) => !name.starts_with("kube-") && !SYSTEM_NAMESPACES.contains(&name),
        Some((_, name)) => name == "registryclusters.entrepot.dev",
        None => false,
    }
}

impl Cluster for ExternalCluster {
    fn client(&self) -> &kube::Client {
        &self.client
    }

    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn s3(&self) -> &S3 {
        &self.s3
    }

    fn load_image<'a>(&'a self, image: &'a Image, name: &'a str) -> BoxFuture<'a, Result<String>> {
        push_image(image, format!("{}/{name}", self.images)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_unused_if_it_has_only_what_a_new_one_has() {
        for name in ["namespace/default", "namespace/kube-system", "customresourcedefinition.apiextensions.k8s.io/a.b"]
        {
            assert!(!is_of_others(name), "{name}");
        }
        for name in
            ["namespace/registry", "customresourcedefinition.apiextensions.k8s.io/registryclusters.entrepot.dev"]
        {
            assert!(is_of_others(name), "{name}");
        }
    }
}
