//! The operator without Helm.

use super::given::{Named, SOON, gone};
use super::operator;
use super::registry::secret;
use crate::cluster::Cluster;
use crate::{container, wait};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const REGISTRY: Named = Named { namespace: "kustomized", name: "images" };

/// `kubectl apply -k deploy` installs an operator that works, and `kubectl delete -k deploy` leaves nothing of it.
pub async fn kubectl_installs_the_operator_too(cluster: &Cluster) -> Result<()> {
    let image = cluster.load(&container::operator()?, "entrepot-operator:kustomized").await?;
    let (name, tag) = image.rsplit_once(':').context("a name without a tag")?;
    let folder = copied()?;
    let deploy = folder.path().join("deploy");
    let file = deploy.join("kustomization.yaml");
    // As a user names the images that are published: those that are built here are in the cluster's own registry.
    let images = format!("images: [{{name: entrepot-operator, newName: \"{name}\", newTag: \"{tag}\"}}]\n");
    fs::write(&file, fs::read_to_string(&file)? + &images)?;
    let deploy = deploy.to_str().context("a path that is text")?;

    cluster.kubectl(["apply", "-k", deploy]).await?;
    operator::until_rolled_out(cluster).await?;
    cluster.apply(&secret(REGISTRY.namespace)).await?;
    cluster.apply(&REGISTRY.manifest(0).to_string()).await?;
    REGISTRY.becomes(cluster, "Ready", "False", "ScaledToZero").await?;

    // Stopped before its permissions go: what it asked in between would be denied.
    operator::scale(cluster, 0).await?;
    let selector = format!("--selector=app.kubernetes.io/name={}", operator::NAME);
    let pods = ["-n", operator::NAMESPACE, "wait", "--for=delete", "pod", &selector, "--timeout=60s"];
    cluster.kubectl(pods).await?;
    cluster.kubectl(["delete", "-k", deploy, "--timeout=120s"]).await?;
    wait::until("nothing is left of the operator", SOON, || async {
        let names = ["get", "namespace,crd,clusterrole,clusterrolebinding", "-o", "name"];
        cluster.kubectl(names).await.is_ok_and(|names| !names.contains("entrepot"))
    })
    .await?;
    gone(cluster, &[REGISTRY.namespace]).await
}

/// What `deploy` is made of, to be changed.
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
