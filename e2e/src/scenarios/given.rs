//! What a scenario begins with: a registry of its own, in a namespace of its own, with a part of the bucket of its own.

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

/// Within this a healthy cluster has done anything that is asked of it here.
pub const SOON: Duration = Duration::from_secs(120);

/// A registry, by its namespace and its name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    pub namespace: &'static str,
    pub name: &'static str,
}

impl Named {
    /// A RegistryCluster of small nodes. Its prefix is its own.
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
                "cache": {"size": "1Gi"},
                "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
            },
        })
    }

    /// What its keys in the bucket begin with.
    pub fn prefix(self) -> String {
        format!("{}/{}/", self.namespace, self.name)
    }

    /// Applies it with its namespace and the keys of the bucket, and waits until every node is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn is_ready(self, cluster: &Cluster, manifest: &Value) -> Result<Registry> {
        cluster.apply(&secret(self.namespace)).await?;
        cluster.apply(&manifest.to_string()).await?;
        self.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
        self.registry(cluster).await
    }

    /// It behind its Service, once that answers: the machines learn of an address a moment after a node is ready.
    ///
    /// # Errors
    /// When there is no such Service, or it does not answer.
    pub async fn registry(self, cluster: &Cluster) -> Result<Registry> {
        let registry = cluster.registry(self.namespace, self.name).await?;
        wait::until(&format!("the Service of {self:?} answers"), SOON, || registry.answers()).await?;
        Ok(registry)
    }

    /// Changes it by a merge patch.
    ///
    /// # Errors
    /// When the API server refuses it; the message has its words.
    pub async fn patch(self, cluster: &Cluster, patch: &Value) -> Result<()> {
        let (name, patch) = (format!("rgc/{}", self.name), patch.to_string());
        cluster.kubectl(["-n", self.namespace, "patch", &name, "--type=merge", "-p", &patch]).await.map(drop)
    }

    /// Its nodes' pods, in the order of their names.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(self, cluster: &Cluster) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), self.namespace);
        let mut pods = pods.list(&self.selector()).await?.items;
        pods.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        Ok(pods)
    }

    /// What selects all that the operator makes of it.
    pub fn selector(self) -> ListParams {
        ListParams::default().labels(&format!("app.kubernetes.io/instance={}", self.name))
    }

    /// Each node by its own address, in the order of their names.
    ///
    /// # Errors
    /// When a pod has no address.
    pub async fn nodes(self, cluster: &Cluster) -> Result<Vec<Registry>> {
        let address = |pod: &Pod| Some(format!("http://{}:5000", pod.status.as_ref()?.pod_ip.as_ref()?));
        let pods = self.pods(cluster).await?;
        pods.iter().map(|pod| Ok(Registry::new(&address(pod).context("a pod without address")?))).collect()
    }
}

/// Pulls that go on until they are told to stop.
#[derive(Default)]
pub struct Pulls {
    stop: AtomicBool,
    done: AtomicUsize,
    again: AtomicUsize,
}

impl Pulls {
    /// Pulls an image by its tag, over and over, as real clients do: what was refused for now, and a connection that
    /// was closed just when a request was sent on it, is tried again. A pull that does not succeed by that, or that
    /// brings other bytes, ends it.
    ///
    /// # Errors
    /// When a pull failed.
    pub async fn go_on(&self, registry: &Registry, repository: &str, tag: &str, image: &Image) -> Result<()> {
        const TRIES: usize = 3;
        while !self.stop.load(Ordering::Relaxed) {
            let mut tries = 1;
            while let Err(error) = registry.patient(SOON).pull_image(repository, tag, image).await {
                let cut_short = error.chain().any(|cause| cause.is::<hyper::Error>());
                if !cut_short || tries == TRIES {
                    return Err(error.context(format!("a pull failed at try {tries}")));
                }
                tries += 1;
                self.again.fetch_add(1, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        println!(
            "{} pulls went on without a failure, of which {} were tried again",
            self.done.load(Ordering::Relaxed),
            self.again.load(Ordering::Relaxed)
        );
        Ok(())
    }

    /// Does something while pulls go on, and ends them.
    ///
    /// # Errors
    /// When either fails.
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
        ensure!(self.done.load(Ordering::Relaxed) > 0, "nothing was pulled");
        Ok(outcome)
    }
}

/// Deletes the namespaces of a scenario, without waiting for what goes with them.
///
/// # Errors
/// When there is none of a name.
pub async fn gone(cluster: &Cluster, namespaces: &[&str]) -> Result<()> {
    let delete = ["delete", "namespace", "--wait=false"].iter().chain(namespaces);
    cluster.kubectl(delete).await.map(drop)
}
