//! Tags in the order of their bytes, although a bucket lists them in another order: it lists the
//! directories `v1-a/` and `v1.2/` before `v1/`, because `-` and `.` sort before `/`.
//!
//! A tag is held back only while a shorter tag that it starts with may still follow. If a page
//! would wait for a long part of the listing, the shorter tag is requested separately.

use super::{LIST_MAX, Listed};
use crate::repository::Layout;
use entrepot_bucket::{Bucket, BucketError, ListOptions};
use entrepot_oci::{Repository, Tag};
use std::collections::{BTreeSet, HashSet};

/// See [`super::Discover::tags`].
pub(super) async fn page(
    bucket: &dyn Bucket,
    layout: &Layout,
    repository: &Repository,
    last: Option<&str>,
    max: usize,
) -> Result<Option<Listed<Tag>>, BucketError> {
    list(bucket, layout, repository, last, max, LIST_MAX).await
}

/// As [`page`], with list requests for `at_once` directories.
pub(super) async fn list(
    bucket: &dyn Bucket,
    layout: &Layout,
    repository: &Repository,
    last: Option<&str>,
    max: usize,
    at_once: usize,
) -> Result<Option<Listed<Tag>>, BucketError> {
    let prefix = layout.tags(repository);
    let last = last.unwrap_or_default();
    let mut order = Order::new(last);
    // Without the `/`, because `v1-a/` and `v1.2/` follow the tag `v1` but are listed before `v1/`.
    let mut after = (!last.is_empty()).then(|| format!("{prefix}{last}"));
    let mut any = false;
    loop {
        let options = ListOptions { prefix: prefix.clone(), delimiter: true, after, max: at_once };
        let listing = bucket.list(options).await?;
        any |= !listing.prefixes.is_empty();
        for folder in &listing.prefixes {
            order.listed(folder.strip_prefix(&prefix).unwrap_or(folder));
        }
        after = listing.next;
        if after.is_none() {
            order.end();
        }
        order.release();
        while after.is_some() && order.ready.len() <= max && order.held.len() > max {
            let Some(missing) = order.obstacle() else { break };
            let there = !list_one(bucket, format!("{prefix}{missing}/"), None).await?.is_empty();
            order.answered(missing, there);
            order.release();
        }
        if after.is_none() || order.ready.len() > max {
            break;
        }
    }
    if !any && !is_repository(bucket, layout, repository).await? {
        return Ok(None);
    }
    Ok(Some(Listed::first(max, order.ready)))
}

/// Whether anything was ever pushed to the repository. A directory that only contains other
/// repositories is not one.
async fn is_repository(bucket: &dyn Bucket, layout: &Layout, repository: &Repository) -> Result<bool, BucketError> {
    let folder = layout.repository(repository);
    // The first name after `_l` is `_layers`, else `_manifests`, else a name that does not make a
    // repository.
    let first = list_one(bucket, folder.clone(), Some(format!("{folder}_l"))).await?;
    let name = first.strip_prefix(&folder).unwrap_or_default();
    Ok(name == "_layers/" || name == "_manifests/")
}

/// The first key or directory after `after`; empty if there is none.
async fn list_one(bucket: &dyn Bucket, prefix: String, after: Option<String>) -> Result<String, BucketError> {
    let listing = bucket.list(ListOptions { prefix, delimiter: true, after, max: 1 }).await?;
    let key = listing.keys.first().map(|key| key.as_str().to_owned());
    Ok(listing.prefixes.into_iter().next().or(key).unwrap_or_default())
}

/// Converts tags from the order of their directories to the order of their bytes.
struct Order<'a> {
    /// Tags up to this one are left out.
    last: &'a str,
    /// The directory listed last, without its `/`.
    reached: String,
    ended: bool,
    /// Listed tags that are not yet known to be next.
    held: BTreeSet<Tag>,
    /// Tags that were requested separately, whether they exist or not.
    asked: HashSet<Tag>,
    /// Tags in their final order. Nothing can follow that belongs between them.
    ready: Vec<Tag>,
}

impl<'a> Order<'a> {
    fn new(last: &'a str) -> Order<'a> {
        Order {
            last,
            reached: String::new(),
            ended: false,
            held: BTreeSet::new(),
            asked: HashSet::new(),
            ready: Vec::new(),
        }
    }

    /// Adds a listed directory, which may not be the directory of a tag.
    fn listed(&mut self, folder: &str) {
        let name = folder.trim_end_matches('/');
        self.reached = name.to_owned();
        if let Ok(tag) = Tag::parse(name)
            && name > self.last
            && !self.asked.contains(&tag)
        {
            self.held.insert(tag);
        }
    }

    fn end(&mut self) {
        self.ended = true;
    }

    /// The result for the tag that [`Order::obstacle`] returned.
    fn answered(&mut self, tag: Tag, there: bool) {
        if there {
            self.held.insert(tag.clone());
        }
        self.asked.insert(tag);
    }

    /// Moves all tags to `ready` that no other tag can precede any more.
    fn release(&mut self) {
        while self.obstacle().is_none() {
            let Some(tag) = self.held.pop_first() else { return };
            self.ready.push(tag);
        }
    }

    /// The first tag that may exist, is not listed yet, and precedes all held tags.
    fn obstacle(&self) -> Option<Tag> {
        let first = self.held.first()?.as_str();
        if self.ended {
            return None;
        }
        // Only the directory of a tag that `first` starts with can be listed after the directory of
        // `first`.
        let shorter = first.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'-' | b'.'));
        shorter
            .map(|(length, _)| &first[..length])
            .filter(|name| *name > self.last && format!("{name}/") > format!("{}/", self.reached))
            .filter_map(|name| Tag::parse(name).ok())
            .find(|tag| !self.asked.contains(tag))
    }
}
