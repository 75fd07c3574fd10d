//! The examples for Kubernetes in `examples/`, applied with the commands of their READMEs.
//!
//! A Kustomization over the example changes only what a test cluster does not have: the namespace
//! `registry`, Amazon S3, the image of MinIO, and CPUs for three large pods. `e2e/tests/nodes.rs`
//! starts the one without Kubernetes.

use super::fixture::{Fixture, TIMEOUT};
use crate::cluster::{Cluster, Kubectl};
use crate::push::Image;
use crate::s3::{ACCESS_KEY, BUCKET, REGION, SECRET_KEY};
use crate::{container, wait};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MINIO: Example = Example { folder: "minio", registry: Fixture::new("example-minio") };
const S3: Example = Example { folder: "s3", registry: Fixture::new("example-s3") };
const GITOPS: Example = Example { folder: "gitops", registry: Fixture::new("example-gitops") };
const HPA: Example = Example { folder: "hpa", registry: Fixture::new("example-hpa") };

/// MinIO and a registry over it.
pub async fn the_minio_example_works(cluster: &dyn Cluster) -> Result<()> {
    let image = cluster.load_image(&container::minio()?, "minio:example").await?;
    let (name, tag) = image.rsplit_once(':').context("the image name has no tag")?;
    let endpoint = format!("http://minio.{}.svc:9000", MINIO.registry.namespace);
    let kustomization = json!({
        "resources": ["minio/minio.yaml", "minio/registry.yaml"],
        "images": [{"name": "minio/minio", "newName": name, "newTag": tag}],
        "patches": [patch(&[replace("/spec/bucket/endpoint", json!(endpoint))])],
    });
    MINIO.apply(cluster, kustomization).await?;
    MINIO.kubectl(cluster, "rollout status deployment/minio --timeout=180s").await?;
    MINIO.works(cluster, 2).await?;
    MINIO.registry.remove(cluster).await
}

/// A registry over S3. The keys of the test replace the identity that a cloud gives to pods.
pub async fn the_s3_example_works(cluster: &dyn Cluster) -> Result<()> {
    let policy = fs::read(S3.path().join("policy.json"))?;
    serde_json::from_slice::<Value>(&policy).context("examples/s3/policy.json is not JSON")?;
    let mut changes = own_s3();
    changes.extend([
        replace("/spec/bucket/name", json!(BUCKET)),
        replace("/spec/bucket/region", json!(REGION)),
        replace("/spec/bucket/auth", json!({"secretRef": {"name": "s3-credentials"}})),
        replace("/spec/resources/requests/cpu", json!("20m")),
    ]);
    S3.apply(cluster, json!({"resources": ["s3/registry.yaml"], "patches": [patch(&changes)]})).await?;
    S3.create_secret(cluster).await?;
    S3.works(cluster, 3).await?;
    S3.registry.remove(cluster).await
}

/// The folder that Argo CD and Flux apply, by `kubectl apply -k`; and its immutable tags.
pub async fn the_gitops_example_works(cluster: &dyn Cluster) -> Result<()> {
    GITOPS.apply(cluster, json!({"resources": ["gitops"], "patches": [patch(&own_s3())]})).await?;
    // The README says that the Secret may come later, and what the status is until then.
    GITOPS.registry.becomes(cluster, "Ready", "False", "SecretMissing").await?;
    GITOPS.create_secret(cluster).await?;
    GITOPS.works(cluster, 3).await?;
    let registry = GITOPS.registry.registry(cluster).await?;
    let (first, second) = (Image::fresh(&[1000]), Image::fresh(&[1000]));
    registry.push_image("team/released", "v1.0", &first).await?;
    let moved = registry.push_image("team/released", "v1.0", &second).await;
    ensure!(moved.is_err(), "a tag that matches tags.immutable was moved");
    registry.pull_image("team/released", "v1.0", &first).await?;
    GITOPS.registry.remove(cluster).await
}

