//! Content management: deletion of tags, manifests and blobs from a repository.
//!
//! This flow only removes links. It never removes content from the bucket, because other
//! repositories may link it (CNCF Distribution's `garbage-collect` removes unlinked content). Other
//! nodes may serve a deleted manifest or blob from their store for `links.freshFor`. A deleted
//! tag is gone at every node at once.
//!
//! The deletion of a manifest removes (1) its tags, (2) its entry among referrers and its link, and
//! (3) its tags again. A push of the same manifest writes the link and the tag, and then checks the
//! link again (`upload::manifest`).
//!
//! | event | time | result |
//! |---|---|---|
//! | a tag is moved to another manifest | between its read and its removal | the tag stays |
//! | the manifest is pushed with a tag | between 1 and 2 | step 3 removes the tag |
//! | the same, and the push sees that the link is gone | between 2 and 3 | the push recreates both; they stay |
//! | crash | between 1 and 2 | the manifest exists by digest; a repeated deletion continues |
//! | crash | between 2 and 3 | a repeated deletion removes tags that were pushed since |

mod protect;

use crate::repository::layout::LinkKind;
use crate::repository::tags::TagError;
use crate::repository::{Environment, Replicator};
use bytes::Bytes;
use entrepot_bucket::{BucketError, get_small};
use entrepot_oci::{Digest, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};
use entrepot_runtime::crash;
use std::sync::Arc;

/// Why something was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    #[error("not found")]
    NotFound,
    /// An immutable tag needs the content.
    #[error("this content cannot be deleted: tag {0} needs it and is immutable (tags.immutable)")]
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

/// Content management. Clones share it.
#[derive(Clone)]
pub struct Manage {
    env: Environment,
    replicator: Arc<dyn Replicator>,
}

impl Manage {
    pub fn new(env: Environment, replicator: Arc<dyn Replicator>) -> Manage {
        Manage { env, replicator }
    }

    /// Removes a tag; its manifest stays. Also removes the remains of a tag after an interrupted
    /// push or deletion.
    ///
    /// # Errors
    /// If there is no such tag, it is immutable, or the bucket fails.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), ManageError> {
        Ok(self.env.tags.remove(repository, tag).await?)
    }

    /// Removes a manifest from a repository, with the tags that refer to it and its entry among
    /// referrers. Reads the link of every tag of the repository twice.
    ///
    /// # Errors
    /// If it does not exist, an immutable tag needs it, or the bucket fails.
    pub async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        let Environment { links, tags, .. } = &self.env;
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
        // An entry among referrers must not outlive its manifest, so it is removed before the link.
        if let Some(subject) = self.subject_of(digest).await? {
            self.env.bucket.delete(&self.env.layout.referrer(repository, &subject, digest)).await?;
            self.env.fallback.remove(repository, &subject, digest).await?;
        }
        links.remove(repository, LinkKind::Revision, digest).await?;
        crash::point("delete.link-removed");
        // An immutable tag may have been pushed since the check above: its push relies on this
        // link.
        if let Some(tag) = self.protected_by(repository, digest).await? {
            links.write(repository, LinkKind::Revision, digest).await?;
            return Err(ManageError::Protected(tag));
        }
        self.remove_late_tags(repository, digest).await
    }

    /// Removes tags that were pushed for the manifest during its deletion. If the manifest is
    /// linked again, the push came after the deletion, and its tags stay.
    async fn remove_late_tags(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        let Environment { links, tags, .. } = &self.env;
        for tag in tags.pointing_to(repository, digest).await? {
            if links.ask(repository, LinkKind::Revision, digest).await? {
                return Ok(());
            }
            let removed = tags.remove_if(repository, &tag, digest).await?;
            // If the version of a link is derived from its content, a link that a push has just
            // rewritten cannot be told from the one that was there before.
            if removed && links.ask(repository, LinkKind::Revision, digest).await? {
                let current = tags.current(repository, &tag).await?;
                if current.is_absent() {
                    tags.renew(repository, &tag, digest, current).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes a blob from a repository; other repositories that link it keep it.
    ///
    /// # Errors
    /// If it does not exist, an immutable tag needs it, or the bucket fails.
    pub async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        let links = &self.env.links;
        // A pending blob would get its link after the deletion and so return.
        self.replicator.durable(repository, digest).await?;
        if !links.ask(repository, LinkKind::Layer, digest).await? {
            return Err(ManageError::NotFound);
        }
        self.refuse_protected(repository, digest).await?;
        links.remove(repository, LinkKind::Layer, digest).await?;
        crash::point("delete.blob-unlinked");
        // An immutable tag that was pushed in the meantime may rely on the link: its push checked
        // the link after writing its own.
        if let Some(tag) = self.protected_by(repository, digest).await? {
            links.write(repository, LinkKind::Layer, digest).await?;
            return Err(ManageError::Protected(tag));
        }
        Ok(())
    }

    /// The subject of the manifest. A manifest that cannot be read has no entry among referrers
    /// that could be found.
    async fn subject_of(&self, digest: &Digest) -> Result<Option<Digest>, BucketError> {
        let content = self.content_of(digest).await?;
        Ok(content.and_then(|content| Manifest::parse(&content, None).ok()).and_then(|manifest| manifest.subject))
    }

    async fn content_of(&self, digest: &Digest) -> Result<Option<Bytes>, BucketError> {
        if let Ok(Some(content)) = self.env.store.contents.read_small(digest).await {
            return Ok(Some(content));
        }
        let key = self.env.layout.data(digest);
        Ok(get_small(&*self.env.bucket, &key, MAX_MANIFEST_BYTES).await?.map(|(content, _)| content))
    }
}

#[cfg(test)]
mod tests;
