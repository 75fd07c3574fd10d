//! How full the store is.

/// How full the store is, all in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Configured, or else what is stored and what the file system has left.
    pub capacity: u64,
    /// Stored content.
    pub used: u64,
    /// Set aside for what is being written: sessions and fills.
    pub reserved: u64,
    /// The smaller of what the capacity and what the file system leaves.
    pub free: u64,
    /// The first threshold: below it cleaning starts.
    pub low_free: u64,
    /// The second threshold: at it cleaning stops.
    pub target_free: u64,
}
