//! What is stored, in memory: one entry a digest, and what is pinned.

use super::frequency::{Frequency, Moment};
use super::identity::Identity;
use super::links_seen::LinksSeen;
use crate::oci::Digest;
use crate::run::clock::Timestamp;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::OnceCell;

/// What the cleaner chooses victims from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// When it was last asked for, or stored.
    pub used: Timestamp,
    /// How often it was asked for, older requests counting less; comparable between records.
    pub frequency: Frequency,
    /// Not yet durable: never a victim.
    pub pinned: bool,
}

/// What hashing a file of the store came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This file is what its digest says.
    Sound(Identity),
    /// It is not. Such an entry leaves the index, unless its file cannot be removed.
    Damaged,
}

/// Stored content.
pub(super) struct Entry {
    /// Size in bytes.
    pub(super) size: u64,
    used: AtomicU64,
    frequency: AtomicU64,
    pub(super) links: Arc<LinksSeen>,
    /// Whether the file is what its digest says; not known yet of a file that was found, or was changed by others.
    pub(super) verdict: OnceCell<Verdict>,
    /// Whether the records on disk lack what is known here.
    dirty: AtomicBool,
    /// Removed: copies of the content in memory are not served any more.
    gone: AtomicBool,
}

impl Entry {
    /// Content whose file is known to be what its digest says, or (`None`) has to be verified before its first use.
    pub(super) fn new(size: u64, sound: Option<Identity>, links: Arc<LinksSeen>) -> Entry {
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

    /// The same content in another file, or in a file that was changed: how often it was used is still known.
    pub(super) fn renewed(&self, size: u64, sound: Option<Identity>, links: Arc<LinksSeen>) -> Entry {
        let entry = Entry::new(size, sound, links);
        entry.restore(self.used(), self.frequency());
        entry.mark_dirty();
        entry
    }

    /// The file that was verified.
    pub(super) fn sound(&self) -> Option<Identity> {
        match self.verdict.get() {
            Some(Verdict::Sound(identity)) => Some(*identity),
            Some(Verdict::Damaged) | None => None,
        }
    }

    /// Counts a use. Two uses in the same instant may count as one; that keeps it to plain stores.
    pub(super) fn touch(&self, now: Timestamp, moment: Moment) {
        let frequency = self.frequency().used(moment);
        self.used.store(now.0, Relaxed);
        self.frequency.store(frequency.to_bits(), Relaxed);
        self.mark_dirty();
    }

    /// What an earlier run of the node knew.
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
        // Read first: the cache line of a manifest that is asked for 20,000 times a second stays shared.
        if !self.dirty.load(Relaxed) {
            self.dirty.store(true, Relaxed);
        }
    }

    /// Whether it is to be written down; from now on it is not, until something changes.
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

/// All that is stored, and how often each digest is pinned.
#[derive(Default)]
pub(super) struct Index {
    entries: DashMap<Digest, Arc<Entry>>,
    // The map would take all its locks to count.
    count: AtomicUsize,
    // Not in the entries, for content is pinned before it is stored. Locks are always taken in the order pins, entries.
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

    /// Puts another entry in the place of this one, if it is still there.
    pub(super) fn replace(&self, digest: &Digest, entry: &Arc<Entry>, by: Arc<Entry>) -> bool {
        match self.entries.get_mut(digest) {
            Some(mut there) if Arc::ptr_eq(&there, entry) => {
                *there = by;
                true
            }
            _ => false,
        }
    }

    /// Takes the entry out, if it is still this one.
    pub(super) fn take(&self, digest: &Digest, entry: &Arc<Entry>) -> bool {
        let taken = self.entries.remove_if(digest, |_, there| Arc::ptr_eq(there, entry)).is_some();
        if taken {
            self.count.fetch_sub(1, Relaxed);
        }
        taken
    }

    /// As [`Index::take`], unless the digest is pinned; nobody can pin it in between.
    pub(super) fn take_unpinned(&self, digest: &Digest, entry: &Arc<Entry>) -> bool {
        match self.pins.entry(*digest) {
            Slot::Occupied(_) => false,
            Slot::Vacant(_nobody_pins_meanwhile) => self.take(digest, entry),
        }
    }

    pub(super) fn pin(&self, digest: Digest) {
        *self.pins.entry(digest).or_default() += 1;
    }

    /// Takes one pin away; whether it was the last.
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

    /// How many entries there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// All entries as they are now.
    pub(super) fn all(&self) -> Vec<(Digest, Arc<Entry>)> {
        self.entries.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }

    /// The first `most` digests after `after`, in their order.
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
