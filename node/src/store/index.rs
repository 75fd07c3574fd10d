//! The index of stored content in memory: one entry per digest, and the pins.

use super::frequency::{Frequency, Moment};
use super::identity::Identity;
use super::link_cache::LinkCache;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use entrepot_oci::Digest;
use entrepot_runtime::clock::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::OnceCell;

/// The input of the eviction order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The content.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last request, or of the storing.
    pub used: Timestamp,
    /// Number of requests, with older ones counting less. Comparable between records.
    pub frequency: Frequency,
    /// Not yet durable, so never evicted.
    pub pinned: bool,
}

/// The result of hashing a file of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This file matches its digest.
    Sound(Identity),
    /// The file does not match its digest. The entry is removed from the index, unless the file
    /// cannot be removed.
    Damaged,
}

/// Stored content.
pub(super) struct Entry {
    /// Size in bytes.
    pub(super) size: u64,
    used: AtomicU64,
    frequency: AtomicU64,
    pub(super) links: Arc<LinkCache>,
    /// Whether the file matches its digest. Unset if the file was found at the start or changed by
    /// another program.
    pub(super) verdict: OnceCell<Verdict>,
    /// Whether the access statistics on disk are older than this entry.
    dirty: AtomicBool,
    /// Whether the content was removed. Copies in memory are not served any more then.
    gone: AtomicBool,
}

impl Entry {
    /// Content whose file is verified, or (`None`) must be verified before its first use.
    pub(super) fn new(size: u64, sound: Option<Identity>, links: Arc<LinkCache>) -> Entry {
        Entry {
            size,
            used: AtomicU64::new(0),
            frequency: AtomicU64::new(Frequency::NEVER.to_bits()),
            links,
            verdict: OnceCell::new_with(sound.map(Verdict::Sound)),
            dirty: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// The same content in another file, or in a changed file. The access statistics are kept.
    pub(super) fn renewed(&self, size: u64, sound: Option<Identity>, links: Arc<LinkCache>) -> Entry {
        let entry = Entry::new(size, sound, links);
        entry.restore(self.used(), self.frequency());
        entry.mark_dirty();
        entry
    }

    /// The identity of the verified file.
    pub(super) fn sound(&self) -> Option<Identity> {
        match self.verdict.get() {
            Some(Verdict::Sound(identity)) => Some(*identity),
            Some(Verdict::Damaged) | None => None,
        }
    }

    /// Counts a use. Two uses at the same instant may count as one, which allows plain stores
    /// instead of atomic updates.
    pub(super) fn touch(&self, now: Timestamp, moment: Moment) {
        let frequency = self.frequency().used(moment);
        self.used.store(now.0, Relaxed);
        self.frequency.store(frequency.to_bits(), Relaxed);
        self.mark_dirty();
    }

    /// Restores the access statistics of an earlier run.
    pub(super) fn restore(&self, used: Timestamp, frequency: Frequency) {
        self.used.store(used.0, Relaxed);
        self.frequency.store(frequency.to_bits(), Relaxed);
    }

    pub(super) fn used(&self) -> Timestamp {
        Timestamp(self.used.load(Relaxed))
    }

    pub(super) fn frequency(&self) -> Frequency {
        Frequency::from_bits(self.frequency.load(Relaxed))
    }

    pub(super) fn mark_dirty(&self) {
        // Read before the write, so the cache line of a manifest with 20,000 requests per second
        // stays shared.
        if !self.dirty.load(Relaxed) {
            self.dirty.store(true, Relaxed);
        }
    }

    /// Returns whether the entry must be written to disk, and resets that until the next change.
    pub(super) fn take_dirty(&self) -> bool {
        self.dirty.load(Relaxed) && self.dirty.swap(false, Relaxed)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    pub(super) fn mark_gone(&self) {
        self.gone.store(true, Relaxed);
    }
}

/// All stored content, and the number of pins of each digest.
#[derive(Default)]
pub(super) struct Index {
    entries: DashMap<Digest, Arc<Entry>>,
    // Counted separately, because the map would take all its locks to count.
    count: AtomicUsize,
    // Separate from the entries, because content is pinned before it is stored. Locks are always
    // taken in the order pins, entries.
    pins: DashMap<Digest, u64>,
}

impl Index {
    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<Entry>> {
        self.entries.get(digest).map(|entry| Arc::clone(&entry))
    }

    pub(super) fn insert(&self, digest: Digest, entry: Arc<Entry>) {
        if self.entries.insert(digest, entry).is_none() {
            self.count.fetch_add(1, Relaxed);
        }
    }

    /// Replaces this entry with another one, if it is still in the index.
    pub(super) fn replace(&self, digest: &Digest, entry: &Arc<Entry>, by: Arc<Entry>) -> bool {
        match self.entries.get_mut(digest) {
            Some(mut there) if Arc::ptr_eq(&there, entry) => {
                *there = by;
                true
            }
            _ => false,
        }
    }

    /// Removes the entry, if it is still this one.
    pub(super) fn take(&self, digest: &Digest, entry: &Arc<Entry>) -> bool {
        let taken = self.entries.remove_if(digest, |_, there| Arc::ptr_eq(there, entry)).is_some();
        if taken {
            self.count.fetch_sub(1, Relaxed);
        }
        taken
    }

    /// As [`Index::take`], unless the digest is pinned. It cannot be pinned in between.
    pub(super) fn take_unpinned(&self, digest: &Digest, entry: &Arc<Entry>) -> bool {
        match self.pins.entry(*digest) {
            Slot::Occupied(_) => false,
            Slot::Vacant(_nobody_pins_meanwhile) => self.take(digest, entry),
        }
    }

    pub(super) fn pin(&self, digest: Digest) {
        *self.pins.entry(digest).or_default() += 1;
    }

    /// Removes one pin. Returns whether it was the last.
    pub(super) fn unpin(&self, digest: &Digest) -> bool {
        let Slot::Occupied(mut pins) = self.pins.entry(*digest) else { return false };
        *pins.get_mut() -= 1;
        let last = *pins.get() == 0;
        if last {
            pins.remove();
        }
        last
    }

    pub(super) fn is_pinned(&self, digest: &Digest) -> bool {
        self.pins.contains_key(digest)
    }

    /// The number of entries.
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// All entries at this moment.
    pub(super) fn all(&self) -> Vec<(Digest, Arc<Entry>)> {
        self.entries.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }

    /// The first `most` digests after `after`, in ascending order.
    pub(super) fn following(&self, after: Option<&Digest>, most: usize) -> Vec<Digest> {
        let mut following = BTreeSet::new();
        for entry in &self.entries {
            let digest = *entry.key();
            let is_following = after.is_none_or(|after| digest > *after);
            if is_following && (following.len() < most || following.last().is_some_and(|last| digest < *last)) {
                following.insert(digest);
                if following.len() > most {
                    following.pop_last();
                }
            }
        }
        following.into_iter().collect()
    }

    pub(super) fn records(&self) -> Vec<Record> {
        let record = |(digest, entry): (Digest, Arc<Entry>)| Record {
            digest,
            size: entry.size,
            used: entry.used(),
            frequency: entry.frequency(),
            pinned: self.is_pinned(&digest),
        };
        self.all().into_iter().map(record).collect()
    }
}
