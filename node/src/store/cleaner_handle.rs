//! The cleaner's view of the space in the store.

use super::capacity::Capacity;
use std::sync::Arc;

/// The cleaner's handle: it wakes the cleaner, and waiting reservations depend on it. When it is
/// dropped, they fail.
pub struct CleanerHandle {
    capacity: Arc<Capacity>,
}

impl CleanerHandle {
    pub(super) fn new(capacity: Arc<Capacity>) -> CleanerHandle {
        capacity.set_cleaner(true);
        CleanerHandle { capacity }
    }

    /// Resolves when less than `lowFree` is free or a reservation waits; at once if that happened
    /// since the last call.
    pub async fn wait(&self) {
        self.capacity.until_short().await;
    }

    /// Whether that is the case now, according to the current free space of the file system.
    pub fn is_short(&self) -> bool {
        self.capacity.is_short()
    }

    /// Bytes to remove until all waiting reservations fit and `targetFree` is free in addition.
    pub fn wanted(&self) -> u64 {
        self.capacity.wanted()
    }

    /// Called when nothing more can be removed: waiting reservations that do not fit fail.
    pub fn refuse_waiting(&self) {
        self.capacity.refuse_waiting();
    }
}

impl Drop for CleanerHandle {
    fn drop(&mut self) {
        self.capacity.set_cleaner(false);
    }
}
