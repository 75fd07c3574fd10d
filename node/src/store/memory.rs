//! Small content in memory: manifests, which are requested far more often than anything else.

use super::index::Entry;
use bytes::Bytes;
use entrepot_oci::Digest;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Bytes of content kept in memory. A manifest has a few kilobytes, so this holds every manifest
/// that a large cluster pulls at a time. It equals a quarter of the memory that the rest of the
/// node may use.
const CAPACITY: u64 = 64 << 20;

/// Size limit in bytes, so that one blob that is read like a manifest does not displace hundreds of
/// manifests.
pub(super) const MAX_SMALL: u64 = 4 << 20;

/// Bytes per kept manifest in addition to its content: key, value, and the cache's own data.
const OVERHEAD: u64 = 256;

/// Initial capacity of the cache, in manifests.
const EXPECTED: usize = 8192;

/// Content in memory with its entry, so a hit can count a use without a lookup.
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

/// The small content that was requested recently.
pub(super) struct Memory {
    cache: Cache<Digest, Kept, Weight>,
}

impl Memory {
    pub(super) fn new() -> Memory {
        Memory { cache: Cache::with_weighter(EXPECTED, CAPACITY, Weight) }
    }

    /// Returns content that is still stored.
    pub(super) fn get(&self, digest: &Digest) -> Option<Kept> {
        // A reader may have kept the content just after it was removed; the entry knows whether it
        // was.
        self.cache.get(digest).filter(|kept| !kept.entry.is_gone())
    }

    pub(super) fn keep(&self, digest: Digest, kept: Kept) {
        self.cache.insert(digest, kept);
    }

    pub(super) fn forget(&self, digest: &Digest) {
        self.cache.remove(digest);
    }
}
