//! Tags: which manifest a name in a repository points to.
//!
//! A tag is one small object, its current link. It changes only by conditional writes: a write names the version that
//! was read before, so that of two concurrent writes one reads again and decides again, and a write that hung and
//! arrives late finds another version and loses. CNCF Distribution also writes a history of the tag, one entry for each
//! manifest that it pointed to. Nothing reads it, so this registry does not write it: the folder of a tag that it wrote
//! holds the current link alone, and what is listed exists. A history that is there is removed before the current link.
//!
//! | what happens | between | result |
//! |---|---|---|
//! | another push | the read and the write | the write is refused, reads again, and wins as the last |
//! | another push | a write without an answer and the next read | unknown whether it took effect: 503, the client decides |
//! | a deletion | the read and the write | refused, reads again, and makes the tag anew |
//! | an attempt hangs | the read and the write | it is not repeated: 503, and it may still take effect |
//! | an attempt whose answer was lost arrives after the next | any | refused, because the next changed the version |
//! | crash | history removed and current link | the tag, whole, without history |
//!
//! S3 derives the version of an object from its content. A write that arrives late is therefore not refused if the tag
//! has returned to exactly the value that the write was based on, for example to nothing. A write that hung was not
//! acknowledged, so that its client knows that it may take effect later; S3 refuses it 15 minutes after it was signed.

mod attempts;
mod condition;
mod list;
mod remove;
mod set;

pub use condition::{Condition, Conditions};

use super::bucket::{Bucket, BucketError, ETag, get_small};
use super::layout::{Layout, read_link};
use super::links::MAX_LINK_BYTES;
use super::{Key, Store};
use crate::oci::{Digest, Repository, Tag};
use globset::GlobSet;
use std::sync::Arc;
use std::time::Duration;

/// Reads and changes tags. Clones share everything.
#[derive(Clone)]
pub struct Tags {
    bucket: Arc<dyn Bucket>,
    layout: Layout,
    store: Store,
    /// Tags that match are never changed or deleted.
    immutable: Arc<GlobSet>,
    /// How long a change that fails is tried again.
    retry_budget: Duration,
}

/// Why a tag was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    #[error("there is no such tag in this repository")]
    NotFound,
    #[error("the tag {0} matches tags.immutable and cannot be changed or deleted")]
    Immutable(Tag),
    /// The client's `If-Match` or `If-None-Match` does not hold.
    #[error("the tag does not fulfil If-Match or If-None-Match of the request")]
    Precondition,
    /// A write got no answer, and another write took effect since.
    #[error("the tag was changed by another request while a write of it had no answer; look at it and retry")]
    OutcomeUnknown,
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// A tag as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// The manifest; `None` if there is no tag, or its link is damaged and names nothing.
    pub digest: Option<Digest>,
    /// The version of the link; `None` if there is no link.
    version: Option<ETag>,
}

impl Current {
    /// Whether there is no link at all.
    pub fn is_absent(&self) -> bool {
        self.version.is_none()
    }
}

impl Tags {
    /// `retry_budget`: how long a change that fails is tried again.
    pub fn new(
        bucket: Arc<dyn Bucket>,
        layout: Layout,
        store: Store,
        immutable: GlobSet,
        retry_budget: Duration,
    ) -> Tags {
        Tags { bucket, layout, store, immutable: Arc::new(immutable), retry_budget }
    }

    /// Whether the tag can be pushed only once.
    pub fn is_immutable(&self, tag: &Tag) -> bool {
        self.immutable.is_match(tag.as_str())
    }

    /// Whether any tag is immutable.
    pub fn any_immutable(&self) -> bool {
        !self.immutable.is_empty()
    }

    /// What the tag is at this moment. One request.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
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
