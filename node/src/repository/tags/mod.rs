//! Tags: the names of manifests in a repository.
//!
//! A tag is one small object, its current link. It changes only by conditional writes, which name
//! the version that was read before. Of two concurrent writes, one is therefore rejected, reads the
//! tag again and decides again. A delayed write that arrives late finds another version and is
//! rejected. CNCF Distribution also writes a history of the tag, one entry for each manifest that
//! the tag pointed to. Nothing reads it, so this registry does not write it: the directory of a tag
//! that it wrote contains only the current link, and every listed tag exists. An existing history
//! is removed before the current link.
//!
//! | what happens | between | result |
//! |---|---|---|
//! | another push | the read and the write | the write is rejected, reads again, and wins as the last one |
//! | another push | a write without an answer and the next read | its effect is unknown: 503, the client decides |
//! | a deletion | the read and the write | the write is rejected, reads again, and creates the tag again |
//! | an attempt times out | the read and the write | it is not repeated: 503, and it may still take effect |
//! | an attempt with a lost answer arrives after the next | any | rejected, because the next one changed the version |
//! | crash | removal of the history and of the current link | the tag remains complete, without history |
//!
//! S3 derives the version of an object from its content. A late write is therefore not rejected if
//! the tag has returned to exactly the value that the write was based on, for example to
//! nonexistence. A write that timed out was not acknowledged, so its client knows that it may take
//! effect later. S3 rejects it 15 minutes after it was signed.

mod attempts;
mod condition;
mod list;
mod remove;
mod set;
mod sweep;

pub use condition::{Condition, Conditions};
use sweep::Interrupted;
pub use sweep::{EXAMINED, Pass, Pointing, Sweep};

use super::layout::{Layout, read_link};
use super::links::MAX_LINK_BYTES;
use crate::store::Store;
use entrepot_bucket::Key;
use entrepot_bucket::{Bucket, BucketError, ETag, get_small};
use entrepot_config::TagPatterns;
use entrepot_oci::{Digest, Repository, Tag};
use std::sync::Arc;
use std::time::Duration;

/// Reads and changes tags. Clones share the state.
#[derive(Clone)]
pub struct Tags {
    bucket: Arc<dyn Bucket>,
    layout: Layout,
    store: Store,
    /// Tags that match are never changed or deleted.
    immutable: Arc<TagPatterns>,
    /// How long a failed change is retried.
    retry_budget: Duration,
    interrupted: Arc<Interrupted>,
}

/// Why a tag was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// The repository has no such tag.
    #[error("unknown tag in this repository")]
    NotFound,
    /// `tags.immutable` matches the tag, so it can be neither deleted nor moved.
    #[error("tag \"{0}\" is immutable (tags.immutable): it cannot be deleted or point to another manifest")]
    Immutable(Tag),
    /// The client's `If-Match` or `If-None-Match` does not hold.
    #[error("the current manifest does not satisfy If-Match or If-None-Match")]
    Precondition,
    /// A write got no answer, and another write took effect since.
    #[error("the tag was changed concurrently and the result of this request is unknown; read the tag and retry")]
    OutcomeUnknown,
    /// One request has examined as many tags as it may.
    #[error("this repository has too many tags to find those of the manifest in one request; repeat it to continue")]
    TooMany,
    /// The bucket failed. The tag may have changed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// The state of a tag as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// The manifest; `None` if the tag does not exist, or if its link is damaged.
    pub digest: Option<Digest>,
    /// The version of the link; `None` if the link does not exist.
    version: Option<ETag>,
}

impl Current {
    /// Whether the link does not exist.
    pub fn is_absent(&self) -> bool {
        self.version.is_none()
    }
}

impl Tags {
    /// `retry_budget`: how long a failed change is retried.
    pub fn new(
        bucket: Arc<dyn Bucket>,
        layout: Layout,
        store: Store,
        immutable: TagPatterns,
        retry_budget: Duration,
    ) -> Tags {
        Tags {
            bucket,
            layout,
            store,
            immutable: Arc::new(immutable),
            retry_budget,
            interrupted: Arc::new(Interrupted::new()),
        }
    }

    /// Whether the tag is immutable: once it points to a manifest, it cannot be changed or deleted.
    pub fn is_immutable(&self, tag: &Tag) -> bool {
        self.immutable.matches(tag.as_str())
    }

    /// Whether any tag is immutable.
    pub fn any_immutable(&self) -> bool {
        !self.immutable.is_empty()
    }

    /// The current state of the tag. One request.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn current(&self, repository: &Repository, tag: &Tag) -> Result<Current, BucketError> {
        let key = self.layout.tag_current(repository, tag);
        Ok(match get_small(&*self.bucket, &key, MAX_LINK_BYTES).await? {
            Some((link, version)) => Current { digest: read_link(&link), version: Some(version) },
            None => Current::default(),
        })
    }

    fn key(&self, repository: &Repository, tag: &Tag) -> Key {
        self.layout.tag_current(repository, tag)
    }
}

#[cfg(test)]
mod tests;
