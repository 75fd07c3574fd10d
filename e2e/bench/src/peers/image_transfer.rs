//! Pushes and pulls in the steps of container engines.

use crate::download::Downloads;
use anyhow::{Context, Result, ensure};
use entrepot_e2e::client::Registry;
use entrepot_e2e::push::{IMAGE, Image};
use futures::{StreamExt, TryStreamExt, stream};
use std::time::Duration;
use tokio::task::JoinSet;

/// Blobs that a client uploads at the same time: the default of Docker's `max-concurrent-uploads`.
const UPLOADS: usize = 5;
/// Blobs that a client downloads at the same time: the default of `max-concurrent-downloads` in
/// Docker, and that of containerd.
const DOWNLOADS: usize = 3;

/// Pushes an image: for each blob `HEAD` and, if the registry does not have it, `POST`, one `PATCH`
/// of unknown length and `PUT`; then the manifest.
///
/// # Errors
/// If the response to a step has an unexpected status.
pub async fn push(registry: &Registry, repository: &str, tag: &str, image: &Image) -> Result<()> {
    let push = |blob| async move {
        if !registry.has_blob(repository, blob).await? {
            let content = image
                .blobs()
                .find(|content| content.digest == *blob)
                .with_context(|| format!("{blob} is not a blob of the image"))?;
            registry.push_streamed(repository, content).await?;
        }
        anyhow::Ok(())
    };
    stream::iter(image.blobs().map(|blob| push(&blob.digest))).buffer_unordered(UPLOADS).try_collect::<()>().await?;
    registry.put_manifest(repository, tag, IMAGE, &image.manifest).await?.expect(201)?;
    Ok(())
}

/// The URLs from which a client pulls an image.
#[derive(Clone, Debug)]
pub struct Urls {
    pub manifest: String,
    /// The URL of each blob, and its size in bytes.
    pub blobs: Vec<(String, u64)>,
}

/// The results of a pull.
#[derive(Clone, Debug, Default)]
pub struct Pull {
    pub bytes: u64,
    /// Time from the request of each blob to its first byte.
    pub first_bytes: Vec<Duration>,
}

/// Pulls an image: the manifest, then its blobs, each in a task of its own. The client counts and
/// discards the bytes. It does not verify them, because hashing in the client would dominate the
/// measurement; tests verify content.
///
/// # Errors
/// If a response is not 200 or has the wrong size.
pub async fn pull(downloads: &Downloads, urls: &Urls) -> Result<Pull> {
    downloads.get(&urls.manifest).await?;
    let (mut pull, mut running) = (Pull::default(), JoinSet::new());
    for (url, size) in urls.blobs.clone() {
        if running.len() == DOWNLOADS
            && let Some(blob) = running.join_next().await
        {
            pull.add(blob??);
        }
        let downloads = downloads.clone();
        running.spawn(async move { get(&downloads, &url, size).await });
    }
    while let Some(blob) = running.join_next().await {
        pull.add(blob??);
    }
    Ok(pull)
}

impl Pull {
    fn add(&mut self, (bytes, first): (u64, Duration)) {
        self.bytes += bytes;
        self.first_bytes.push(first);
    }
}

/// Downloads a URL with a known size and discards the body. Returns the number of bytes and the
/// time to the first byte.
///
/// # Errors
/// If the response is not 200, ends early, or does not have `size` bytes.
pub async fn get(downloads: &Downloads, url: &str, size: u64) -> Result<(u64, Duration)> {
    let (bytes, first) = downloads.get(url).await?;
    ensure!(bytes == size, "{url}: expected {size} bytes, got {bytes}");
    Ok((bytes, first))
}
