//! Links: what a repository makes visible. A blob or manifest is served only through a repository that links it.
//!
//! Having seen a link is remembered beside the content, from when that is on its way into the store, so that serving it
//! again asks the bucket nothing for `fetch.linksFreshFor`. Not having seen one is never remembered: a push at another node is visible at once.

use super::bucket::{Bucket, BucketError, PutBody, PutMode, get_small};
use super::disk::Store;
use super::layout::{Layout, LinkKind, link_content, read_link};
use crate::oci::{Digest, Repository};
use std::sync::Arc;
use std::time::Duration;

/// A link is a digest; whatever is longer is none.
pub const MAX_LINK_BYTES: usize = 1024;

/// Reads, writes and remembers links. Clones share everything.
#[derive(Clone)]
pub struct Links {
    bucket: Arc<dyn Bucket>,
    layout: Layout,
    store: Store,
    fresh_for: Duration,
    stale_if_error: Duration,
}

impl Links {
    /// `fresh_for`: for how long having seen a link is relied on; `stale_if_error`: the same while the bucket fails.
    pub fn new(
        bucket: Arc<dyn Bucket>,
        layout: Layout,
        store: Store,
        fresh_for: Duration,
        stale_if_error: Duration,
    ) -> Links {
        Links { bucket, layout, store, fresh_for, stale_if_error }
    }

    /// Whether the repository links the content. Costs nothing when that was seen lately, else one request.
    ///
    /// # Errors
    /// When the bucket cannot be asked, and it was not seen within `stale_if_error` either.
    pub async fn exists(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<bool, BucketError> {
        let age = self.store.link_age(repository, kind, digest);
        if age.is_some_and(|age| age <= self.fresh_for) {
            return Ok(true);
        }
        match self.ask(repository, kind, digest).await {
            Err(error) if age.is_some_and(|age| age <= self.fresh_for.max(self.stale_if_error)) => {
                tracing::warn!(%repository, %digest, %error, "relying on a link seen earlier");
                Ok(true)
            }
            asked => asked,
        }
    }

    /// Asks the bucket whether the repository links the content, whatever was seen before. One request.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn ask(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<bool, BucketError> {
        let key = self.layout.link(repository, kind, digest);
        match get_small(&*self.bucket, &key, MAX_LINK_BYTES).await? {
            Some((content, _)) if read_link(&content) == Some(*digest) => {
                self.store.remember_link(repository, kind, digest);
                Ok(true)
            }
            _ => {
                self.store.forget_link(repository, kind, digest);
                Ok(false)
            }
        }
    }

    /// Writes the link: from now on every node serves the content through this repository.
    ///
    /// # Errors
    /// When the bucket did not take it.
    pub async fn write(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<(), BucketError> {
        let key = self.layout.link(repository, kind, digest);
        self.bucket.put(&key, PutBody::Bytes(link_content(digest).into()), PutMode::Overwrite).await?;
        self.store.remember_link(repository, kind, digest);
        Ok(())
    }

    /// Removes the link. Other nodes may serve what they store for `fetch.linksFreshFor`.
    ///
    /// # Errors
    /// When the bucket did not do it.
    pub async fn remove(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<(), BucketError> {
        self.bucket.delete(&self.layout.link(repository, kind, digest)).await?;
        self.store.forget_link(repository, kind, digest);
        Ok(())
    }
}
