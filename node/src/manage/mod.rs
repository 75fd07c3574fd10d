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
//! | the node has examined as many tags as one request may | in 1 or 3 | 503; a repeated deletion continues |
//! | crash | between 2 and 3 | a repeated deletion removes tags that were pushed since |
//!
//! # Cancellation
//!
//! A deletion continues in the background if its client disconnects, because a deletion that ends
//! after a removal would skip the check that follows it. It still counts as one of
//! `http.maxRequests`.

mod protect;

use crate::repository::layout::LinkKind;
use crate::repository::tags::{EXAMINED, Pass, Pointing, TagError};
use crate::repository::{Environment, Replicator};
use bytes::Bytes;
use entrepot_bucket::{BucketError, get_small};
use entrepot_oci::{Digest, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};
use entrepot_runtime::crash;
use protect::Protection;
use std::sync::Arc;

/// Why something was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// The repository does not have it.
    #[error("not found")]
    NotFound,
    /// An immutable tag needs the content.
    #[error("this content cannot be deleted: tag {0} needs it and is immutable (tags.immutable)")]
    Protected(Tag),
    /// There are too many manifests to check whether an immutable tag needs the content.
    #[error(
        "this content cannot be deleted: the immutable tags (tags.immutable) of this repository have more than {0} \
         manifests, too many to check whether one of them needs it"
    )]
    Unchecked(usize),
    /// The node has stopped and abandoned the work. The client repeats the request.
    #[error("the node is shutting down; retry the deletion")]
    Stopping,
    /// The tag could not be changed.
    #[error(transparent)]
    Tag(TagError),
    /// The bucket failed.
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
    /// The flow over these parts.
    pub fn new(env: Environment, replicator: Arc<dyn Replicator>) -> Manage {
        Manage { env, replicator }
    }

    /// Removes a tag; its manifest stays. Also removes the remains of a tag after an interrupted
    /// push or deletion. Returns the manifest to which the tag pointed, if it is known.
    ///
    /// # Errors
    /// If there is no such tag, it is immutable, or the bucket fails.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, ManageError> {
        Ok(self.env.tags.remove(repository, tag).await?)
    }

    /// Removes a manifest from a repository, with the tags that refer to it and its entry among
    /// referrers. Reads the link of every tag of the repository twice. `held` is kept until the
    /// deletion ends, also if this future is dropped.
    ///
    /// # Errors
    /// If it does not exist, an immutable tag needs it, or the bucket fails. `TagError::TooMany` if the
    /// repository has more tags than one call examines: a repeated call continues.
    pub async fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        held: impl Send + 'static,
    ) -> Result<(), ManageError> {
        let (manage, repository, digest) = (self.clone(), repository.clone(), *digest);
        self.to_the_end(held, async move { manage.remove_manifest(&repository, &digest).await }).await
    }

    /// Runs a deletion that continues if its client disconnects.
    async fn to_the_end(
        &self,
        held: impl Send + 'static,
        deletion: impl Future<Output = Result<(), ManageError>> + Send + 'static,
    ) -> Result<(), ManageError> {
        let work = async move {
            let _held = held;
            deletion.await
        };
        self.env.tasks.complete("delete", work).await.unwrap_or(Err(ManageError::Stopping))
    }

    async fn remove_manifest(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        let Environment { links, tags, .. } = &self.env;
        let mut left = EXAMINED;
        let linked = links.ask(repository, LinkKind::Revision, digest).await?;
        if !linked && tags.is_interrupted_late(repository, digest) {
            return self.remove_late_tags(repository, digest, &mut left).await;
        }
        let mut protection = Protection::new(self, repository, digest);
        if linked {
            protection.refuse().await?;
        }
        if !tags.remove_pointing(repository, digest, &mut left).await? && !linked {
            return Err(ManageError::NotFound);
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
        if let Err(error) = protection.refuse().await {
            links.write(repository, LinkKind::Revision, digest).await?;
            return Err(error);
        }
        self.remove_late_tags(repository, digest, &mut left).await
    }

    /// Removes tags that were pushed for the manifest during its deletion. If the manifest is
    /// linked again, the push came after the deletion, and its tags stay.
    async fn remove_late_tags(
        &self,
        repository: &Repository,
        digest: &Digest,
        left: &mut usize,
    ) -> Result<(), ManageError> {
        let mut sweep = self.env.tags.sweep(repository, digest, Pass::Late, left);
        while let Some(pointing) = sweep.next().await? {
            for found in pointing {
                if !self.remove_late_tag(repository, digest, found).await? {
                    sweep.end();
                    return Ok(());
                }
            }
        }
        sweep.end();
        Ok(())
    }

    /// `false`: the manifest is linked again.
    async fn remove_late_tag(
        &self,
        repository: &Repository,
        digest: &Digest,
        found: Pointing,
    ) -> Result<bool, ManageError> {
        let Environment { links, tags, .. } = &self.env;
        if links.ask(repository, LinkKind::Revision, digest).await? {
            return Ok(false);
        }
        let tag = found.tag.clone();
        let removed = tags.remove_found(repository, found, digest).await?;
        // If the version of a link is derived from its content, a link that a push has just rewritten
        // cannot be told from the one that was there before.
        if removed && links.ask(repository, LinkKind::Revision, digest).await? {
            let current = tags.current(repository, &tag).await?;
            if current.is_absent() {
                tags.renew(repository, &tag, digest, current).await?;
            }
        }
        Ok(true)
    }

    /// Removes a blob from a repository; other repositories that link it keep it. `held` is kept
    /// until the deletion ends, also if this future is dropped.
    ///
    /// # Errors
    /// If it does not exist, an immutable tag needs it, or the bucket fails.
    pub async fn delete_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        held: impl Send + 'static,
    ) -> Result<(), ManageError> {
        let (manage, repository, digest) = (self.clone(), repository.clone(), *digest);
        self.to_the_end(held, async move { manage.remove_blob(&repository, &digest).await }).await
    }

    async fn remove_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        let links = &self.env.links;
        // A pending blob would get its link after the deletion and so return.
        self.replicator.durable(repository, digest).await?;
        if !links.ask(repository, LinkKind::Layer, digest).await? {
            return Err(ManageError::NotFound);
        }
        let mut protection = Protection::new(self, repository, digest);
        protection.refuse().await?;
        links.remove(repository, LinkKind::Layer, digest).await?;
        crash::point("delete.blob-unlinked");
        // An immutable tag that was pushed in the meantime may rely on the link: its push checked
        // the link after writing its own.
        if let Err(error) = protection.refuse().await {
            links.write(repository, LinkKind::Layer, digest).await?;
            return Err(error);
        }
        Ok(())
    }

    /// The subject of the manifest. A manifest that cannot be read has no entry among referrers
    /// that could be found.
    async fn subject_of(&self, digest: &Digest) -> Result<Option<Digest>, BucketError> {
        let content = self.content_of(digest).await?;
        let manifest = content.and_then(|content| Manifest::parse(&content, None).ok());
        Ok(manifest.and_then(|manifest| manifest.subject).map(|subject| subject.digest))
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
