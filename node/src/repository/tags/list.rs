//! Listing the tags of a repository, and the keys of one tag.

use super::Tags;
use entrepot_bucket::Key;
use entrepot_bucket::{BucketError, ListOptions, Page};
use entrepot_oci::{Digest, Repository, Tag};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::collections::HashSet;

/// Number of concurrent requests of one operation.
const AT_ONCE: usize = 16;
/// Keys requested per page; S3 returns at most this many.
pub(super) const PAGE: usize = 1000;

impl Tags {
    /// The immutable tags of the repository, apart from `known`, and the manifests that they point
    /// to. At most one more than `most`.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn immutable(
        &self,
        repository: &Repository,
        known: &HashSet<Tag>,
        most: usize,
    ) -> Result<Vec<(Tag, Digest)>, BucketError> {
        self.names(repository)
            .try_filter(|tag| std::future::ready(self.is_immutable(tag) && !known.contains(tag)))
            .take(most + 1)
            .map_ok(|tag| async move {
                let current = self.current(repository, &tag).await?;
                Ok(current.digest.map(|digest| (tag, digest)))
            })
            .try_buffered(AT_ONCE)
            .try_filter_map(|tag| async move { Ok(tag) })
            .try_collect()
            .await
    }

    /// The names of the tags that have a directory.
    fn names(&self, repository: &Repository) -> impl Stream<Item = Result<Tag, BucketError>> {
        let prefix = self.layout.tags(repository);
        self.pages(prefix.clone(), true)
            .map_ok(move |page| {
                let names = page.prefixes.iter().filter_map(|folder| folder.strip_prefix(&prefix)?.strip_suffix('/'));
                stream::iter(names.filter_map(|name| Tag::parse(name).ok()).map(Ok).collect::<Vec<_>>())
            })
            .try_flatten()
    }

    pub(super) async fn keys(&self, prefix: String) -> Result<Vec<Key>, BucketError> {
        let pages: Vec<Page> = self.pages(prefix, false).try_collect().await?;
        Ok(pages.into_iter().flat_map(|page| page.keys).collect())
    }

    /// The pages of a listing. Each is requested when the previous one is used up.
    fn pages(&self, prefix: String, delimiter: bool) -> impl Stream<Item = Result<Page, BucketError>> {
        let first = ListOptions { prefix, delimiter, after: None, max: PAGE };
        stream::try_unfold(Some(first), move |options| async move {
            let Some(options) = options else { return Ok(None) };
            let page = self.bucket.list(options.clone()).await?;
            let next = page.next.clone().map(|after| ListOptions { after: Some(after), ..options });
            Ok(Some((page, next)))
        })
    }

    pub(super) async fn delete_all(&self, keys: Vec<Key>) -> Result<(), BucketError> {
        stream::iter(keys)
            .map(|key| async move { self.bucket.delete(&key).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
            .map(|_| ())
    }
}
