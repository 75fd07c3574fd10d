//! The usage of the store.

/// The usage of the store. All values are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// As configured, or else the stored bytes plus the free space of the file system.
    pub capacity: u64,
    /// Stored content.
    pub used: u64,
    /// Reserved for bytes being written: sessions and downloads.
    pub reserved: u64,
    /// The smaller of the space left by the capacity and the space left on the file system.
    pub free: u64,
    /// The first threshold: eviction starts below it.
    pub low_free: u64,
    /// The second threshold: eviction stops at it.
    pub target_free: u64,
}
