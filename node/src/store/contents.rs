//! Stored content by digest.

use super::expected::Expected;
use super::index::{Record, Verdict};
use super::inner::{Inner, Removal};
use super::{Pin, StoreError};
use entrepot_oci::Digest;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Stored content by digest. Clones share the state.
#[derive(Clone)]
pub struct Contents {
    pub(super) inner: Arc<Inner>,
}

impl Contents {
    /// Size of stored content in bytes; `None` if the content is not verified yet, because its size
    /// may be different. No I/O, and not counted as a use.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.inner.index.get(digest)?.sound().map(|identity| identity.size)
    }

    /// Whether content is stored, even if it is not verified yet. Tells whether opening it is worth
    /// trying. No I/O, and not counted as a use.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.inner.index.get(digest).is_some_and(|entry| entry.verdict.get() != Some(&Verdict::Damaged))
    }

    /// Marks the file of content as possibly damaged, so it is verified before its next use.
    pub fn doubt(&self, digest: &Digest) {
        if let Some(entry) = self.inner.index.get(digest) {
            self.inner.doubt(digest, &entry);
        }
    }

    /// Whether content is stored and its file matches its digest. A file that changed since it was
    /// verified is verified now. Counts no use.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn is_sound(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.inner.open_sound(digest).await?.is_some())
    }

    /// The path of stored content, for sending it to the bucket. Pin the content first, so that it
    /// stays there, and open it ([`Contents::open`]) before each attempt, which verifies a
    /// file that another program has changed.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.inner.folders.content(digest)
    }

    /// Protects content from eviction while the pin lives.
    pub fn pin(&self, digest: &Digest) -> Pin {
        Pin::new(Arc::clone(&self.inner), *digest)
    }

    /// Removes content, unless it is pinned. Returns the bytes freed. Open readers continue to
    /// read.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn remove(&self, digest: &Digest) -> Result<u64, StoreError> {
        let Some(entry) = self.inner.index.get(digest) else { return Ok(0) };
        let digest = *digest;
        let removed = self.inner.run(move |inner| inner.remove(&digest, &entry, Removal::Asked)).await?;
        Ok(removed.unwrap_or_default())
    }

    /// Removes content whose file has become the object in the bucket
    /// ([`entrepot_bucket::Capabilities`]): one file is not two copies, and damage to it would
    /// affect both. Not while the content is pinned.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn drop_if_hard_linked(&self, digest: &Digest) -> Result<(), StoreError> {
        let digest = *digest;
        self.inner.run(move |inner| drop_if_hard_linked(inner, &digest)).await
    }

    /// Does the same for all such content that was found at the start. Blocking.
    pub fn drop_hard_links(&self) {
        let shared = std::mem::take(&mut *self.inner.shared.lock());
        for digest in shared {
            if let Err(error) = drop_if_hard_linked(&self.inner, &digest) {
                tracing::warn!(%digest, %error, "cannot remove the cached hard link to an object in the bucket");
            }
        }
    }

    /// The number of stored items.
    pub fn count(&self) -> usize {
        self.inner.index.count()
    }

    /// All stored content with its access statistics: the input of the eviction order.
    pub fn records(&self) -> Vec<Record> {
        self.inner.index.records()
    }

    /// Starts to remember the links of content that is about to be stored. They are forgotten if
    /// the content is not stored in the end.
    pub fn expect(&self, digest: &Digest) -> Expected {
        Expected::new(Arc::clone(&self.inner), *digest)
    }
}

/// Blocking.
fn drop_if_hard_linked(inner: &Inner, digest: &Digest) -> Result<(), StoreError> {
    let Some(entry) = inner.index.get(digest) else { return Ok(()) };
    let path = inner.folders.content(digest);
    let metadata = fs::metadata(&path).map_err(StoreError::io("stat", &path))?;
    if metadata.nlink() > 1 {
        inner.remove(digest, &entry, Removal::Asked)?;
    }
    Ok(())
}
