//! What all clones of a store share, and the steps that keep the index, the files and the accounts at one.
//!
//! Whatever changes a file of content does it on a blocking thread and under the digest's lock, from the first step to
//! the last: a caller that goes away leaves nothing half done, and a file that is being removed is not the one that
//! was stored a moment later.

use super::capacity::Capacity;
use super::error::{StoreError, is_damage};
use super::expected::Expectations;
use super::folders::{Folders, make_way_for_file, remove_file};
use super::frequency::RequestClock;
use super::index::{Entry, Index};
use super::looks::Looks;
use super::memory::Memory;
use super::recorder::Recorder;
use super::scrub::Round;
use super::tags_seen::TagsSeen;
use crate::observe::Metrics;
use crate::oci::Digest;
use crate::run::clock::Clock;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks for all digests together. Two digests that share one wait for each other while a file is renamed, synced or
/// removed, never while one is read.
const LOCKS: usize = 256;

pub(super) struct Inner {
    pub(super) folders: Folders,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    /// What the frequencies of content age by.
    pub(super) requests: RequestClock,
    pub(super) index: Index,
    pub(super) expectations: Expectations,
    pub(super) capacity: Arc<Capacity>,
    pub(super) memory: Memory,
    /// Reads of links, by digest.
    pub(super) looks: Looks,
    pub(super) tags: TagsSeen,
    pub(super) recorder: Recorder,
    pub(super) locks: Locks,
    /// Set by `close`: nothing is stored any more, for it might not be on disk when the mark says that all is.
    pub(super) closed: AtomicBool,
    /// Content whose file had another name at the start.
    pub(super) shared: Mutex<Vec<Digest>>,
    /// How far the scrub is.
    pub(super) round: Mutex<Round>,
}

/// One lock for each digest, or rather for each few.
pub(super) struct Locks {
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Locks {
    pub(super) fn new() -> Locks {
        Locks { locks: (0..LOCKS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    /// Blocking.
    pub(super) fn lock(&self, digest: &Digest) -> Option<MutexGuard<'_, ()>> {
        let count = u64::try_from(self.locks.len()).unwrap_or(1);
        let chosen = usize::try_from(self.hasher.hash_one(digest) % count).unwrap_or_default();
        self.locks.get(chosen).map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until whoever holds one now is done. Blocking.
    pub(super) fn pass_all(&self) {
        for lock in &self.locks {
            drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Why stored content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// Somebody wants it gone: not while it is pinned.
    Asked,
    /// It is not what its digest says: even while it is pinned, because it must not reach the bucket.
    Corrupt,
    /// There is no file of it any more.
    Missing,
    /// The disk cannot give it back: not while it is pinned, for it may be the only copy and the disk may recover.
    Unreadable,
}

impl Inner {
    /// Removes content if it is still this entry. Returns the bytes freed, or `None` when nothing was done. Blocking.
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
            // It is there as before; nobody else can have stored it meanwhile.
            self.index.insert(*digest, Arc::clone(entry));
            return Err(error);
        }
        entry.mark_gone();
        self.memory.forget(digest);
        self.recorder.removed(*digest);
        self.capacity.removed(entry.size);
        Ok(Some(entry.size))
    }

    /// See `Store::let_go_if_shared`. Blocking.
    pub(super) fn let_go_if_shared(&self, digest: &Digest) -> Result<(), StoreError> {
        let Some(entry) = self.index.get(digest) else { return Ok(()) };
        let path = self.folders.content(digest);
        let metadata = fs::metadata(&path).map_err(StoreError::io("look at", &path))?;
        if metadata.nlink() > 1 {
            self.remove(digest, &entry, Removal::Asked)?;
        }
        Ok(())
    }

    /// See `Store::let_go_of_shared`. Blocking.
    pub(super) fn let_go_of_shared(&self) {
        let shared = std::mem::take(&mut *self.shared.lock().unwrap_or_else(PoisonError::into_inner));
        for digest in shared {
            if let Err(error) = self.let_go_if_shared(&digest) {
                tracing::warn!(%digest, %error, "content stays in the store as the same file as in the bucket");
            }
        }
    }

    /// Removes content that turned out to be damaged, counts it and says so. Whether it was this that removed it.
    /// Blocking.
    pub(super) fn discard(&self, digest: &Digest, entry: &Arc<Entry>, why: Removal, finding: &str) -> bool {
        match self.remove(digest, entry, why) {
            Ok(None) => false,
            Ok(Some(freed)) => {
                tracing::error!(%digest, finding, "removed damaged content from the store");
                self.metrics.evictions.with_label_values(&["corrupt"]).inc();
                self.metrics.evicted_bytes.inc_by(freed);
                if why == Removal::Corrupt {
                    self.metrics.mismatches.with_label_values(&["store"]).inc();
                }
                if self.index.is_pinned(digest) {
                    tracing::error!(%digest, finding,
                        "the content was not durable yet, and this was its only copy; it has to be pushed again");
                    self.metrics.pending_damaged.inc();
                }
                true
            }
            Err(error) => {
                tracing::error!(%digest, finding, %error, "damaged content cannot be removed");
                false
            }
        }
    }

    /// A read failed: content that the disk cannot give back is not stored, so that it is fetched again. Whether it was
    /// removed by this. Blocking.
    pub(super) fn read_failed(&self, digest: &Digest, entry: &Arc<Entry>, error: &io::Error) -> bool {
        is_damage(error) && self.discard(digest, entry, Removal::Unreadable, &error.to_string())
    }

    /// Whether this is the entry of the digest still.
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
