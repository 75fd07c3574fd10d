//! What clients do with a registry, step by step as container engines do it.

use crate::bench::download::Downloads;
use crate::client::Registry;
use crate::push::{IMAGE, Image};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use std::time::Duration;
use tokio::task::JoinSet;

/// Blobs that a client sends at once: Docker's `max-concurrent-uploads`.
const UPLOADS: usize = 5;
/// Blobs that a client gets at once: Docker's `max-concurrent-downloads`, and containerd's.
const DOWNLOADS: usize = 3;

/// Pushes an image: of each blob whether it is there, then `POST`, one `PATCH` of unknown length and `PUT`; the
/// manifest at last.
///
/// # Errors
/// When a step is answered otherwise than it should be.
pub async fn push(registry: &Registry, repository: &str, tag: &str, image: &Image) -> Result<()> {
    let push = |blob| async move {
        if !registry.has_blob(repository, blob).await? {
            let content = image.blobs().find(|content| content.digest == *blob).context("a blob of the image")?;
            registry.push_streamed(repository, content).await?;
        }
        anyhow::Ok(())
    };
    stream::iter(image.blobs().map(|blob| push(&blob.digest))).buffer_unordered(UPLOADS).try_collect::<()>().await?;
    registry.put_manifest(repository, tag, IMAGE, &image.manifest).await?.expect(201)?;
    Ok(())
}

/// Where a client gets an image from.
#[derive(Clone, Debug)]
pub struct Urls {
    pub manifest: String,
    /// Each blob with its size in bytes.
    pub blobs: Vec<(String, u64)>,
}

/// What a pull was like.
#[derive(Clone, Debug, Default)]
pub struct Pull {
    pub bytes: u64,
    /// From each blob's request to its first byte.
    pub first_bytes: Vec<Duration>,
}

/// Pulls an image: the manifest, then its blobs, each by a task of its own. What arrives is counted and thrown away: that
/// it is the right content is for tests to show, and a client that hashes would be most of what is measured.
///
/// # Errors
/// When an answer is not 200 or of another size.
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

/// Gets something of a known size and throws it away: how many bytes, and when the first of them came.
///
/// # Errors
/// When the answer is not 200, ends early, or has not `size` bytes.
pub async fn get(downloads: &Downloads, url: &str, size: u64) -> Result<(u64, Duration)> {
    let (bytes, first) = downloads.get(url).await?;
    ensure!(bytes == size, "{url}: {bytes} bytes");
    Ok((bytes, first))
}
