//! Replicate: makes blobs durable. A blob that the store has adopted is sent straight to its final key, then its
//! repository's link is written, then its journal entry is removed.
//!
//! What a crash between two steps leaves:
//! - before the data is complete: a journal entry, and perhaps parts of a multipart upload. The next start aborts the
//!   parts and sends the data again.
//! - before the link: data that nothing makes visible. The next start finds it complete and writes the link.
//! - before the entry is removed: a durable blob. The next start finds data and link, and removes the entry.
//!
//! It never reads content back, never copies inside the bucket, and never gives a blob up: while the bucket is away
//! the blob stays pending, which keeps it from being a victim.

mod journal;
mod markers;
mod oldest;
mod plan;
mod send;
mod worker;

#[cfg(test)]
mod tests;

pub use oldest::OldestPending;
pub use worker::{Replicate, ReplicateParts};
