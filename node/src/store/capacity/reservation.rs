//! Reservations of space.

use super::Capacity;
use crate::store::StoreError;
use std::sync::Arc;

/// Space reserved for bytes that are about to be written. Dropping it releases what was not
/// adopted.
pub struct Reservation {
    capacity: Arc<Capacity>,
    bytes: u64,
    written: u64,
}

impl Reservation {
    pub(in crate::store) fn new(capacity: Arc<Capacity>, bytes: u64) -> Reservation {
        Reservation { capacity, bytes, written: 0 }
    }

    /// A reservation of bytes that are on disk already.
    pub(in crate::store) fn existing(capacity: Arc<Capacity>, bytes: u64) -> Reservation {
        Reservation { capacity, bytes, written: bytes }
    }

    /// Number of reserved bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the whole reservation, leaving an empty one.
    #[must_use]
    pub fn take(&mut self) -> Reservation {
        let taken = Reservation { capacity: Arc::clone(&self.capacity), bytes: self.bytes, written: self.written };
        (self.bytes, self.written) = (0, 0);
        taken
    }

    /// Reserves more bytes.
    ///
    /// # Errors
    /// `NoRoom` if eviction cannot free that much.
    pub async fn grow(&mut self, by: u64) -> Result<(), StoreError> {
        let more = self.capacity.reserve(by).await?;
        self.absorb(more);
        Ok(())
    }

    /// Takes over another reservation.
    pub fn absorb(&mut self, mut other: Reservation) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.written = self.written.saturating_add(other.written);
        (other.bytes, other.written) = (0, 0);
    }

    /// Records that this many more of the reserved bytes are in a file now. Without this call they
    /// count twice when the file system limits the store: as used there, and as still to be
    /// written.
    pub fn wrote(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes.saturating_sub(self.written));
        if bytes > 0 {
            self.written = self.written.saturating_add(bytes);
            self.capacity.wrote(bytes);
        }
    }

    /// Turns the reservation into stored content of `size` bytes, and releases the rest.
    pub(in crate::store) fn become_content(mut self, size: u64) {
        self.wrote(size);
        self.capacity.settle(self.bytes, self.written, size);
        (self.bytes, self.written) = (0, 0);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.capacity.settle(self.bytes, self.written, 0);
        }
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
