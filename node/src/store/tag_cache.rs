//! The last known values of tags from the bucket.

use super::looks::{Look, Looks};
use entrepot_bucket::ETag;
use entrepot_oci::{Digest, Repository, Tag};
use entrepot_runtime::clock::{Clock, Uptime};
use parking_lot::{Mutex, MutexGuard};
use quick_cache::sync::Cache;
use std::collections::HashSet;

/// Number of tags remembered, about 400 bytes each; the least recently requested are forgotten
/// first. A forgotten tag is read without a condition next time, and cannot be served while the
/// bucket is unreachable.
pub(super) const MAX_TAGS: usize = 100_000;

/// A tag as last read from the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTag {
    /// The manifest.
    pub digest: Digest,
    /// The version of the tag's link.
    pub etag: ETag,
    /// When the read of this value started.
    pub seen: Uptime,
}

/// The name of a tag in a repository.
pub(super) type TagName = (Repository, Tag);

/// The tags seen last.
pub(super) struct TagCache {
    known: Cache<TagName, KnownTag>,
    /// Tags whose value on disk differs from this cache.
    dirty: Mutex<HashSet<TagName>>,
    looks: Looks,
}

impl TagCache {
    pub(super) fn new() -> TagCache {
        TagCache { known: Cache::new(MAX_TAGS), dirty: Mutex::default(), looks: Looks::new() }
    }

    fn dirty(&self) -> MutexGuard<'_, HashSet<TagName>> {
        self.dirty.lock()
    }

    pub(super) fn get(&self, repository: &Repository, tag: &Tag) -> Option<KnownTag> {
        self.known.get(&(repository.clone(), tag.clone()))
    }

    pub(super) fn look(&self, name: &TagName, clock: &Clock) -> Look {
        self.looks.begin(name, clock)
    }

    /// Returns whether the value is remembered.
    pub(super) fn remember(&self, look: &Look, name: TagName, known: KnownTag) -> bool {
        // One change at a time, so the value that is compared is the value that is replaced.
        let mut dirty = self.dirty();
        let same = self.known.peek(&name).is_some_and(|before| before.digest == known.digest);
        if !self.looks.is_current(look) && !same {
            return false;
        }
        if !same {
            self.looks.changed(&name);
        }
        self.known.insert(name.clone(), known);
        dirty.insert(name);
        true
    }

    pub(super) fn forget(&self, name: TagName) {
        let mut dirty = self.dirty();
        self.looks.changed(&name);
        if self.known.remove(&name).is_some() {
            dirty.insert(name);
        }
    }

    /// Restores a value of an earlier run.
    pub(super) fn restore(&self, name: TagName, known: KnownTag) {
        self.known.insert(name, known);
    }

    pub(super) fn is_known(&self, name: &TagName) -> bool {
        self.known.contains_key(name)
    }

    /// Takes the tags to write to disk, with their current values; `None` for forgotten tags.
    pub(super) fn take_dirty(&self) -> Vec<(TagName, Option<KnownTag>)> {
        let dirty = std::mem::take(&mut *self.dirty());
        dirty.into_iter().map(|name| (self.known.peek(&name), name)).map(|(known, name)| (name, known)).collect()
    }

    /// Marks tags that could not be written, so they are written with the next batch.
    pub(super) fn put_back(&self, names: impl IntoIterator<Item = TagName>) {
        self.dirty().extend(names);
    }
}
