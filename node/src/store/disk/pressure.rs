//! What the cleaner knows of the room in the store.

use super::capacity::Capacity;
use std::sync::Arc;

/// The seat of the cleaner: it is woken here, and answers those who wait for room. When it is given up, they are
/// refused.
pub struct Pressure {
    capacity: Arc<Capacity>,
}

impl Pressure {
    pub(super) fn new(capacity: Arc<Capacity>) -> Pressure {
        capacity.set_cleaner(true);
        Pressure { capacity }
    }

    /// Resolves when less than `lowFree` is free or somebody waits for room; at once when that came to be since the
    /// last call.
    pub async fn wait(&self) {
        self.capacity.until_short().await;
    }

    /// Whether it is so now, asking the file system too.
    pub fn is_short(&self) -> bool {
        self.capacity.is_short()
    }

    /// Bytes to remove until everybody who waits has room and `targetFree` is free beside it.
    pub fn wanted(&self) -> u64 {
        self.capacity.wanted()
    }

    /// Nothing more can be removed: who waits still is refused.
    pub fn refuse_waiting(&self) {
        self.capacity.refuse_waiting();
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        self.capacity.set_cleaner(false);
    }
}
