//! What the bucket last said of tags.

use super::looks::{Look, Looks};
use crate::oci::{Digest, Repository, Tag};
use crate::run::clock::{Clock, Uptime};
use crate::store::bucket::ETag;
use quick_cache::sync::Cache;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tags remembered, some 400 bytes each; those not asked for lately are forgotten first. Forgetting one means that
/// it is read without a condition next time, and not served while the bucket is away.
pub(super) const MAX_TAGS: usize = 100_000;

/// A tag as the bucket last answered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTag {
    pub digest: Digest,
    /// The version of the tag's link.
    pub etag: ETag,
    /// When the read began that brought it.
    pub seen: Uptime,
}

/// Which tag.
pub(super) type TagName = (Repository, Tag);

/// The tags last seen.
pub(super) struct TagsSeen {
    known: Cache<TagName, KnownTag>,
    /// Tags whose record on disk is not what is known here.
    dirty: Mutex<HashSet<TagName>>,
    looks: Looks,
}

impl TagsSeen {
    pub(super) fn new() -> TagsSeen {
        TagsSeen { known: Cache::new(MAX_TAGS), dirty: Mutex::default(), looks: Looks::new() }
    }

    fn dirty(&self) -> MutexGuard<'_, HashSet<TagName>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, repository: &Repository, tag: &Tag) -> Option<KnownTag> {
        self.known.get(&(repository.clone(), tag.clone()))
    }

    pub(super) fn look(&self, name: &TagName, clock: &Clock) -> Look {
        self.looks.begin(name, clock)
    }

    /// Returns whether it is remembered.
    pub(super) fn remember(&self, look: &Look, name: TagName, known: KnownTag) -> bool {
        // One change at a time, so that what is compared is what is replaced.
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

    /// What an earlier run of the node knew.
    pub(super) fn restore(&self, name: TagName, known: KnownTag) {
        self.known.insert(name, known);
    }

    pub(super) fn is_known(&self, name: &TagName) -> bool {
        self.known.contains_key(name)
    }

    /// What is to be written down: tags as they are now, `None` for those forgotten.
    pub(super) fn take_dirty(&self) -> Vec<(TagName, Option<KnownTag>)> {
        let dirty = std::mem::take(&mut *self.dirty());
        dirty.into_iter().map(|name| (self.known.peek(&name), name)).map(|(known, name)| (name, known)).collect()
    }

    /// What could not be written down is tried again.
    pub(super) fn put_back(&self, names: impl IntoIterator<Item = TagName>) {
        self.dirty().extend(names);
    }
}
