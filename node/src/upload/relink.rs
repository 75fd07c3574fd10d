//! Restores the link of a manifest that a tag points to. A deletion was interrupted, or its answer
//! was lost, after it had removed the link, and a push of the same manifest came in between. The
//! push was acknowledged and the deletion was not, so the link is written again.
//!
//! A deletion removes the tags before the link. A tag that still points to the manifest after its
//! link was found missing was therefore written by a push that ran concurrently with the deletion.
//! Restoring the link follows the order of a push: the link first, then a check of the tag.
//!
//! | what happens | between | result |
//! |---|---|---|
//! | the tag moves to another manifest | reading it and looking up its link | the other manifest is served |
//! | the deletion removes the tag | the check and the new link | the next check finds no tag and removes the link |
//! | the deletion removes the tag | the second check and the end | the deletion sees the link and restores the tag |

use super::{UploadError, Uploads};
use crate::repository::layout::LinkKind;
use entrepot_oci::{Digest, Repository, Tag};

impl Uploads {
    /// The manifest that the tag points to now, after `digest` was found not to be linked. If it is
    /// still `digest`, the link is restored. `None`: the tag does not exist, or the bucket has lost
    /// the manifest.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn relink(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<Option<Digest>, UploadError> {
        let (tags, links) = (&self.inner.env.tags, &self.inner.env.links);
        let now = tags.current(repository, tag).await?.digest;
        if now != Some(*digest) {
            return Ok(now);
        }
        if self.data_size(digest).await?.is_none() {
            return Ok(None);
        }
        tracing::warn!(%repository, %tag, %digest, "a tag points to a manifest without a link; restoring the link");
        links.write(repository, LinkKind::Revision, digest).await?;
        let now = tags.current(repository, tag).await?.digest;
        if now != Some(*digest) {
            links.remove(repository, LinkKind::Revision, digest).await?;
        }
        Ok(now)
    }
}
