//! A registry in the cluster: the operator from its chart, a RegistryCluster of a few lines, and as
//! clients both external programs and the kubelets.

use crate::cluster::Cluster;
use crate::podman::Podman;
use crate::s3::{ACCESS_KEY, BUCKET, REGION, SECRET_KEY};
use crate::tools::Tool;
use crate::{commands, container, wait};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// The registry's host name in images that the kubelets pull.
const NAME: &str = "registry.test";
/// The namespace of the registry.
pub const NAMESPACE: &str = "registry";

/// `kubectl apply` of a RegistryCluster gives three ready pods; an image that is pushed through its
/// Service runs on every Kubernetes node; an upload session continues at any registry node.
pub async fn from_nothing(cluster: &Cluster) -> Result<()> {
    deploy(cluster).await?;
    show(cluster).await?;
    let registry = cluster.registry(NAMESPACE, "images").await?;
    let content = crate::Content::fresh(3_000_000);
    for _ in 0..8 {
        registry.push_chunked("sessions", &content, 1_000_000).await?;
    }
    let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let restarts = cluster.kubectl(["-n", NAMESPACE, "get", "pods", "-o", restarts]).await?;
    ensure!(restarts == "0 0 0", "pods were restarted: {restarts}");
    cluster.kubectl(["delete", "namespace", "shown", "--wait=false"]).await.map(drop)
}

/// Installs the operator and a registry of three pods, and prints how long it took.
///
/// # Errors
/// If they do not become ready.
pub async fn deploy(cluster: &Cluster) -> Result<()> {
    install_operator(cluster).await?;
    cluster.apply(&secret(NAMESPACE)).await?;
    let start = Instant::now();
    cluster.apply(&images(NAMESPACE, "")).await?;
    let ready = ["-n", NAMESPACE, "wait", "--for=condition=Ready", "rgc/images", "--timeout=180s"];
    cluster.kubectl(ready).await?;
    let nodes = ["-n", NAMESPACE, "get", "rgc/images", "-o", "jsonpath={.status.readyReplicas}"];
    let nodes = cluster.kubectl(nodes).await?;
    ensure!(nodes == "3", "{nodes} registry pods are ready instead of 3");
    println!("three registry pods ready {:.1?} after apply", start.elapsed());
    Ok(())
}

/// Installs the chart with locally built images.
async fn install_operator(cluster: &Cluster) -> Result<()> {
    let (node, operator) = (container::node()?, container::operator()?);
    let (node_name, operator_name) =
        (cluster.load(&node, "entrepot-node:dev").await?, cluster.load(&operator, "entrepot-operator:dev").await?);
    for (name, image) in [(&node_name, &node), (&operator_name, &operator)] {
        println!("image        {name} ({}, {:.1} MiB)", image.digest, image.size as f64 / 1_048_576.0);
    }
    let start = Instant::now();
    let mut values = vec!["--create-namespace".to_owned()];
    for (field, name) in [("image", operator_name), ("nodeImage", node_name)] {
        let (repository, tag) = name.rsplit_once(':').context("the image name has no tag")?;
        values.extend(["--set".to_owned(), format!("{field}.repository={repository},{field}.tag={tag}")]);
    }
    helm(cluster, "install", &values).await?;
    println!("helm installed the operator in {:.1?}", start.elapsed());
    Ok(())
}

/// Runs `helm install` or `helm upgrade` for the release `entrepot`, until the operator is ready.
///
/// # Errors
/// If it fails; the message contains all of its output.
pub async fn helm(cluster: &Cluster, verb: &str, values: &[impl AsRef<OsStr>]) -> Result<()> {
    let mut helm = Command::new(Tool::Helm.path()?);
    helm.args([verb, "entrepot"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/entrepot"));
    helm.args(["--namespace", "entrepot-system", "--wait", "--timeout", "120s"]).args(values);
    // Helm's user files go to the cluster's folder.
    let home = cluster.kubeconfig().with_file_name("helm");
    helm.arg("--kubeconfig").arg(cluster.kubeconfig()).env("HOME", &home);
    helm.env_remove("XDG_CACHE_HOME").env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
    commands::run(&mut helm).await.map(drop)
}

/// A namespace with the Secret of the bucket's keys.
pub fn secret(namespace: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: s3-credentials, namespace: {namespace}}}
stringData: {{accessKeyId: "{ACCESS_KEY}", secretAccessKey: "{SECRET_KEY}"}}
"#
    )
}

/// A RegistryCluster with additional lines in `spec`.
pub fn images(namespace: &str, spec: &str) -> String {
    format!(
        r#"
apiVersion: entrepot.dev/v1alpha1
kind: RegistryCluster
metadata: {{name: images, namespace: {namespace}}}
spec:
  replicas: 3
  bucket:
    name: {BUCKET}
    region: {REGION}
    endpoint: http://s3.storage:7070
    pathStyle: true
    auth: {{secretRef: {{name: s3-credentials}}}}
  store: {{size: 1Gi}}
  namespaces: [{NAME}]
{spec}
"#
    )
}

/// Pushes an image through the Service of the registry and runs a pod with it, and prints how long
/// it took.
///
/// # Errors
/// If a step fails.
pub async fn show(cluster: &Cluster) -> Result<()> {
    let service = cluster.service(NAMESPACE, "images").await?;
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
    let ready = ["-n", "shown", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s"];
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
        let prefix = "docker/registry/v2/repositories/demo/busybox/_manifests/tags/1/current/link";
        cluster.s3().keys(prefix).await.is_ok_and(|keys| !keys.is_empty())
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
metadata: {{name: shown}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shown}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 0
  containers: [{{name: shown, image: "{image}", imagePullPolicy: Always}}]
"#
    )
}
