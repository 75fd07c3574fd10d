//! The order of reads from the bucket and of changes that this node saw meanwhile.
//!
//! A read that started before a removal may return the old value after it. If that value were
//! remembered, it would undo the removal for as long as the value is trusted. Therefore a read is a
//! [`Look`], which starts before the bucket is asked, and its result is remembered only if nothing
//! was removed or changed since.

use entrepot_runtime::clock::{Clock, Uptime};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Number of counters for all names. If two names share a counter, a valid read is sometimes not
/// remembered.
const COUNTERS: usize = 1024;

/// A read of the bucket that has started.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    counter: usize,
    changes: u64,
    /// The result of the read is valid at this time, or a little later.
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

    /// Starts a read.
    pub(super) fn begin(&self, name: &impl Hash, clock: &Clock) -> Look {
        let counter = self.counter_of(name);
        Look { counter, changes: self.changes(counter), at: clock.uptime() }
    }

    /// Records that a name was removed or changed. Call it before changing what is remembered.
    pub(super) fn changed(&self, name: &impl Hash) {
        if let Some(counter) = self.counters.get(self.counter_of(name)) {
            counter.fetch_add(1, SeqCst);
        }
    }

    /// Whether the result of the read may still be remembered.
    pub(super) fn is_current(&self, look: &Look) -> bool {
        self.changes(look.counter) == look.changes
    }
}
