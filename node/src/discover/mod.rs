//! Content discovery: lists of tags, referrers and repositories, a page at a time, read from the bucket.
//!
//! Pages are exact whatever changes between them: a page is all that follows `last` in the list's order, never a
//! position in something that moved. Nothing is kept between requests but descriptors of referrers, which never
//! change.

mod referrers;
mod repositories;
mod tags;

#[cfg(test)]
mod tests;

use crate::oci::manifest::Referrer;
use crate::oci::{Digest, Repository, Tag};
use crate::store::Layout;
use crate::store::bucket::{Bucket, BucketError};
use std::sync::Arc;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// There is more after the last item.
    pub more: bool,
}

impl<T> Listed<T> {
    /// The first `max` of `items`, which are all that there is or at least one more than that.
    fn first(max: usize, mut items: Vec<T>) -> Listed<T> {
        let more = items.len() > max;
        items.truncate(max);
        Listed { items, more }
    }
}

/// One page of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrers {
    pub items: Vec<Referrer>,
    /// The next page is what comes after this digest, which need not be that of an item: a page ends as well when many
    /// entries were looked at that are not listed. None: there is no more.
    pub next: Option<Digest>,
}

/// Keys asked for by one list request: the most that S3 gives.
const LIST_MAX: usize = 1000;

/// Content discovery. Clones share it.
#[derive(Clone)]
pub struct Discover {
    bucket: Arc<dyn Bucket>,
    layout: Layout,
    descriptors: Arc<referrers::Descriptors>,
}

impl Discover {
    pub fn new(bucket: Arc<dyn Bucket>, layout: Layout) -> Discover {
        Discover { bucket, layout, descriptors: Arc::new(referrers::Descriptors::new()) }
    }

    /// Tags of a repository after `last`, at most `max`, in the order of their bytes. `None` when there is no such
    /// repository.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn tags(
        &self,
        repository: &Repository,
        last: Option<&str>,
        max: usize,
    ) -> Result<Option<Listed<Tag>>, BucketError> {
        tags::page(&*self.bucket, &self.layout, repository, last, max).await
    }

    /// Manifests whose subject is `subject`, after the referrer `last`, at most `max` of them, in the order of their
    /// digests; `artifact_type` keeps only those of that type. Also those that a client listed under the fallback
    /// tag. Only those whose manifest the repository links now.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        max: usize,
    ) -> Result<Referrers, BucketError> {
        let query = referrers::Query { repository, subject, artifact_type, last, max };
        referrers::page(&*self.bucket, &self.layout, &self.descriptors, query).await
    }

    /// Repositories after `last`, at most `max`, in the order in which a bucket keeps their folders: that of their
    /// names with a `/` at the end, so that a repository comes right before those below it.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn repositories(&self, last: Option<&Repository>, max: usize) -> Result<Listed<Repository>, BucketError> {
        repositories::page(&*self.bucket, &self.layout, last, max).await
    }
}