/// The RegistryCluster leaves the number of pods out, and the autoscaler changes it.
pub async fn the_hpa_example_works(cluster: &dyn Cluster) -> Result<()> {
    HPA.apply(cluster, json!({"resources": ["hpa/registry.yaml"], "patches": [patch(&own_s3())]})).await?;
    HPA.create_secret(cluster).await?;
    HPA.works(cluster, 3).await?;
    // The example lets the autoscaler wait for ten minutes before it removes a pod, but not before it adds one.
    HPA.kubectl(cluster, r#"patch hpa/images --type=merge -p {"spec":{"minReplicas":4}}"#).await?;
    wait::until("the autoscaler has requested its minimum of four pods", TIMEOUT, || async {
        HPA.registry.object(cluster).await.is_ok_and(|registry| registry.data["spec"]["replicas"] == json!(4))
    })
    .await?;
    HPA.works(cluster, 4).await?;
    // The target is a share of resources.requests.cpu; an autoscaler that cannot compute it is not active. Only our
    // own cluster surely has metrics.
    if cluster.own().is_some() {
        HPA.kubectl(cluster, "wait hpa/images --for=condition=ScalingActive --timeout=180s").await?;
    }
    HPA.registry.remove(cluster).await
}

/// The patch of the RegistryCluster with these changes (RFC 6902).
fn patch(changes: &[Value]) -> Value {
    json!({"target": {"kind": "RegistryCluster"}, "patch": json!(changes).to_string()})
}

/// The cluster's own S3 server instead of Amazon S3.
fn own_s3() -> Vec<Value> {
    vec![
        json!({"op": "add", "path": "/spec/bucket/endpoint", "value": "http://s3.storage:7070"}),
        json!({"op": "add", "path": "/spec/bucket/insecure", "value": true}),
        json!({"op": "add", "path": "/spec/bucket/pathStyle", "value": true}),
    ]
}

/// The change of a field that the example has: without the field, kubectl fails.
fn replace(path: &str, value: Value) -> Value {
    json!({"op": "replace", "path": path, "value": value})
}

/// An example with a RegistryCluster.
#[derive(Clone, Copy)]
struct Example {
    folder: &'static str,
    /// Its RegistryCluster, in a namespace of its own instead of `registry`.
    registry: Fixture,
}

impl Example {
    fn path(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(self.folder)
    }

    /// Applies a Kustomization over a copy of the example.
    async fn apply(self, cluster: &dyn Cluster, mut kustomization: Value) -> Result<()> {
        let work = TempDir::new()?;
        let copy = work.path().join(self.folder);
        fs::create_dir(&copy)?;
        for file in fs::read_dir(self.path())? {
            let file = file?;
            fs::copy(file.path(), copy.join(file.file_name()))?;
        }
        kustomization["namespace"] = json!(self.registry.namespace);
        fs::write(work.path().join("kustomization.yaml"), kustomization.to_string())?;
        let path = work.path().to_str().context("path is not valid UTF-8")?;
        cluster.kubectl(["apply", "-k", path]).await.map(drop)
    }

    /// Runs kubectl in the namespace of the example.
    async fn kubectl(self, cluster: &dyn Cluster, command: &str) -> Result<String> {
        cluster.kubectl(["-n", self.registry.namespace].into_iter().chain(command.split(' '))).await
    }

    /// Creates the Secret that the READMEs create and label by hand.
    async fn create_secret(self, cluster: &dyn Cluster) -> Result<()> {
        let keys = format!("--from-literal=accessKeyId={ACCESS_KEY} --from-literal=secretAccessKey={SECRET_KEY}");
        self.kubectl(cluster, &format!("create secret generic s3-credentials {keys}")).await?;
        self.kubectl(cluster, "label secret s3-credentials entrepot.dev/use=bucket").await.map(drop)
    }

    /// Waits as the READMEs do, and until there are `pods` of them; then pushes an image, and pulls it from each pod.
    async fn works(self, cluster: &dyn Cluster, pods: usize) -> Result<()> {
        self.kubectl(cluster, "wait rgc/images --for=condition=Ready --timeout=5m").await?;
        self.registry.until_settled(cluster).await?;
        let image = Image::fresh(&[300_000, 2_000_000]);
        // The examples share a bucket and run at the same time.
        let repository = format!("team/{}", self.folder);
        self.registry.registry(cluster).await?.push_image(&repository, "1", &image).await?;
        let nodes = self.registry.node_registries(cluster).await?;
        ensure!(nodes.len() == pods, "the registry has {} pods instead of {pods}", nodes.len());
        for node in nodes {
            node.pull_image(&repository, "1", &image).await?;
        }
        Ok(())
    }
}
