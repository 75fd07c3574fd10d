//! Removing tags.

use super::attempts::Attempts;
use super::{Current, TagError, Tags};
use entrepot_bucket::{BucketError, Delete, ETag};
use entrepot_oci::{Digest, Repository, Tag};
use entrepot_runtime::crash;

/// The manifest that a tag must point to in order to be removed.
#[derive(Clone, Copy, Debug)]
enum Target<'a> {
    /// Any manifest or none: leftovers of a tag are removed too.
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
    /// Removes a tag; the manifest remains. Also removes what an interrupted push or deletion left
    /// of the tag.
    ///
    /// # Errors
    /// `NotFound` if nothing of the tag exists; `Immutable`; or if the bucket fails, in which case
    /// the tag may be gone.
    pub async fn remove(&self, repository: &Repository, tag: &Tag) -> Result<(), TagError> {
        if self.remove_target(repository, tag, Target::Any).await? { Ok(()) } else { Err(TagError::NotFound) }
    }

    /// Removes a tag if it points to the manifest. Returns whether this call removed it.
    ///
    /// # Errors
    /// `Immutable`, or if the bucket fails.
    pub async fn remove_if(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<bool, TagError> {
        self.remove_target(repository, tag, Target::Manifest(digest)).await
    }

    async fn remove_target(&self, repository: &Repository, tag: &Tag, target: Target<'_>) -> Result<bool, TagError> {
        let mut attempts = Attempts::begin(self.retry_budget);
        loop {
            let current = self.current(repository, tag).await?;
            let Some(version) = current.version.clone() else {
                // Without a current link the tag does not exist, whatever else is in its directory.
                let any = self.remove_history(repository, tag).await?;
                return Ok(attempts.any_unanswered() || (any && matches!(target, Target::Any)));
            };
            if attempts.were_overtaken(Some(&version)) {
                // A push came after this removal, whether or not the removal took effect, so its
                // tag stays.
                return Ok(true);
            }
            if !target.is_hit(&current) {
                return Ok(false);
            }
            if self.is_immutable(tag) {
                return Err(TagError::Immutable(tag.clone()));
            }
            // The history, which CNCF Distribution writes, is removed first: if this is interrupted
            // afterwards, the tag is still complete.
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
        self.store.tags.forget(repository, tag);
        let removed = self.bucket.delete_if_match(&self.key(repository, tag), version).await;
        self.store.tags.forget(repository, tag);
        crash::point("delete.tag-removed");
        removed
    }

    /// Removes everything of the tag except its current link. Returns whether anything existed.
    async fn remove_history(&self, repository: &Repository, tag: &Tag) -> Result<bool, BucketError> {
        let current = self.key(repository, tag);
        let mut keys = self.keys(self.layout.tag(repository, tag)).await?;
        // A push may have created the current link since.
        keys.retain(|key| *key != current);
        let any = !keys.is_empty();
        self.delete_all(keys).await?;
        Ok(any)
    }
}
