//! Room set aside.

use super::StoreError;
use super::capacity::Capacity;
use std::sync::Arc;

/// Room set aside for bytes that are about to be written. Dropped, it gives back what was not adopted.
pub struct Reservation {
    capacity: Arc<Capacity>,
    bytes: u64,
    written: u64,
}

impl Reservation {
    pub(super) fn new(capacity: Arc<Capacity>, bytes: u64) -> Reservation {
        Reservation { capacity, bytes, written: 0 }
    }

    /// Of bytes that are on disk already.
    pub(super) fn readmitted(capacity: Arc<Capacity>, bytes: u64) -> Reservation {
        Reservation { capacity, bytes, written: bytes }
    }

    /// Bytes set aside.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All that is set aside, leaving a reservation of nothing.
    #[must_use]
    pub fn take(&mut self) -> Reservation {
        let taken = Reservation { capacity: Arc::clone(&self.capacity), bytes: self.bytes, written: self.written };
        (self.bytes, self.written) = (0, 0);
        taken
    }

    /// Sets more aside, in bytes.
    ///
    /// # Errors
    /// `NoRoom` when cleaning cannot make that much.
    pub async fn grow(&mut self, by: u64) -> Result<(), StoreError> {
        let more = self.capacity.reserve(by).await?;
        self.absorb(more);
        Ok(())
    }

    /// Takes over what another one set aside.
    pub fn absorb(&mut self, mut other: Reservation) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.written = self.written.saturating_add(other.written);
        (other.bytes, other.written) = (0, 0);
    }

    /// Says that so many more of the bytes set aside are in a file now. Without it they count twice where the file
    /// system is what limits the store: as used there, and as still to be written.
    pub fn wrote(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes.saturating_sub(self.written));
        if bytes > 0 {
            self.written = self.written.saturating_add(bytes);
            self.capacity.wrote(bytes);
        }
    }

    /// The room becomes stored content of `size` bytes; the rest is given back.
    pub(super) fn become_content(mut self, size: u64) {
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
