//! Small content in memory: manifests, asked for far more often than anything else.

use super::index::Entry;
use crate::oci::Digest;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Bytes of content kept in memory. A manifest has some kilobytes, so this is every manifest that a large cluster
/// pulls at a time, and a quarter of the memory that the node may use beside it.
const CAPACITY: u64 = 64 << 20;

/// Larger content is not kept, so that one blob that is read as if it were a manifest does not push out hundreds.
pub(super) const MAX_SMALL: u64 = 4 << 20;

/// What a kept manifest costs beside its bytes: key, value, and the cache's own.
const OVERHEAD: u64 = 256;

/// Manifests that the cache is first laid out for.
const EXPECTED: usize = 8192;

/// Content in memory, with its entry, so that a hit counts a use without looking further.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) content: Bytes,
    pub(super) entry: Arc<Entry>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Digest, Kept> for Weight {
    fn weight(&self, _: &Digest, kept: &Kept) -> u64 {
        OVERHEAD.saturating_add(u64::try_from(kept.content.len()).unwrap_or(u64::MAX))
    }
}

/// The small content that was asked for lately.
pub(super) struct Memory {
    cache: Cache<Digest, Kept, Weight>,
}

impl Memory {
    pub(super) fn new() -> Memory {
        Memory { cache: Cache::with_weighter(EXPECTED, CAPACITY, Weight) }
    }

    /// Content that is still stored.
    pub(super) fn get(&self, digest: &Digest) -> Option<Kept> {
        // Whoever read the content while it was removed may have kept it just after; the entry knows better.
        self.cache.get(digest).filter(|kept| !kept.entry.is_gone())
    }

    pub(super) fn keep(&self, digest: Digest, kept: Kept) {
        self.cache.insert(digest, kept);
    }

    pub(super) fn forget(&self, digest: &Digest) {
        self.cache.remove(digest);
    }
}
