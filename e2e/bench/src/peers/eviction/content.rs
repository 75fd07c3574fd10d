//! The blobs of the eviction benchmarks, and clients that request them.

use crate::download::Downloads;
use crate::peers::image_transfer;
use crate::peers::load::closed;
use crate::peers::systems::Bucket;
use anyhow::{Result, ensure};
use entrepot_config::NodeConfig;
use entrepot_e2e::{Content, Node};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

const REPOSITORY: &str = "bench/cleaning";
/// Size in bytes of each blob of the traces.
pub const SIZE: u64 = 64 << 10;
/// Number of clients that replay a trace.
pub const CLIENTS: usize = 4;

/// Pushes a number of new blobs of one size.
///
/// # Errors
/// If a push fails.
pub async fn push(bucket: &Bucket, count: usize, size: u64) -> Result<Vec<Content>> {
    let contents: Vec<_> = (0..count).map(|_| Content::fresh(size)).collect();
    let mut pushes = Vec::new();
    for content in &contents {
        pushes.push(bucket.pusher.registry.push(REPOSITORY, content));
    }
    stream::iter(pushes).buffer_unordered(16).try_for_each(|_| async { Ok(()) }).await?;
    Ok(contents)
}

/// Starts a node over the bucket with a changed configuration.
///
/// # Errors
/// If the node does not start.
pub async fn node(bucket: &Bucket, change: impl FnOnce(&mut NodeConfig)) -> Result<Node> {
    bucket.plan(&bucket.server.s3.endpoint)?.with(change).start().await
}

/// Requests the blobs of a trace.
///
/// # Errors
/// If a request fails.
pub async fn replay(downloads: &Downloads, contents: &[Content], requests: &[usize]) -> Result<()> {
    let paths = requests.iter().map(|number| path(&contents[*number])).collect();
    let get = |path: Arc<String>| async move { image_transfer::get(downloads, &path, SIZE).await };
    let outcome = closed(CLIENTS, paths, get).await?;
    ensure!(outcome.failures.is_empty(), "{:?}", outcome.failures.first());
    Ok(())
}

/// The path of a blob.
pub fn path(content: &Content) -> String {
    format!("/v2/{REPOSITORY}/blobs/{}", content.digest)
}
