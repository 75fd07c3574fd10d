//! The last known values of tags.

use super::inner::Inner;
use super::looks::Look;
use super::tag_cache::KnownTag;
use entrepot_bucket::ETag;
use entrepot_oci::{Digest, Repository, Tag};
use std::sync::Arc;

/// The last known values of tags. Clones share the state.
#[derive(Clone)]
pub struct KnownTags {
    pub(super) inner: Arc<Inner>,
}

impl KnownTags {
    /// Starts a read or a write of a tag. Call it before asking the bucket.
    pub fn look(&self, repository: &Repository, tag: &Tag) -> Look {
        self.inner.tags.look(&(repository.clone(), tag.clone()), &self.inner.clock)
    }

    /// Remembers the bucket's value of a tag, unless a different value was remembered or the tag
    /// was forgotten since the look started. Returns whether it is remembered.
    pub fn remember(&self, look: &Look, repository: &Repository, tag: &Tag, digest: Digest, etag: ETag) -> bool {
        self.inner.tags.remember(look, (repository.clone(), tag.clone()), KnownTag { digest, etag, seen: look.at })
    }

    /// The tag as it was last read, if it is known.
    pub fn get(&self, repository: &Repository, tag: &Tag) -> Option<KnownTag> {
        self.inner.tags.get(repository, tag)
    }

    /// Forgets a tag. What was read before does not bring it back.
    pub fn forget(&self, repository: &Repository, tag: &Tag) {
        self.inner.tags.forget((repository.clone(), tag.clone()));
    }
}
