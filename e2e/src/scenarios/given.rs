//! The fixture of a scenario: a registry in its own namespace, with its own prefix in the bucket.

use super::registry::secret;
use crate::cluster::Cluster;
use crate::push::Image;
use crate::s3::{BUCKET, REGION};
use crate::{Registry, wait};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Time limit for anything that a healthy cluster is asked to do here.
pub const SOON: Duration = Duration::from_secs(120);

/// A registry by namespace and name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    pub namespace: &'static str,
    pub name: &'static str,
}

impl Named {
    /// A RegistryCluster of small pods with its own prefix in the bucket.
    pub fn manifest(self, replicas: u8) -> Value {
        json!({
            "apiVersion": "entrepot.dev/v1alpha1",
            "kind": "RegistryCluster",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "replicas": replicas,
                "bucket": {
                    "name": BUCKET,
                    "prefix": self.prefix(),
                    "region": REGION,
                    "endpoint": "http://s3.storage:7070",
                    "pathStyle": true,
                    "auth": {"secretRef": {"name": "s3-credentials"}},
                },
                "store": {"size": "1Gi"},
                "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
            },
        })
    }

    /// The prefix of its keys in the bucket.
    pub fn prefix(self) -> String {
        format!("{}/{}/", self.namespace, self.name)
    }

    /// Applies the RegistryCluster with its namespace and Secret, and waits until every pod is
    /// ready.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn is_ready(self, cluster: &Cluster, manifest: &Value) -> Result<Registry> {
        cluster.apply(&secret(self.namespace)).await?;
        cluster.apply(&manifest.to_string()).await?;
        self.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
        self.registry(cluster).await
    }

    /// The registry at its Service, after that responds: the Kubernetes nodes learn about an
    /// endpoint shortly after its pod is ready.
    ///
    /// # Errors
    /// If the Service does not exist or does not respond.
    pub async fn registry(self, cluster: &Cluster) -> Result<Registry> {
        let registry = cluster.registry(self.namespace, self.name).await?;
        wait::until(&format!("the Service of {self:?} responds"), SOON, || registry.answers()).await?;
        Ok(registry)
    }

    /// Changes the RegistryCluster by a merge patch.
    ///
    /// # Errors
    /// If the API server rejects it; the message contains the reason.
    pub async fn patch(self, cluster: &Cluster, patch: &Value) -> Result<()> {
        let (name, patch) = (format!("rgc/{}", self.name), patch.to_string());
        cluster.kubectl(["-n", self.namespace, "patch", &name, "--type=merge", "-p", &patch]).await.map(drop)
    }

    /// Its pods, ordered by name.
    ///
    /// # Errors
    /// If the API server does not respond.
    pub async fn pods(self, cluster: &Cluster) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), self.namespace);
        let mut pods = pods.list(&self.selector()).await?.items;
        pods.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        Ok(pods)
    }

    /// Selects all objects that the operator creates for it.
    pub fn selector(self) -> ListParams {
        ListParams::default().labels(&format!("app.kubernetes.io/instance={}", self.name))
    }

    /// Each registry node by its pod's address, ordered by name.
    ///
    /// # Errors
    /// If a pod has no address.
    pub async fn nodes(self, cluster: &Cluster) -> Result<Vec<Registry>> {
        let address = |pod: &Pod| Some(format!("http://{}:5000", pod.status.as_ref()?.pod_ip.as_ref()?));
        let pods = self.pods(cluster).await?;
        pods.iter().map(|pod| Ok(Registry::new(&address(pod).context("the pod has no IP address")?))).collect()
    }
}

/// Pulls that continue until they are stopped.
#[derive(Default)]
pub struct Pulls {
    stop: AtomicBool,
    done: AtomicUsize,
    again: AtomicUsize,
}

impl Pulls {
    /// Pulls an image by its tag over and over, as real clients do: retries a request that was
    /// refused temporarily, or whose connection was closed just when it was sent. Ends with the
    /// first pull that still fails or has other bytes.
    ///
    /// # Errors
    /// If a pull failed.
    pub async fn go_on(&self, registry: &Registry, repository: &str, tag: &str, image: &Image) -> Result<()> {
        const TRIES: usize = 3;
        while !self.stop.load(Ordering::Relaxed) {
            let mut tries = 1;
            while let Err(error) = registry.patient(SOON).pull_image(repository, tag, image).await {
                let cut_short = error.chain().any(|cause| cause.is::<hyper::Error>());
                if !cut_short || tries == TRIES {
                    return Err(error.context(format!("a pull failed at attempt {tries}")));
                }
                tries += 1;
                self.again.fetch_add(1, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        println!(
            "{} pulls succeeded, {} after a retry",
            self.done.load(Ordering::Relaxed),
            self.again.load(Ordering::Relaxed)
        );
        Ok(())
    }

    /// Runs `work` while pulls continue, then stops them.
    ///
    /// # Errors
    /// If either fails.
    pub async fn during<T>(
        &self,
        pulls: impl Future<Output = Result<()>>,
        what: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let what = async {
            let outcome = what.await;
            self.stop.store(true, Ordering::Relaxed);
            outcome
        };
        let ((), outcome) = tokio::try_join!(pulls, what)?;
        ensure!(self.done.load(Ordering::Relaxed) > 0, "no pull completed");
        Ok(outcome)
    }
}

/// Deletes the namespaces of a scenario without waiting for their contents.
///
/// # Errors
/// If a namespace does not exist.
pub async fn gone(cluster: &Cluster, namespaces: &[&str]) -> Result<()> {
    let delete = ["delete", "namespace", "--wait=false"].iter().chain(namespaces);
    cluster.kubectl(delete).await.map(drop)
}
