//! A registry in the cluster: the operator from its chart, a RegistryCluster of a few lines, and as
//! clients both external programs and the kubelets.

use super::fixture::Fixture;
use super::operator;
use crate::cluster::{Cluster, Kubectl, OwnCluster};
use crate::podman::Podman;
use crate::tools::Tool;
use crate::{commands, container, wait};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// The registry's host name in images that the kubelets pull.
const NAME: &str = "registry.test";
/// The registry.
pub const REGISTRY: Fixture = Fixture::new("registry");

/// `kubectl apply` of a RegistryCluster gives three ready pods; an upload session continues at any of
/// them.
pub async fn a_registry_is_deployed(cluster: &dyn Cluster) -> Result<()> {
    deploy(cluster).await?;
    let registry = cluster.registry(REGISTRY.namespace, REGISTRY.name).await?;
    let content = crate::Content::fresh(3_000_000);
    for _ in 0..8 {
        registry.push_chunked("sessions", &content, 1_000_000).await?;
    }
    let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let restarts = cluster.kubectl(["-n", REGISTRY.namespace, "get", "pods", "-o", restarts]).await?;
    ensure!(restarts == "0 0 0", "pods were restarted: {restarts}");
    Ok(())
}

/// An image that is pushed through the Service of the registry runs on every Kubernetes node.
pub async fn kubelets_pull_from_the_registry(cluster: &OwnCluster) -> Result<()> {
    show(cluster).await?;
    cluster.kubectl(["delete", "namespace", "demo", "--wait=false"]).await.map(drop)
}

/// Removes what [`deploy`] installs, and the registry.
///
/// # Errors
/// If something cannot be removed.
pub async fn remove(cluster: &dyn Cluster) -> Result<()> {
    // The RegistryClusters go first, while the operator still runs.
    cluster.kubectl(["delete", "rgc", "--all", "--all-namespaces"]).await?;
    commands::run(helm_command(cluster)?.args(["uninstall", "entrepot", "--wait"])).await?;
    cluster.kubectl(["delete", "namespace", operator::NAMESPACE, REGISTRY.namespace]).await?;
    cluster.kubectl(["delete", "crd", "registryclusters.entrepot.dev"]).await.map(drop)
}

/// Installs the operator and a registry of three pods, and prints how long it took.
///
/// # Errors
/// If they do not become ready.
pub async fn deploy(cluster: &dyn Cluster) -> Result<()> {
    install_operator(cluster).await?;
    cluster.apply(&REGISTRY.secret()).await?;
    let start = Instant::now();
    cluster.apply(&manifest().to_string()).await?;
    REGISTRY.until_settled(cluster).await?;
    println!("three registry pods ready {:.1?} after apply", start.elapsed());
    Ok(())
}

/// The RegistryCluster.
pub fn manifest() -> Value {
    REGISTRY.manifest(&json!({"replicas": 3, "namespaces": [NAME]}))
}

/// Installs the chart with locally built images.
async fn install_operator(cluster: &dyn Cluster) -> Result<()> {
    let (node, operator) = (container::node()?, container::operator()?);
    let (node_name, operator_name) = (
        cluster.load_image(&node, "entrepot-node:dev").await?,
        cluster.load_image(&operator, "entrepot-operator:dev").await?,
    );
    for (name, image) in [(&node_name, &node), (&operator_name, &operator)] {
        println!("image        {name} ({}, {:.1} MiB)", image.digest, image.size as f64 / 1_048_576.0);
    }
    let start = Instant::now();
    let mut values = vec!["--create-namespace".to_owned()];
    for (field, name) in [("image", operator_name), ("nodeImage", node_name)] {
        let (repository, tag) = name.rsplit_once(':').context("the image name has no tag")?;
        values.extend(["--set".to_owned(), format!("{field}.repository={repository},{field}.tag={tag}")]);
    }
    // Scenarios that change a Service do it by this annotation.
    values.extend(["--set".to_owned(), "allowed.serviceAnnotations={changed}".to_owned()]);
    helm(cluster, "install", &values).await?;
    println!("helm installed the operator in {:.1?}", start.elapsed());
    Ok(())
}

/// Runs `helm install` or `helm upgrade` for the release `entrepot`, until the operator is ready.
///
/// # Errors
/// If it fails; the message contains all of its output.
pub async fn helm(cluster: &dyn Cluster, verb: &str, values: &[impl AsRef<OsStr>]) -> Result<()> {
    let mut helm = helm_command(cluster)?;
    helm.args([verb, "entrepot"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/entrepot"));
    helm.args(["--wait", "--timeout", "120s"]).args(values);
    commands::run(&mut helm).await.map(drop)
}

/// Helm in the operator's namespace.
fn helm_command(cluster: &dyn Cluster) -> Result<Command> {
    let mut helm = Command::new(Tool::Helm.path()?);
    helm.args(["--namespace", operator::NAMESPACE]).arg("--kubeconfig").arg(cluster.kubeconfig());
    // Helm's user files go to the cluster's folder.
    helm.env("HOME", cluster.folder().join("helm"));
    helm.env_remove("XDG_CACHE_HOME").env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
    Ok(helm)
}

/// Pushes an image through the Service of the registry and runs a pod with it, and prints how long
/// it took.
///
/// # Errors
/// If a step fails.
pub async fn show(cluster: &OwnCluster) -> Result<()> {
    let service = cluster.service(REGISTRY.namespace, REGISTRY.name).await?;
    cluster.trust(NAME, &service)?;
    let start = Instant::now();
    let pushed = format!("{service}/demo/busybox:1");
    let podman = Podman::new()?;
    let (id, _) = podman.push(container::busybox()?.path(), container::TAG, &pushed).await?;
    println!("podman pushed {pushed} in {:.1?}", start.elapsed());
    let start = Instant::now();
    for (pod, node) in ["first", "second"].into_iter().zip(cluster.nodes()) {
        cluster.apply(&pod_of(pod, node, &format!("{NAME}/demo/busybox:1"))).await?;
    }
    let ready = ["-n", "demo", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s"];
    cluster.kubectl(ready).await?;
    println!(
        "the kubelets of both Kubernetes nodes pulled the image and started its pods after {:.1?}",
        start.elapsed()
    );
    let start = Instant::now();
    let pulled = podman.pull(&pushed).await?;
    ensure!(pulled == id, "podman pulled {pulled} instead of {id}");
    println!("podman pulled the image in {:.1?}", start.elapsed());
    wait::until("the bucket has the image", Duration::from_secs(10), || async {
        let prefix =
            format!("{}docker/registry/v2/repositories/demo/busybox/_manifests/tags/1/current/link", REGISTRY.prefix());
        cluster.s3().keys(&prefix).await.is_ok_and(|keys| !keys.is_empty())
    })
    .await
    .context("the image is not in the bucket")
}

/// A pod that must run on a certain Kubernetes node.
fn pod_of(name: &str, node: &str, image: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: demo}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: demo}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 0
  containers: [{{name: demo, image: "{image}", imagePullPolicy: Always}}]
"#
    )
}
