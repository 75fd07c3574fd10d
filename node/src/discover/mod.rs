//! Content discovery: paginated lists of tags, referrers and repositories, read from the bucket.
//!
//! Pages are exact even if content changes between them: a page contains everything that follows
//! `last` in the order of the list, and never depends on a position. This flow never writes, and
//! keeps nothing between requests except descriptors of referrers, which never change.
//!
//! A request to this registry costs a limited number of requests to the bucket, whatever was pushed.
//! At the limit, the page ends early and names the position at which the next page begins. Such a
//! page may be empty.

mod referrers;
mod repositories;
mod tags;

#[cfg(test)]
mod tests;

use crate::repository::Layout;
use entrepot_bucket::{Bucket, BucketError};
use entrepot_oci::manifest::Referrer;
use entrepot_oci::{Digest, Repository, Tag};
pub use repositories::Scope;
use std::sync::Arc;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The items in the order of their bytes.
    pub items: Vec<T>,
    /// The `last` of the next page. It need not be an item. `None`: this is the last page.
    pub next: Option<String>,
}

impl<T: ToString> Listed<T> {
    /// The first `max` of `items`. `items` has all entries, or at least one more than `max`.
    fn first(max: usize, mut items: Vec<T>) -> Listed<T> {
        let more = items.len() > max;
        items.truncate(max);
        let next = items.last().filter(|_| more).map(ToString::to_string);
        Listed { items, next }
    }
}

/// One page of referrers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrers {
    /// The referrers in the order of their digests.
    pub items: Vec<Referrer>,
    /// The next page begins after this digest. It need not be the digest of an item, because a page
    /// also ends after many entries that are not listed. `None`: this is the last page.
    pub next: Option<Digest>,
}

/// Maximum number of keys per list request, which is the limit of S3.
const LIST_MAX: usize = 1000;
/// Maximum number of list requests for one page of tags or repositories. List requests are the most
/// expensive ones of S3. A page of 10,000 tags needs ten.
const LISTS: usize = 64;

/// Content discovery. Clones share it.
#[derive(Clone)]
pub struct Discover {
    bucket: Arc<dyn Bucket>,
    layout: Layout,
    descriptors: Arc<referrers::Descriptors>,
}

impl Discover {
    /// Lists this bucket.
    pub fn new(bucket: Arc<dyn Bucket>, layout: Layout) -> Discover {
        Discover { bucket, layout, descriptors: Arc::new(referrers::Descriptors::new()) }
    }

    /// At most `max` tags of a repository after `last`, in the order of their bytes. `None` if
    /// there is no such repository.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn tags(
        &self,
        repository: &Repository,
        last: Option<&str>,
        max: usize,
    ) -> Result<Option<Listed<Tag>>, BucketError> {
        tags::page(&*self.bucket, &self.layout, repository, last, max).await
    }

    /// At most `max` manifests whose subject is `subject`, after the referrer `last`, in the order
    /// of their digests. `artifact_type` selects those of one type. Includes those that a client
    /// listed under the fallback tag. A manifest is included only if the repository links it now.
    ///
    /// # Errors
    /// If the bucket fails.
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

    /// At most `max` repositories of a scope after `last`, in the order of their keys: by name
    /// followed by `/_`. `last` is a name, or the `next` of a page.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn repositories(
        &self,
        scope: &Scope<'_>,
        last: Option<&str>,
        max: usize,
    ) -> Result<Listed<Repository>, BucketError> {
        repositories::page(&*self.bucket, &self.layout, scope, last, repositories::Limits::of(max)).await
    }
}
