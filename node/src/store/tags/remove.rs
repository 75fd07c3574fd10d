//! Removing tags.

use super::attempts::Attempts;
use super::{Current, TagError, Tags};
use crate::oci::{Digest, Repository, Tag};
use crate::run::crash;
use crate::store::bucket::{BucketError, Delete, ETag};

/// What a tag must point to for its removal.
#[derive(Clone, Copy, Debug)]
enum Target<'a> {
    /// Anything, also nothing: leftovers of a tag are removed too.
    Any,
    /// Only this manifest, at the moment of the removal.
    Manifest(&'a Digest),
}

impl Target<'_> {
    fn is_hit(self, current: &Current) -> bool {
        match self {
            Target::Any => true,
            Target::Manifest(digest) => current.digest.as_ref() == Some(digest),
        }
    }
}

impl Tags {
    /// Removes a tag; the manifest stays. What an interrupted push or deletion left of a tag is removed as well.
    ///
    /// # Errors
    /// `NotFound` when there is nothing of the tag; `Immutable`; or when the bucket fails: the tag may be gone then.
    pub async fn remove(&self, repository: &Repository, tag: &Tag) -> Result<(), TagError> {
        if self.remove_target(repository, tag, Target::Any).await? { Ok(()) } else { Err(TagError::NotFound) }
    }

    /// Removes a tag as long as it points to the manifest. Returns whether it was removed by this call.
    ///
    /// # Errors
    /// `Immutable`, or when the bucket fails.
    pub async fn remove_if(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<bool, TagError> {
        self.remove_target(repository, tag, Target::Manifest(digest)).await
    }

    async fn remove_target(&self, repository: &Repository, tag: &Tag, target: Target<'_>) -> Result<bool, TagError> {
        let mut attempts = Attempts::begin(self.retry_budget);
        loop {
            let current = self.current(repository, tag).await?;
            let Some(version) = current.version.clone() else {
                // Without a current link there is no tag, whatever else lies in its folder.
                let any = self.remove_history(repository, tag).await?;
                return Ok(attempts.any_unanswered() || (any && matches!(target, Target::Any)));
            };
            if attempts.were_overtaken(Some(&version)) {
                // A push came after this removal, whether or not the removal took effect. It stays.
                return Ok(true);
            }
            if !target.is_hit(&current) {
                return Ok(false);
            }
            if self.is_immutable(tag) {
                return Err(TagError::Immutable(tag.clone()));
            }
            // The history, which CNCF Distribution writes, goes first: interrupted after it, the tag is whole.
            self.remove_history(repository, tag).await?;
            crash::point("delete.history-removed");
            let failed = match self.remove_version(repository, tag, &version).await {
                Ok(Delete::Done) => return Ok(true),
                Ok(Delete::Changed) => None,
                Err(error) => Some(error),
            };
            attempts.next(Some(version), failed).await?;
        }
    }

    async fn remove_version(&self, repository: &Repository, tag: &Tag, version: &ETag) -> Result<Delete, BucketError> {
        self.store.forget_tag(repository, tag);
        let removed = self.bucket.delete_if_match(&self.key(repository, tag), version).await;
        self.store.forget_tag(repository, tag);
        crash::point("delete.tag-removed");
        removed
    }

    /// Removes everything of the tag but its current link. Returns whether there was anything.
    async fn remove_history(&self, repository: &Repository, tag: &Tag) -> Result<bool, BucketError> {
        let current = self.key(repository, tag);
        let mut keys = self.keys(self.layout.tag(repository, tag)).await?;
        // A push may have made it since.
        keys.retain(|key| *key != current);
        let any = !keys.is_empty();
        self.delete_all(keys).await?;
        Ok(any)
    }
}
