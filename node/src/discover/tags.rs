//! Tags in the order of their bytes, although a bucket lists them in another order: it lists the
//! directories `v1-a/` and `v1.2/` before `v1/`, because `-` and `.` sort before `/`.
//!
//! A tag is held back only while a shorter tag that it starts with may still follow. If a page
//! would wait for a long part of the listing, the shorter tag is requested separately. If a page
//! would need too many requests, it ends early, after the last tag or before a tag that is not
//! known to be the next one.

use super::{LIST_MAX, LISTS, Listed};
use crate::repository::Layout;
use entrepot_bucket::{Bucket, BucketError, ListOptions};
use entrepot_oci::{Repository, Tag};
use std::collections::{BTreeSet, HashSet};

/// Tags requested separately after each part of the listing. The next part of up to 1000 tags
/// answers more, if many of them are needed.
const ASKED: usize = 8;

/// The size of a page.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Maximum number of tags.
    pub(super) max: usize,
    /// Maximum number of list requests, except that a page that knows nothing needs one more.
    pub(super) lists: usize,
    /// Maximum number of directories per list request.
    pub(super) at_once: usize,
}

/// See [`super::Discover::tags`].
pub(super) async fn page(
    bucket: &dyn Bucket,
    layout: &Layout,
    repository: &Repository,
    last: Option<&str>,
    max: usize,
) -> Result<Option<Listed<Tag>>, BucketError> {
    list(bucket, layout, repository, last, Limits { max, lists: LISTS, at_once: LIST_MAX }).await
}

/// As [`page`], with other limits.
pub(super) async fn list(
    bucket: &dyn Bucket,
    layout: &Layout,
    repository: &Repository,
    last: Option<&str>,
    limits: Limits,
) -> Result<Option<Listed<Tag>>, BucketError> {
    let prefix = layout.tags(repository);
    let last = last.unwrap_or_default();
    let mut order = Order::new(last);
    // Without the `/`, because `v1-a/` and `v1.2/` follow the tag `v1` but are listed before `v1/`.
    let mut after = (!last.is_empty()).then(|| format!("{prefix}{last}"));
    let mut left = limits.lists;
    let mut any = false;
    loop {
        let options = ListOptions { prefix: prefix.clone(), delimiter: true, after, max: limits.at_once };
        let listing = bucket.list(options).await?;
        left = left.saturating_sub(1);
        any |= !listing.prefixes.is_empty();
        for folder in &listing.prefixes {
            order.listed(folder.strip_prefix(&prefix).unwrap_or(folder));
        }
        after = listing.next;
        if after.is_none() {
            order.end();
        }
        order.release();
        let is_full = |order: &Order<'_>| after.is_none() || order.ready.len() > limits.max;
        for _ in 0..ASKED.min(left) {
            if is_full(&order) || order.held.len() <= limits.max || !ask(bucket, &prefix, &mut order).await? {
                break;
            }
            left -= 1;
        }
        if is_full(&order) {
            break;
        }
        // Directories that are not tags give no position to continue from.
        if left == 0 && !order.is_empty() {
            if order.ready.is_empty() && order.position().is_none() {
                ask(bucket, &prefix, &mut order).await?;
            }
            return Ok(Some(order.cut(limits.max)));
        }
    }
    if !any && !is_repository(bucket, layout, repository).await? {
        return Ok(None);
    }
    Ok(Some(Listed::first(limits.max, order.ready)))
}

/// Requests the tag that may precede all held tags. `false`: there is none.
async fn ask(bucket: &dyn Bucket, prefix: &str, order: &mut Order<'_>) -> Result<bool, BucketError> {
    let Some(missing) = order.obstacle() else { return Ok(false) };
    let there = !list_one(bucket, format!("{prefix}{missing}/"), None).await?.is_empty();
    order.answered(missing, there);
    order.release();
    Ok(true)
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
    asked: HashSet<String>,
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
            && !self.asked.contains(name)
        {
            self.held.insert(tag);
        }
    }

    fn end(&mut self) {
        self.ended = true;
    }

    /// The result for the tag that [`Order::obstacle`] returned.
    fn answered(&mut self, tag: Tag, there: bool) {
        self.asked.insert(tag.to_string());
        if there {
            self.held.insert(tag);
        }
    }

    /// Moves all tags to `ready` that no other tag can precede any more.
    fn release(&mut self) {
        while self.obstacle().is_none() {
            let Some(tag) = self.held.pop_first() else { return };
            self.ready.push(tag);
        }
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.ready.is_empty()
    }

    /// The page as far as it is known.
    fn cut(self, max: usize) -> Listed<Tag> {
        if self.ready.len() > max {
            return Listed::first(max, self.ready);
        }
        let next = self.ready.last().map(ToString::to_string).or_else(|| self.position().map(str::to_owned));
        Listed { items: self.ready, next }
    }

    /// The first tag that may exist, is not listed yet, and precedes all held tags.
    fn obstacle(&self) -> Option<Tag> {
        if self.ended {
            return None;
        }
        self.shorter().find(|name| self.is_unknown(name)).and_then(|name| Tag::parse(name).ok())
    }

    /// The last name up to which no tag exists, if all tags before the first held one are not known
    /// yet.
    fn position(&self) -> Option<&str> {
        self.shorter().take_while(|name| !self.is_unknown(name)).last()
    }

    /// The names of tags that may precede the first held tag, in order: only the directory of a tag
    /// that it starts with can be listed after its own directory.
    fn shorter(&self) -> impl Iterator<Item = &str> {
        let first = self.held.first().map(Tag::as_str).unwrap_or_default();
        let ends = first.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'-' | b'.'));
        ends.map(|(length, _)| &first[..length]).filter(|name| *name > self.last && Tag::parse(name).is_ok())
    }

    /// Whether the tag may exist: it is not listed yet and was not requested separately.
    fn is_unknown(&self, name: &str) -> bool {
        format!("{name}/") > format!("{}/", self.reached) && !self.asked.contains(name)
    }
}
