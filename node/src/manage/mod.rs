//! Content management: deletion of tags, manifests and blobs from a repository.
//!
//! Only links are removed; the bytes stay in the bucket for other repositories (CNCF Distribution's
//! `garbage-collect` removes what nothing links). Each deletion first removes what makes the thing visible, so that a
//! crash half way leaves nothing that is visible and broken. Other nodes may serve what they store of a deleted
//! manifest or blob for `fetch.linksFreshFor`; a deleted tag is gone at every node at once.

use crate::oci::{Digest, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};
use crate::store::bucket::{Bucket, BucketError, ListOptions, Page, get_small};
use crate::store::layout::{Key, LinkKind, read_link};
use crate::store::links::MAX_LINK_BYTES;
use crate::store::{Layout, Links, Replicator, Store};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use globset::GlobSet;
use std::sync::Arc;

/// Requests of one deletion at once.
const AT_ONCE: usize = 16;
/// Keys asked for in one listing; S3 answers no more.
const PAGE: usize = 1000;

/// Why something was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    #[error("not found")]
    NotFound,
    #[error("the tag {0} is immutable (tags.immutable)")]
    Immutable(Tag),
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// Content management. Clones share it.
#[derive(Clone)]
pub struct Manage {
    bucket: Arc<dyn Bucket>,
    layout: Layout,
    store: Store,
    links: Links,
    replicator: Arc<dyn Replicator>,
    /// Tags that match are never deleted.
    immutable: GlobSet,
}

impl Manage {
    pub fn new(
        bucket: Arc<dyn Bucket>,
        layout: Layout,
        store: Store,
        links: Links,
        replicator: Arc<dyn Replicator>,
        immutable: GlobSet,
    ) -> Manage {
        Manage { bucket, layout, store, links, replicator, immutable }
    }

    /// Removes a tag; the manifest stays.
    ///
    /// # Errors
    /// When there is no such tag, it is immutable, or the bucket fails.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), ManageError> {
        let current = self.layout.tag_current(repository, tag);
        if self.bucket.head(&current).await?.is_none() {
            return Err(ManageError::NotFound);
        }
        if self.immutable.is_match(tag.as_str()) {
            return Err(ManageError::Immutable(tag.clone()));
        }
        self.remove_tag(repository, tag).await
    }

    async fn remove_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), ManageError> {
        // The current link goes first: the tag is gone, whatever becomes of its history.
        self.bucket.delete(&self.layout.tag_current(repository, tag)).await?;
        self.store.forget_tag(repository, tag);
        let history = self.keys(self.layout.tag(repository, tag)).await?;
        Ok(self.delete_all(history).await?)
    }

    /// Removes a manifest from a repository, with the tags that it is and its entry among referrers. Reads the link
    /// of every tag of the repository.
    ///
    /// # Errors
    /// When it is not there, one of its tags is immutable, or the bucket fails.
    pub async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        self.require_link(repository, LinkKind::Revision, digest).await?;
        let tags = self.tags_of(repository, digest).await?;
        if let Some(tag) = tags.iter().find(|tag| self.immutable.is_match(tag.as_str())) {
            return Err(ManageError::Immutable(tag.clone()));
        }
        for tag in &tags {
            self.remove_tag(repository, tag).await?;
        }
        // An entry among referrers must not outlive the manifest that it names.
        if let Some(subject) = self.subject_of(digest).await? {
            self.bucket.delete(&self.layout.referrer(repository, &subject, digest)).await?;
        }
        Ok(self.links.remove(repository, LinkKind::Revision, digest).await?)
    }

    /// Removes a blob from a repository; others that link it keep it.
    ///
    /// # Errors
    /// When it is not there, or the bucket fails.
    pub async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        // A pending blob would get its link after the deletion and be back.
        self.replicator.durable(repository, digest).await?;
        self.require_link(repository, LinkKind::Layer, digest).await?;
        Ok(self.links.remove(repository, LinkKind::Layer, digest).await?)
    }

    /// Asks the bucket, for what was seen earlier does not count when something is to be deleted.
    async fn require_link(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<(), ManageError> {
        self.store.forget_link(repository, kind, digest);
        if self.links.exists(repository, kind, digest).await? { Ok(()) } else { Err(ManageError::NotFound) }
    }

    /// Tags of the repository that are this manifest now.
    async fn tags_of(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Tag>, BucketError> {
        let prefix = self.layout.tags(repository);
        self.pages(prefix.clone(), true)
            .map_ok(|page| {
                let names = page.prefixes.iter().filter_map(|folder| folder.strip_prefix(&prefix)?.strip_suffix('/'));
                stream::iter(names.filter_map(|name| Tag::parse(name).ok()).map(Ok).collect::<Vec<_>>())
            })
            .try_flatten()
            .map_ok(|tag| async move {
                let key = self.layout.tag_current(repository, &tag);
                let link = get_small(&*self.bucket, &key, MAX_LINK_BYTES).await?;
                Ok(link.and_then(|(link, _)| read_link(&link)).filter(|current| current == digest).map(|_| tag))
            })
            .try_buffered(AT_ONCE)
            .try_filter_map(|tag| async move { Ok(tag) })
            .try_collect()
            .await
    }

    /// What the manifest refers to. A manifest that cannot be read has no entry among referrers that could be found.
    async fn subject_of(&self, digest: &Digest) -> Result<Option<Digest>, BucketError> {
        let content = match self.store.read_small(digest).await {
            Ok(Some(content)) => Some(content),
            Ok(None) | Err(_) => {
                let key = self.layout.data(digest);
                get_small(&*self.bucket, &key, MAX_MANIFEST_BYTES).await?.map(|(content, _)| content)
            }
        };
        Ok(content.and_then(|content| Manifest::parse(&content, None).ok()).and_then(|manifest| manifest.subject))
    }

    async fn keys(&self, prefix: String) -> Result<Vec<Key>, BucketError> {
        let pages: Vec<Page> = self.pages(prefix, false).try_collect().await?;
        Ok(pages.into_iter().flat_map(|page| page.keys).collect())
    }

    /// The pages of a listing, each asked for when the one before it is used up.
    fn pages(&self, prefix: String, delimiter: bool) -> impl Stream<Item = Result<Page, BucketError>> {
        let first = ListOptions { prefix, delimiter, after: None, max: PAGE };
        stream::try_unfold(Some(first), move |options| async move {
            let Some(options) = options else { return Ok(None) };
            let page = self.bucket.list(options.clone()).await?;
            let next = page.next.clone().map(|after| ListOptions { after: Some(after), ..options });
            Ok(Some((page, next)))
        })
    }

    async fn delete_all(&self, keys: Vec<Key>) -> Result<(), BucketError> {
        stream::iter(keys)
            .map(|key| async move { self.bucket.delete(&key).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
            .map(|_| ())
    }
}

#[cfg(test)]
mod tests;
