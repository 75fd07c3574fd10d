//! The operator installed without Helm.

use super::fixture::{Fixture, TIMEOUT};
use super::operator;
use crate::cluster::{Cluster, Kubectl};
use crate::{container, wait};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const REGISTRY: Fixture = Fixture::new("kustomize");

/// `kubectl apply -k deploy` installs a working operator, and `kubectl delete -k deploy` removes
/// everything.
pub async fn kubectl_installs_the_operator(cluster: &dyn Cluster) -> Result<()> {
    let image = cluster.load_image(&container::operator()?, "entrepot-operator:kustomized").await?;
    let (name, tag) = image.rsplit_once(':').context("the image name has no tag")?;
    let folder = copied()?;
    let deploy = folder.path().join("deploy");
    let file = deploy.join("kustomization.yaml");
    // Replaces the published image with the one in the cluster's own registry, as a user may.
    let images = format!("images: [{{name: entrepot-operator, newName: \"{name}\", newTag: \"{tag}\"}}]\n");
    fs::write(&file, fs::read_to_string(&file)? + &images)?;
    let deploy = deploy.to_str().context("path is not valid UTF-8")?;

    cluster.kubectl(["apply", "-k", deploy]).await?;
    operator::until_rolled_out(cluster).await?;
    cluster.apply(&REGISTRY.secret()).await?;
    cluster.apply(&REGISTRY.manifest(&json!({"replicas": 0})).to_string()).await?;
    REGISTRY.becomes(cluster, "Ready", "False", "ScaledToZero").await?;

    // Stopped before its permissions are deleted, because its requests in between would be denied.
    operator::scale(cluster, 0).await?;
    let selector = format!("--selector=app.kubernetes.io/name={}", operator::NAME);
    let pods = ["-n", operator::NAMESPACE, "wait", "--for=delete", "pod", &selector, "--timeout=60s"];
    cluster.kubectl(pods).await?;
    cluster.kubectl(["delete", "-k", deploy, "--timeout=120s"]).await?;
    wait::until("all objects of the operator are deleted", TIMEOUT, || async {
        let names = ["get", "namespace,crd,clusterrole,clusterrolebinding", "-o", "name"];
        cluster.kubectl(names).await.is_ok_and(|names| !names.contains("entrepot"))
    })
    .await?;
    REGISTRY.remove(cluster).await
}

/// A copy of `deploy` that can be changed.
fn copied() -> Result<TempDir> {
    let folder = TempDir::new()?;
    for part in ["deploy", "crds"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(part);
        let to = folder.path().join(part);
        fs::create_dir(&to)?;
        for file in fs::read_dir(from)? {
            let file = file?;
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(folder)
}
