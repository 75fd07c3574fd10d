//! Links: they make content visible in a repository. A blob or manifest is served only through a
//! repository that links it.
//!
//! Pulls and acknowledgements use links differently. A pull may rely on a link that was seen within
//! `links.freshFor` ([`Links::exists`]). An acknowledgement never relies on an earlier read:
//! [`Links::ask`] always asks the bucket. The absence of a link is never remembered, so a push at
//! another node is visible at once.

use super::layout::{Layout, LinkKind, link_content, read_link};
use super::pending_here::PendingHere;
use crate::store::Store;
use entrepot_bucket::{Bucket, BucketError, Put, PutBody, PutMode, get_small};
use entrepot_oci::{Digest, Repository};
use std::sync::Arc;
use std::time::Duration;

/// Size limit of a link. A link contains a digest; longer content is not a link.
pub const MAX_LINK_BYTES: usize = 1024;

/// Reads, writes and remembers links. Clones share the state.
#[derive(Clone)]
pub struct Links {
    bucket: Arc<dyn Bucket>,
    layout: Layout,
    store: Store,
    pending: PendingHere,
    fresh_for: Duration,
    stale_if_error: Duration,
}

impl Links {
    /// `fresh_for`: how long a pull relies on a link that was seen. `stale_if_error`: the same
    /// while the bucket fails. If reads are cheap, as in a folder, the bucket is asked each time.
    pub fn new(
        bucket: Arc<dyn Bucket>,
        layout: Layout,
        store: Store,
        pending: PendingHere,
        fresh_for: Duration,
        stale_if_error: Duration,
    ) -> Links {
        let fresh_for = if bucket.capabilities().cheap_reads { Duration::ZERO } else { fresh_for };
        Links { bucket, layout, store, pending, fresh_for, stale_if_error }
    }

    /// Whether the repository links the content, for a pull. Costs no request if the link was seen
    /// within `links.freshFor` or the content is a pending blob of this node; otherwise one
    /// request.
    ///
    /// # Errors
    /// If the bucket fails, and the link was not seen within `links.staleIfError` either.
    pub async fn exists(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<bool, BucketError> {
        let age = self.store.links.age(repository, kind, digest);
        if age.is_some_and(|age| age < self.fresh_for) || self.is_pending(repository, kind, digest) {
            return Ok(true);
        }
        match self.ask(repository, kind, digest).await {
            Err(error) if age.is_some_and(|age| age <= self.stale_for()) => {
                tracing::warn!(%repository, %digest, %error,
                    "bucket unavailable; using the cached link of the content in the repository");
                Ok(true)
            }
            asked => asked,
        }
    }

    /// Whether the link was seen recently enough to count while the bucket is unavailable.
    pub fn was_seen(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> bool {
        self.store.links.age(repository, kind, digest).is_some_and(|age| age <= self.stale_for())
    }

    fn stale_for(&self) -> Duration {
        self.fresh_for.max(self.stale_if_error)
    }

    /// Whether this node acknowledged the blob and has not written its link yet (WriteBack).
    pub fn is_pending(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> bool {
        kind == LinkKind::Layer && self.pending.contains(repository, digest)
    }

    /// Whether the bucket has the link now. One request.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn ask(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<bool, BucketError> {
        let look = self.store.links.look(digest);
        let key = self.layout.link(repository, kind, digest);
        match get_small(&*self.bucket, &key, MAX_LINK_BYTES).await? {
            Some((content, _)) if read_link(&content) == Some(*digest) => {
                self.store.links.remember(&look, repository, kind, digest);
                Ok(true)
            }
            _ => {
                self.store.links.forget(repository, kind, digest);
                Ok(false)
            }
        }
    }

    /// Writes the link, and replaces an existing one, which may be damaged. From now on every node
    /// serves the content through this repository.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn write(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<(), BucketError> {
        self.put(repository, kind, digest, PutMode::Overwrite).await?;
        Ok(())
    }

    /// Writes the link if none exists, and returns whether it did. An existing link may be damaged.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn write_new(
        &self,
        repository: &Repository,
        kind: LinkKind,
        digest: &Digest,
    ) -> Result<bool, BucketError> {
        Ok(matches!(self.put(repository, kind, digest, PutMode::IfAbsent).await?, Put::Done(_)))
    }

    async fn put(
        &self,
        repository: &Repository,
        kind: LinkKind,
        digest: &Digest,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        let look = self.store.links.look(digest);
        let key = self.layout.link(repository, kind, digest);
        let put = self.bucket.put(&key, PutBody::Bytes(link_content(digest).into()), mode).await?;
        if let Put::Done(_) = put {
            self.store.links.remember(&look, repository, kind, digest);
        }
        Ok(put)
    }

    /// Removes the link. Other nodes may serve the content from their stores for up to
    /// `links.freshFor`.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn remove(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<(), BucketError> {
        // Forgotten before the deletion, so the result of a read that is running now is not
        // remembered. Forgotten again afterwards, because a read that started in between may have
        // found the link before it was deleted.
        self.store.links.forget(repository, kind, digest);
        let removed = self.bucket.delete(&self.layout.link(repository, kind, digest)).await;
        self.store.links.forget(repository, kind, digest);
        removed
    }
}
