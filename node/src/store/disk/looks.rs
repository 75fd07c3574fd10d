//! The order of reads from the bucket and of changes that this node saw meanwhile.
//!
//! A read that began before a removal may bring the old value after it. Remembered then, it would undo the removal for
//! as long as it is relied on. So a read is a [`Look`], begun before the bucket is asked, and what it brings is
//! remembered only if nothing was removed or changed since.

use crate::run::clock::{Clock, Uptime};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Counters for all names together. Two names that share one sometimes forget a read that nothing was wrong with.
const COUNTERS: usize = 1024;

/// A read of the bucket that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    counter: usize,
    changes: u64,
    /// What is read is known to be so at this time, or a little later.
    pub(super) at: Uptime,
}

/// Counts changes.
pub(super) struct Looks {
    counters: Vec<AtomicU64>,
    hasher: RandomState,
}

impl Looks {
    pub(super) fn new() -> Looks {
        Looks { counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }

    fn counter_of(&self, name: &impl Hash) -> usize {
        usize::try_from(self.hasher.hash_one(name)).unwrap_or_default() % COUNTERS
    }

    fn changes(&self, counter: usize) -> u64 {
        self.counters.get(counter).map_or(0, |counter| counter.load(SeqCst))
    }

    /// Begins a read.
    pub(super) fn begin(&self, name: &impl Hash, clock: &Clock) -> Look {
        let counter = self.counter_of(name);
        Look { counter, changes: self.changes(counter), at: clock.uptime() }
    }

    /// Says that a name was removed or changed: before what is remembered of it is.
    pub(super) fn changed(&self, name: &impl Hash) {
        if let Some(counter) = self.counters.get(self.counter_of(name)) {
            counter.fetch_add(1, SeqCst);
        }
    }

    /// Whether what the read brought may still be remembered.
    pub(super) fn is_current(&self, look: &Look) -> bool {
        self.changes(look.counter) == look.changes
    }
}
