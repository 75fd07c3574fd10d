//! The space of the store.

use super::inner::Inner;
use super::{CleanerHandle, Reservation, StoreError, Usage};
use entrepot_config as config;
use std::sync::Arc;

/// The space of the store: reservations, usage and thresholds. Clones share the state.
#[derive(Clone)]
pub struct Room {
    pub(super) inner: Arc<Inner>,
}

impl Room {
    /// Reserves space in bytes, and waits for the cleaner if there is not enough.
    ///
    /// # Errors
    /// `NoRoom` if eviction cannot free that much, or if no cleaner runs.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        self.inner.capacity.reserve(bytes).await
    }

    /// Reserves bytes that are on disk already, for sessions found at the start. Never fails.
    pub fn account_existing(&self, bytes: u64) -> Reservation {
        self.inner.capacity.account_existing(bytes)
    }

    /// The space now.
    pub fn usage(&self) -> Usage {
        self.inner.capacity.usage()
    }

    /// Changes the thresholds of eviction while the node runs.
    pub fn set_thresholds(&self, low_free: config::Threshold, target_free: config::Threshold) {
        self.inner.capacity.set_thresholds(low_free, target_free);
    }

    /// The cleaner's handle. While it exists, reservations that do not fit wait for the cleaner;
    /// otherwise they fail.
    pub fn cleaner(&self) -> CleanerHandle {
        CleanerHandle::new(Arc::clone(&self.inner.capacity))
    }

    /// Pretends that the disk was full when it was last checked, and that other programs have freed
    /// space since.
    #[cfg(test)]
    pub(crate) fn saw_a_full_disk(&self) {
        self.inner.capacity.saw_a_full_disk();
    }
}
