//! Upload sessions as the cleaner needs them.

use async_trait::async_trait;

/// Upload sessions whose bytes the cleaner may free. `upload` implements it, `clean` uses it, and
/// `app::flows` connects them, because flows do not import each other.
#[async_trait]
pub trait UnusedSessions: Send + Sync + 'static {
    /// Removes the sessions that received nothing for too long, and counts them (`evictions`,
    /// reason `session`). Returns the number of bytes freed.
    async fn expire(&self) -> u64;

    /// Removes sessions that were unused for a while, longest unused first, until `bytes` are
    /// freed, and counts them in the same way. Returns the number of bytes freed; zero if no
    /// session may be removed.
    async fn give_way(&self, bytes: u64) -> u64;
}
