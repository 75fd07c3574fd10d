//! The keys of the bucket are rotated while the registry is in use.

use super::fixture::{Fixture, TIMEOUT, allowed_use};
use crate::cluster::{Cluster, Kubectl, OwnCluster, S3Request};
use crate::push::Image;
use crate::s3::S3;
use crate::{Registry, wait};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

const REGISTRY: Fixture = Fixture::new("key-rotation");
const OLD: (&str, &str) = ("key-of-yesterday", "secret-of-yesterday");
const NEW: (&str, &str) = ("key-of-today", "secret-of-today");
/// Number of last requests from a node that must be signed with the new key; more than a node has
/// in flight at once.
const SURE: usize = 20;

/// The S3 server accepts a second key, and the Secret is changed to it. When the server's log shows
/// that every node signs with it, the first key is revoked. No request fails, and no pod restarts.
pub async fn keys_are_rotated_under_load(cluster: &OwnCluster) -> Result<()> {
    cluster.accept_s3_keys(&[OLD])?;
    cluster.apply(&REGISTRY.secret()).await?;
    cluster.apply(&secret(OLD)).await?;
    let spec = json!({"replicas": 2, "bucket": {"auth": {"secretRef": {"name": "rotating"}}}});
    REGISTRY.create(cluster, &spec).await?;
    REGISTRY.becomes(cluster, "CredentialsValid", "True", "Accepted").await?;
    let (pods, nodes) = (REGISTRY.pods(cluster).await?, REGISTRY.node_registries(cluster).await?);
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = futures::future::try_join_all(nodes.iter().map(|node| load(node, &stop, &rounds)));
    let rotation = async {
        let outcome = rotate(cluster, &pods, &rounds).await;
        stop.store(true, Ordering::Relaxed);
        outcome
    };
    tokio::try_join!(load, rotation)?;
    println!("{} rounds of a push and a pull without a failure", rounds.load(Ordering::Relaxed));
    REGISTRY.becomes(cluster, "CredentialsValid", "True", "Accepted").await?;
    let lifetimes = |pods: &[Pod]| pods.iter().map(lifetime).collect::<Vec<_>>();
    let after = REGISTRY.pods(cluster).await?;
    ensure!(lifetimes(&after) == lifetimes(&pods), "pods were replaced or restarted: {:?}", lifetimes(&after));
    ensure!(after.iter().all(|pod| lifetime(pod).1 == 0), "a pod was restarted: {:?}", lifetimes(&after));
    REGISTRY.remove(cluster).await
}

async fn rotate(cluster: &OwnCluster, pods: &[Pod], rounds: &AtomicUsize) -> Result<()> {
    let rounds_pass = async |count: usize| {
        let goal = rounds.load(Ordering::Relaxed) + count;
        let passed = || std::future::ready(rounds.load(Ordering::Relaxed) >= goal);
        wait::until("the load continues", TIMEOUT, passed).await
    };
    rounds_pass(10).await?;
    cluster.accept_s3_keys(&[OLD, NEW])?;
    cluster.apply(&secret(NEW)).await?;
    let start = Instant::now();
    let addresses: Vec<_> =
        pods.iter().filter_map(|pod| Some(pod.status.as_ref()?.pod_ip.as_ref()?.as_str())).collect();
    wait::until("every node signs with the new key", TIMEOUT, || async {
        let Ok(requests) = cluster.s3_requests(&REGISTRY.prefix()) else { return false };
        addresses.iter().all(|address| signs_with_new(&requests, address))
    })
    .await?;
    println!("every node signs with the new key {:.1?} after the change of the Secret", start.elapsed());
    cluster.accept_s3_keys(&[NEW])?;
    let old = S3::with_keys(&cluster.s3().endpoint, OLD.0, OLD.1);
    ensure!(old.keys(&REGISTRY.prefix()).await.is_err(), "the old key is still accepted");
    rounds_pass(50).await
}

/// Whether the last requests of a node are all signed with the new key.
fn signs_with_new(requests: &[S3Request], address: &str) -> bool {
    let mut last = requests.iter().rev().filter(|request| request.from == address).take(SURE).peekable();
    last.peek().is_some() && last.all(|request| request.by == NEW.0)
}

/// Pushes an image and pulls it by digest and tag, over and over, without any retry.
async fn load(node: &Registry, stop: &AtomicBool, rounds: &AtomicUsize) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let image = Image::fresh(&[50_000]);
        node.push_image("rotated", "1", &image).await.context("push failed")?;
        node.pull_image("rotated", &image.digest.to_string(), &image).await.context("pull by digest failed")?;
        node.manifest("rotated", "1").await?.expect(200).context("pull by tag failed")?;
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn lifetime(pod: &Pod) -> (Option<String>, i32) {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let restarts = statuses.map_or(0, |all| all.iter().map(|status| status.restart_count).sum());
    (pod.metadata.uid.clone(), restarts)
}

fn secret((access, secret): (&str, &str)) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "rotating", "namespace": REGISTRY.namespace, "labels": allowed_use()},
        "stringData": {"accessKeyId": access, "secretAccessKey": secret},
    })
    .to_string()
}
