//! Content management: deletion of tags, manifests and blobs from a repository.
//!
//! Only links are removed; the bytes stay in the bucket for other repositories (CNCF Distribution's `garbage-collect`
//! removes what nothing links). Other nodes may serve what they store of a deleted manifest or blob for
//! `fetch.linksFreshFor`; a deleted tag is gone at every node at once.
//!
//! Deleting a manifest: its tags, its entry among referrers, its link, and then its tags again. A push of the same
//! manifest writes link, tag, and looks at the link again (`upload::manifest`).
//!
//! | what happens | between | result |
//! |---|---|---|
//! | a tag is moved to another manifest | reading it and removing it | the tag stays |
//! | the manifest is pushed with a tag | the tags and the link | the second look finds the tag and removes it |
//! | the same, and the push sees that the link is gone | the link and the second look | link and tag are made anew and stay |
//! | crash | the tags and the link | the manifest by digest; repeated, the deletion goes on |
//! | crash | the link and the second look | repeated, the deletion removes tags that were pushed meanwhile |

mod protect;

use crate::oci::{Digest, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};
use crate::run::crash;
use crate::store::bucket::{Bucket, BucketError, get_small};
use crate::store::layout::LinkKind;
use crate::store::tags::TagError;
use crate::store::{Fallback, Layout, Links, Replicator, Store, Tags};
use bytes::Bytes;
use std::sync::Arc;

/// Why something was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    #[error("not found")]
    NotFound,
    /// An immutable tag needs the content.
    #[error("the tag {0} matches tags.immutable and needs this content; it cannot be deleted")]
    Protected(Tag),
    #[error(transparent)]
    Tag(TagError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

impl From<TagError> for ManageError {
    fn from(error: TagError) -> ManageError {
        match error {
            TagError::NotFound => ManageError::NotFound,
            TagError::Bucket(error) => ManageError::Bucket(error),
            other => ManageError::Tag(other),
        }
    }
}

/// What content management is made of.
pub struct ManageParts {
    pub bucket: Arc<dyn Bucket>,
    pub layout: Layout,
    pub store: Store,
    pub links: Links,
    pub tags: Tags,
    pub fallback: Fallback,
    pub replicator: Arc<dyn Replicator>,
}

/// Content management. Clones share it.
#[derive(Clone)]
pub struct Manage {
    parts: Arc<ManageParts>,
}

impl Manage {
    pub fn new(parts: ManageParts) -> Manage {
        Manage { parts: Arc::new(parts) }
    }

    /// Removes a tag; the manifest stays. What an interrupted push or deletion left of a tag is removed as well.
    ///
    /// # Errors
    /// When there is no such tag, it is immutable, or the bucket fails.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), ManageError> {
        Ok(self.parts.tags.remove(repository, tag).await?)
    }

    /// Removes a manifest from a repository, with the tags that point to it and its entry among referrers. Reads the
    /// link of every tag of the repository twice.
    ///
    /// # Errors
    /// When it is not there, an immutable tag needs it, or the bucket fails.
    pub async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        let ManageParts { links, tags, .. } = &*self.parts;
        let linked = links.ask(repository, LinkKind::Revision, digest).await?;
        let pointing = tags.pointing_to(repository, digest).await?;
        if !linked && pointing.is_empty() {
            return Err(ManageError::NotFound);
        }
        self.refuse_protected(repository, digest).await?;
        for tag in &pointing {
            tags.remove_if(repository, tag, digest).await?;
        }
        crash::point("delete.tags-removed");
        // An entry among referrers must not outlive the manifest that it names.
        if let Some(subject) = self.subject_of(digest).await? {
            self.parts.bucket.delete(&self.parts.layout.referrer(repository, &subject, digest)).await?;
            self.parts.fallback.remove(repository, &subject, digest).await?;
        }
        links.remove(repository, LinkKind::Revision, digest).await?;
        crash::point("delete.link-removed");
        if let Some(tag) = self.protected_by(repository, digest).await? {
            links.write(repository, LinkKind::Revision, digest).await?;
            return Err(ManageError::Protected(tag));
        }
        self.remove_late_tags(repository, digest).await
    }

    /// Removes tags that were pushed to the manifest while it was deleted, unless it was linked again: then the push
    /// came after the deletion.
    async fn remove_late_tags(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        let ManageParts { links, tags, .. } = &*self.parts;
        for tag in tags.pointing_to(repository, digest).await? {
            if links.ask(repository, LinkKind::Revision, digest).await? {
                return Ok(());
            }
            let removed = tags.remove_if(repository, &tag, digest).await?;
            // Where the version of a link is derived from its content, a push that has just written the same link
            // again cannot be told from the link that was there before.
            if removed && links.ask(repository, LinkKind::Revision, digest).await? {
                let current = tags.current(repository, &tag).await?;
                if current.is_absent() {
                    tags.renew(repository, &tag, digest, current).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes a blob from a repository; others that link it keep it.
    ///
    /// # Errors
    /// When it is not there, an immutable tag needs it, or the bucket fails.
    pub async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        let links = &self.parts.links;
        // A pending blob would get its link after the deletion and be back.
        self.parts.replicator.durable(repository, digest).await?;
        if !links.ask(repository, LinkKind::Layer, digest).await? {
            return Err(ManageError::NotFound);
        }
        self.refuse_protected(repository, digest).await?;
        links.remove(repository, LinkKind::Layer, digest).await?;
        crash::point("delete.blob-unlinked");
        // An immutable tag that was pushed meanwhile may rely on the link: its push looked at the link after it had
        // written its own.
        if let Some(tag) = self.protected_by(repository, digest).await? {
            links.write(repository, LinkKind::Layer, digest).await?;
            return Err(ManageError::Protected(tag));
        }
        Ok(())
    }

    /// The manifest that the manifest refers to. A manifest that cannot be read has no entry among referrers that could
    /// be found.
    async fn subject_of(&self, digest: &Digest) -> Result<Option<Digest>, BucketError> {
        let content = self.content_of(digest).await?;
        Ok(content.and_then(|content| Manifest::parse(&content, None).ok()).and_then(|manifest| manifest.subject))
    }

    async fn content_of(&self, digest: &Digest) -> Result<Option<Bytes>, BucketError> {
        if let Ok(Some(content)) = self.parts.store.read_small(digest).await {
            return Ok(Some(content));
        }
        let key = self.parts.layout.data(digest);
        Ok(get_small(&*self.parts.bucket, &key, MAX_MANIFEST_BYTES).await?.map(|(content, _)| content))
    }
}

#[cfg(test)]
mod tests;
