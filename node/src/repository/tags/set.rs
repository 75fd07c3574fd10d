//! Pointing a tag to a manifest.

use super::attempts::Attempts;
use super::{Conditions, Current, TagError, Tags};
use crate::repository::layout::link_content;
use crate::store::Look;
use bytes::Bytes;
use entrepot_bucket::{BucketError, ETag, Put, PutBody, PutMode};
use entrepot_oci::{Digest, Repository, Tag};
use entrepot_runtime::crash;

impl Tags {
    /// Checks everything that is known before anything is written: that the tag may point to
    /// `digest`, and that the client's conditions hold.
    ///
    /// # Errors
    /// `Immutable` or `Precondition`.
    pub fn check(
        &self,
        tag: &Tag,
        digest: &Digest,
        current: &Current,
        conditions: &Conditions,
    ) -> Result<(), TagError> {
        if !conditions.hold(current.digest.as_ref()) {
            return Err(TagError::Precondition);
        }
        let points_elsewhere = current.digest.is_some_and(|current| current != *digest);
        if points_elsewhere && self.is_immutable(tag) {
            return Err(TagError::Immutable(tag.clone()));
        }
        Ok(())
    }

    /// Points the tag to a manifest that is durable and linked. `current` is the state of the tag
    /// when the push started. Costs one request in addition to the earlier read if the tag changes.
    /// Returns the manifest to which the tag pointed before.
    ///
    /// # Errors
    /// As [`Tags::check`]; `OutcomeUnknown`; or if the bucket fails for the whole budget. In the
    /// last two cases the tag may or may not point to the manifest.
    pub async fn set(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        mut current: Current,
        conditions: &Conditions,
    ) -> Result<Option<Digest>, TagError> {
        let mut attempts = Attempts::begin(self.retry_budget);
        loop {
            if current.digest == Some(*digest) {
                return Ok(current.digest);
            }
            if attempts.were_overtaken(current.version.as_ref()) {
                // Another write could restore a value that clients have already seen replaced.
                return Err(TagError::OutcomeUnknown);
            }
            self.check(tag, digest, &current, conditions)?;
            let look = self.store.tags.look(repository, tag);
            let failed = match self.put_current(repository, tag, digest, &current).await {
                Ok(Some(version)) => {
                    self.wrote(&look, repository, tag, digest, version);
                    return Ok(current.digest);
                }
                // Another write came first. Nothing was written.
                Ok(None) => None,
                Err(error) => Some(error),
            };
            attempts.next(current.version, failed).await?;
            current = self.current(repository, tag).await?;
        }
    }

    /// Replaces the version of the current link that was read. `None`: the link has another version
    /// now.
    async fn put_current(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        current: &Current,
    ) -> Result<Option<ETag>, BucketError> {
        let link = PutBody::Bytes(Bytes::from(link_content(digest)));
        let mode = PutMode::IfMatch(current.version.clone());
        let put = self.bucket.put(&self.key(repository, tag), link, mode).await?;
        crash::point("manifest.tag-written");
        Ok(match put {
            Put::Done(version) => Some(version),
            Put::Exists | Put::Changed => None,
        })
    }

    /// Writes a tag again that points to the manifest or does not exist, so that a deletion that
    /// has read it does not remove it afterwards. Does not overwrite another push that came in
    /// between.
    ///
    /// # Errors
    /// If the bucket fails. The tag may or may not point to the manifest then.
    pub async fn renew(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
        current: Current,
    ) -> Result<(), TagError> {
        let look = self.store.tags.look(repository, tag);
        if let Some(version) = self.put_current(repository, tag, digest, &current).await? {
            self.wrote(&look, repository, tag, digest, version);
        }
        Ok(())
    }

    /// Remembers a written value. If another value was seen meanwhile, the tag is forgotten,
    /// because it is unknown which value is newer.
    fn wrote(&self, look: &Look, repository: &Repository, tag: &Tag, digest: &Digest, version: ETag) {
        if !self.store.tags.remember(look, repository, tag, *digest, version) {
            self.store.tags.forget(repository, tag);
        }
    }
}
