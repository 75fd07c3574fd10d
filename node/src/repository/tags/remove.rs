//! Removing tags.

use super::attempts::Attempts;
use super::{Current, Pass, Pointing, TagError, Tags};
use entrepot_bucket::{BucketError, Delete, ETag};
use entrepot_oci::{Digest, Repository, Tag};
use entrepot_runtime::crash;
use futures::{StreamExt, TryStreamExt, stream};

/// Number of tags that are removed at the same time.
const AT_ONCE: usize = 16;

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

/// Whether a tag was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// This call removed it. `digest`: the manifest to which it pointed, if it is known.
    Done { digest: Option<Digest> },
    /// There was nothing to remove.
    Missed,
}

impl Tags {
    /// Removes a tag; the manifest remains. Also removes what an interrupted push or deletion left
    /// of the tag. Returns the manifest to which the tag pointed, if it is known.
    ///
    /// # Errors
    /// `NotFound` if nothing of the tag exists; `Immutable`; or if the bucket fails, in which case
    /// the tag may be gone.
    pub async fn remove(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, TagError> {
        match self.remove_target(repository, tag, Target::Any, None, true).await? {
            Removal::Done { digest } => Ok(digest),
            Removal::Missed => Err(TagError::NotFound),
        }
    }

    /// Removes the tags that point to the manifest. Returns whether there were any. `left` is the
    /// number of tags that this request may still examine, at first [`super::EXAMINED`].
    ///
    /// # Errors
    /// `TooMany`: repeat the call to continue. `Immutable`, or if the bucket fails.
    pub async fn remove_pointing(
        &self,
        repository: &Repository,
        digest: &Digest,
        left: &mut usize,
    ) -> Result<bool, TagError> {
        let mut sweep = self.sweep(repository, digest, Pass::First, left);
        while let Some(pointing) = sweep.next().await? {
            stream::iter(pointing)
                .map(|found| self.remove_found(repository, found, digest))
                .buffer_unordered(AT_ONCE)
                .try_for_each(|_| std::future::ready(Ok(())))
                .await?;
        }
        Ok(sweep.end())
    }

    /// Removes a tag if it still points to the manifest. Returns whether this call removed it.
    ///
    /// # Errors
    /// `Immutable`, or if the bucket fails.
    pub async fn remove_found(
        &self,
        repository: &Repository,
        found: Pointing,
        digest: &Digest,
    ) -> Result<bool, TagError> {
        let Pointing { tag, current, has_history } = found;
        let removal = self.remove_target(repository, &tag, Target::Manifest(digest), Some(current), has_history);
        Ok(removal.await? != Removal::Missed)
    }

    /// `seen` is the state of the tag, if it was just read. Without a history, the first attempt does
    /// not look for one.
    async fn remove_target(
        &self,
        repository: &Repository,
        tag: &Tag,
        target: Target<'_>,
        mut seen: Option<Current>,
        mut has_history: bool,
    ) -> Result<Removal, TagError> {
        let mut attempts = Attempts::begin(self.retry_budget);
        loop {
            let current = match seen.take() {
                Some(current) => current,
                None => self.current(repository, tag).await?,
            };
            let Some(version) = current.version.clone() else {
                // Without a current link the tag does not exist, whatever else is in its directory.
                let any = self.remove_history(repository, tag).await?;
                let done = attempts.any_unanswered() || (any && matches!(target, Target::Any));
                return Ok(if done { Removal::Done { digest: None } } else { Removal::Missed });
            };
            if attempts.were_overtaken(Some(&version)) {
                // A push came after this removal, whether or not the removal took effect, so its
                // tag stays.
                return Ok(Removal::Done { digest: None });
            }
            if !target.is_hit(&current) {
                return Ok(Removal::Missed);
            }
            if self.is_immutable(tag) {
                return Err(TagError::Immutable(tag.clone()));
            }
            // The history, which CNCF Distribution writes, is removed first: if this is interrupted
            // afterwards, the tag is still complete.
            if std::mem::replace(&mut has_history, true) {
                self.remove_history(repository, tag).await?;
            }
            crash::point("delete.history-removed");
            let failed = match self.remove_version(repository, tag, &version).await {
                Ok(Delete::Done) => return Ok(Removal::Done { digest: current.digest }),
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
