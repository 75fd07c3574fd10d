//! A tag that points to a manifest which the repository does not link: a deletion was interrupted, or its answer was lost,
//! after it had removed the link, and a push of the same manifest came between. The push was acknowledged and the deletion
//! was not, so the link is made anew.
//!
//! A deletion removes the tags before the link. So a tag that still points to the manifest after its link was seen to be
//! gone was written by a push beside the deletion, and whoever makes the link anew keeps to the order of a push: the link
//! first, then a look at the tag.
//!
//! | what happens | between | result |
//! |---|---|---|
//! | the tag moves to another manifest | it was read and its link was asked for | the other manifest is served |
//! | the deletion goes on and removes the tag | the look at the tag and the new link | the look after it finds no tag: the link is removed again |
//! | the deletion goes on and removes the tag | the look after the link and the end | the deletion sees the link and restores the tag |

use super::{UploadError, Uploads};
use crate::oci::{Digest, Repository, Tag};
use crate::store::layout::LinkKind;

impl Uploads {
    /// The manifest that the tag points to now, after `digest` was found not to be linked; linked if it is the same.
    /// `None`: there is no such tag, or the bucket has lost the manifest.
    ///
    /// # Errors
    /// When the bucket fails.
    pub async fn relink(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<Option<Digest>, UploadError> {
        let (tags, links) = (&self.inner.tags, &self.inner.links);
        let now = tags.current(repository, tag).await?.digest;
        if now != Some(*digest) {
            return Ok(now);
        }
        if !self.has_data(digest).await? {
            return Ok(None);
        }
        tracing::warn!(%repository, %tag, %digest, "a tag points to a manifest without a link; making the link anew");
        links.write(repository, LinkKind::Revision, digest).await?;
        let now = tags.current(repository, tag).await?.digest;
        if now != Some(*digest) {
            links.remove(repository, LinkKind::Revision, digest).await?;
        }
        Ok(now)
    }
}
