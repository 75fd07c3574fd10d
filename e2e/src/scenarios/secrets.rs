//! A registry sends the keys of a Secret to the endpoint of its spec, so a Secret has to allow that by
//! its label: otherwise, whoever may create a RegistryCluster could read any Secret of the namespace.

use super::fixture::{Fixture, TIMEOUT};
use crate::cluster::{Cluster, Kubectl};
use crate::push::Image;
use crate::s3::{ACCESS_KEY, SECRET_KEY};
use crate::wait;
use anyhow::{Result, ensure};
use serde_json::json;

const REGISTRY: Fixture = Fixture::new("secrets");

/// A registry over the Secret of another application is not started. After the owner has labelled the
/// Secret, it is. After the label is removed again, the registry goes on and is not changed.
pub async fn a_secret_has_to_allow_its_use(cluster: &dyn Cluster) -> Result<()> {
    cluster.apply(&REGISTRY.secret()).await?;
    cluster.apply(&database()).await?;
    let keys = json!({"name": "database", "accessKeyIdKey": "username", "secretAccessKeyKey": "password"});
    cluster.apply(&REGISTRY.manifest(&json!({"bucket": {"auth": {"secretRef": keys}}})).to_string()).await?;
    let message = REGISTRY.becomes(cluster, "Ready", "False", "SecretNotLabelled").await?;
    println!("Ready=False SecretNotLabelled: {message}");
    REGISTRY.has_event(cluster, "SecretNotLabelled").await?;
    let objects = ["-n", REGISTRY.namespace, "get", "statefulset,pod,configmap,service", "-o", "name"];
    let objects = cluster.kubectl([&objects[..], &["-l", "app.kubernetes.io/instance=images"]].concat()).await?;
    ensure!(objects.trim().is_empty(), "objects were created: {objects}");

    // The message has the command.
    let command = message.split_once("kubectl ").map(|(_, command)| command.split_whitespace().collect::<Vec<_>>());
    cluster.kubectl(command.unwrap_or_default()).await?;
    REGISTRY.until_settled(cluster).await?;
    let registry = REGISTRY.registry(cluster).await?;
    let image = Image::fresh(&[10_000]);
    registry.push_image("allowed", "1", &image).await?;

    cluster.kubectl(["-n", REGISTRY.namespace, "label", "secret", "database", "entrepot.dev/use-"]).await?;
    REGISTRY.change(cluster, &json!({"replicas": 2})).await?;
    REGISTRY.becomes(cluster, "Ready", "False", "SecretNotLabelled").await?;
    registry.pull_image("allowed", "1", &image).await?;
    ensure!(REGISTRY.pods(cluster).await?.len() == 1, "the registry was changed");
    cluster.kubectl(["-n", REGISTRY.namespace, "label", "secret", "database", "entrepot.dev/use=bucket"]).await?;
    wait::until("the registry has two pods", TIMEOUT, || async {
        REGISTRY.pods(cluster).await.is_ok_and(|pods| pods.len() == 2)
    })
    .await?;
    REGISTRY.until_settled(cluster).await?;
    REGISTRY.remove(cluster).await
}

/// A Secret of another application, with keys that the bucket would accept.
fn database() -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "database", "namespace": REGISTRY.namespace},
        "stringData": {"username": ACCESS_KEY, "password": SECRET_KEY},
    })
    .to_string()
}
