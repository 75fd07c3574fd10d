//! What clients do with a registry, step by step as container engines do it.

use crate::bench::load;
use crate::client::Registry;
use crate::push::{IMAGE, Image};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use std::time::Duration;

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

/// Pulls an image: the manifest, then its blobs. What arrives is counted and thrown away: that it is the right content
/// is for tests to show, and a client that hashes would be most of what is measured.
///
/// # Errors
/// When an answer is not 200 or of another size.
pub async fn pull(registry: &Registry, urls: &Urls) -> Result<Pull> {
    load::get(registry, &urls.manifest).await?;
    let mut blobs = Vec::new();
    for (url, size) in &urls.blobs {
        blobs.push(get(registry, url, *size));
    }
    let pulled: Vec<(u64, Duration)> = stream::iter(blobs).buffer_unordered(DOWNLOADS).try_collect().await?;
    let bytes = pulled.iter().map(|(bytes, _)| bytes).sum();
    Ok(Pull { bytes, first_bytes: pulled.into_iter().map(|(_, first)| first).collect() })
}

/// Gets something of a known size and throws it away: how many bytes, and when the first of them came.
///
/// # Errors
/// When the answer is not 200, ends early, or has not `size` bytes.
pub async fn get(registry: &Registry, url: &str, size: u64) -> Result<(u64, Duration)> {
    let (bytes, first) = load::get(registry, url).await?;
    ensure!(bytes == size, "{url}: {bytes} bytes");
    Ok((bytes, first))
}
