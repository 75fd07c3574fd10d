//! The state that all clones of a store share, and the steps that keep index, files and accounting
//! consistent.
//!
//! Code that changes a file of content runs on a blocking thread and holds the lock of the digest
//! from the first step to the last. A caller that is dropped therefore leaves nothing half done,
//! and a removal cannot hit a file that was stored a moment later.

use super::capacity::Capacity;
use super::error::{StoreError, is_damage};
use super::folders::{Folders, make_way_for_file, remove_file};
use super::frequency::RequestClock;
use super::in_flight::InFlight;
use super::index::{Entry, Index};
use super::looks::Looks;
use super::memory::Memory;
use super::readers::Readers;
use super::recorder::Recorder;
use super::round::Round;
use super::tag_cache::TagCache;
use crate::observe::Metrics;
use entrepot_oci::Digest;
use entrepot_runtime::clock::Clock;
use parking_lot::{Mutex, MutexGuard};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Number of locks for all digests. Two digests that share a lock wait for each other while a file
/// is renamed, synced or removed, never while one is read.
const LOCKS: usize = 256;

pub(super) struct Inner {
    pub(super) folders: Folders,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    /// The clock by which the frequencies of content age.
    pub(super) requests: RequestClock,
    pub(super) index: Index,
    pub(super) in_flight: InFlight,
    pub(super) capacity: Arc<Capacity>,
    pub(super) memory: Memory,
    pub(super) readers: Readers,
    /// The running reads of links, by digest.
    pub(super) looks: Looks,
    pub(super) tags: TagCache,
    pub(super) recorder: Recorder,
    pub(super) locks: Locks,
    /// Set by `close`. Nothing is stored afterwards, because it might not be on disk although the
    /// mark says so.
    pub(super) closed: AtomicBool,
    /// Content whose file had another hard link at the start.
    pub(super) shared: Mutex<Vec<Digest>>,
    /// The progress of the scrub.
    pub(super) round: Mutex<Round>,
}

/// Locks for digests; several digests share one lock.
pub(super) struct Locks {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Locks {
    pub(super) fn new() -> Locks {
        Locks { locks: (0..LOCKS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    /// Takes the lock of a digest. Blocking.
    pub(super) fn lock(&self, digest: &Digest) -> Option<MutexGuard<'_, ()>> {
        let count = u64::try_from(self.locks.len()).unwrap_or(1);
        let chosen = usize::try_from(self.hasher.hash_one(digest) % count).unwrap_or_default();
        self.locks.get(chosen).map(|lock| lock.lock())
    }

    /// Waits until all current lock holders are done. Blocking.
    pub(super) fn wait_for_holders(&self) {
        for lock in &self.locks {
            drop(lock.lock());
        }
    }
}

/// Why content is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// On request: not while it is pinned.
    Asked,
    /// It does not match its digest: also while it is pinned, because it must not reach the bucket.
    Corrupt,
    /// Its file does not exist any more.
    Missing,
    /// The disk cannot read it: not while it is pinned, because it may be the only copy and the
    /// disk may recover.
    Unreadable,
}

impl Inner {
    /// Removes content if this is still its entry. Returns the bytes freed, or `None` if nothing
    /// was done. Blocking.
    pub(super) fn remove(&self, digest: &Digest, entry: &Arc<Entry>, why: Removal) -> Result<Option<u64>, StoreError> {
        let _lock = self.locks.lock(digest);
        let taken = match why {
            Removal::Corrupt | Removal::Missing => self.index.take(digest, entry),
            Removal::Asked | Removal::Unreadable => self.index.take_unpinned(digest, entry),
        };
        if !taken {
            return Ok(None);
        }
        let path = self.folders.content(digest);
        if let Err(error) = make_way_for_file(&path).and_then(|()| remove_file(&path)) {
            // The content still exists. Nothing else can have stored it meanwhile, because this
            // holds its lock.
            self.index.insert(*digest, Arc::clone(entry));
            return Err(error);
        }
        entry.mark_gone();
        self.memory.forget(digest);
        self.recorder.removed(*digest);
        self.capacity.removed(entry.size);
        Ok(Some(entry.size))
    }

    /// Removes damaged content, and counts and logs the damage. Returns whether this call removed
    /// it. Blocking.
    pub(super) fn discard(&self, digest: &Digest, entry: &Arc<Entry>, why: Removal, finding: &str) -> bool {
        match self.remove(digest, entry, why) {
            Ok(None) => false,
            Ok(Some(freed)) => {
                tracing::error!(%digest, finding, "removed damaged content from the store");
                self.metrics.store.evictions.with_label_values(&["corrupt"]).inc();
                self.metrics.store.evicted_bytes.inc_by(freed);
                if why == Removal::Corrupt {
                    self.metrics.mismatches.with_label_values(&["store"]).inc();
                }
                if self.index.is_pinned(digest) {
                    tracing::error!(%digest, finding,
                        "the damaged content was not durable yet and this was its only copy; push it again");
                    self.metrics.pending.damaged.inc();
                }
                true
            }
            Err(error) => {
                tracing::error!(%digest, finding, %error, "cannot remove damaged content");
                false
            }
        }
    }

    /// Handles a failed read: removes content that the disk cannot read, so the next request
    /// downloads it again. Returns whether this call removed it. Blocking.
    pub(super) fn read_failed(&self, digest: &Digest, entry: &Arc<Entry>, error: &io::Error) -> bool {
        is_damage(error) && self.discard(digest, entry, Removal::Unreadable, &error.to_string())
    }

    /// Whether this is still the entry of the digest.
    pub(super) fn is_current(&self, digest: &Digest, entry: &Arc<Entry>) -> bool {
        self.index.get(digest).is_some_and(|current| Arc::ptr_eq(&current, entry))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Counts a use.
    pub(super) fn touch(&self, entry: &Entry) {
        entry.touch(self.clock.now(), self.requests.tick(self.index.count()));
    }
}
