//! The bucket is unreachable: nodes serve what they store, reject what they could not keep, and
//! recover by themselves when it is back.

use super::fixture::{Fixture, TIMEOUT};
use crate::client::Reply;
use crate::cluster::{Cluster, OwnCluster};
use crate::push::{IMAGE, Image};
use crate::{Content, Registry, wait};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const REGISTRY: Fixture = Fixture::new("bucket-outage");

/// Time limit for a pull by tag while the bucket does not respond.
const TAG: Duration = Duration::from_secs(10);

/// A firewall cuts S3 off: the condition reports it, pods stay ready, stored images are served by
/// digest and by tag, and pushes are rejected with a status that asks to retry. Without the
/// firewall, everything works again by itself.
pub async fn the_bucket_is_unreachable(cluster: &OwnCluster) -> Result<()> {
    let registry = REGISTRY.create(cluster, &json!({"replicas": 2})).await?;
    REGISTRY.becomes(cluster, "BucketReachable", "True", "Reachable").await?;
    let image = Image::fresh(&[3_000_000, 200_000]);
    registry.push_image("kept", "1", &image).await?;
    let nodes = REGISTRY.node_registries(cluster).await?;
    for node in &nodes {
        node.pull_image("kept", "1", &image).await.context("before the bucket is cut off")?;
    }
    ensure!(s3_connects(cluster).await, "S3 is unreachable before it is cut off");
    let before = lifetimes(&REGISTRY.pods(cluster).await?);
    cluster.cut_s3().await?;
    let outcome = during_outage(cluster, &nodes, &image).await;
    cluster.restore_s3().await?;
    outcome?;
    let start = Instant::now();
    wait::until("S3 responds again", TIMEOUT, || s3_connects(cluster)).await?;
    let later = Image::fresh(&[1_000_000]);
    for node in &nodes {
        let node = node.retrying(TIMEOUT);
        node.push_image("later", "1", &later).await.context("once the bucket is back")?;
    }
    println!("pushes work {:.1?} after the bucket was restored", start.elapsed());
    REGISTRY.becomes(cluster, "BucketReachable", "True", "Reachable").await?;
    println!("BucketReachable became True after {:.1?}", start.elapsed());
    for node in &nodes {
        // The first request is served the known value and starts a refresh for the others.
        wait::until("the tag is served without a warning", TIMEOUT, || async {
            let fresh = |reply: Reply| reply.status == 200 && reply.header("warning").is_none();
            node.manifest("kept", "1").await.is_ok_and(fresh)
        })
        .await?;
        node.pull_image("later", "1", &later).await?;
    }
    // The same pods, never restarted, and ready all the time.
    let after = lifetimes(&REGISTRY.pods(cluster).await?);
    ensure!(before == after, "the pods have changed: {before:?}, then {after:?}");
    REGISTRY.remove(cluster).await
}

async fn during_outage(cluster: &OwnCluster, nodes: &[Registry], image: &Image) -> Result<()> {
    ensure!(!s3_connects(cluster).await, "S3 responds although it is cut off");
    let start = Instant::now();
    let reported = async {
        REGISTRY.becomes(cluster, "BucketReachable", "False", "Unreachable").await?;
        println!("BucketReachable became False after {:.1?}", start.elapsed());
        REGISTRY.has_event(cluster, "Unreachable").await
    };
    let served = futures::future::try_join_all(nodes.iter().map(|node| serves_stored_image(node, image)));
    tokio::try_join!(reported, served)?;
    println!("reads served and writes rejected after {:.1?}", start.elapsed());
    Ok(())
}

/// Checks the responses of a node for an image that it stores, and for pushes, while the bucket is
/// unreachable.
async fn serves_stored_image(node: &Registry, image: &Image) -> Result<()> {
    let start = Instant::now();
    node.pull_image("kept", &image.digest.to_string(), image).await.context("by digest")?;
    let by_digest = start.elapsed();
    let start = Instant::now();
    node.pull_image("kept", "1", image).await.context("by tag")?;
    let by_tag = start.elapsed();
    ensure!(by_tag < TAG, "the pull by tag took {by_tag:.1?}");
    println!("pulled a stored image by digest in {by_digest:.1?} and by tag in {by_tag:.1?}");
    let manifest = node.manifest("kept", "1").await?.expect(200)?;
    ensure!(
        manifest.header("warning").is_some(),
        "a tag that may be stale has no Warning header: {:?}",
        manifest.headers
    );
    let blob = Content::fresh(10_000);
    let (blob, manifest) =
        tokio::try_join!(node.try_push("kept", &blob), node.put_manifest("kept", "2", IMAGE, &image.manifest),)?;
    is_retryable(&blob).context("a blob")?;
    is_retryable(&manifest).context("a manifest")
}

fn is_retryable(reply: &Reply) -> Result<()> {
    ensure!(reply.status == 503, "status {} instead of 503: {:?}", reply.status, reply.body);
    let seconds = reply.header("retry-after").and_then(|text| text.parse::<u32>().ok());
    ensure!(seconds.is_some(), "no Retry-After header: {:?}", reply.headers);
    Ok(())
}

async fn s3_connects(cluster: &OwnCluster) -> bool {
    let address = cluster.s3().endpoint.trim_start_matches("http://");
    let attempt = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address)).await;
    attempt.is_ok_and(|result| result.is_ok())
}

/// The facts of each pod that change if it is recreated, restarted, or not ready for a moment.
fn lifetimes(pods: &[Pod]) -> Vec<(Option<String>, i32, String)> {
    let lifetime = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let restarts = status.container_statuses.unwrap_or_default().iter().map(|one| one.restart_count).sum();
        let ready = status.conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ == "Ready");
        let since = ready.map(|ready| format!("{} since {:?}", ready.status, ready.last_transition_time));
        (pod.metadata.uid.clone(), restarts, since.unwrap_or_default())
    };
    pods.iter().map(lifetime).collect()
}
