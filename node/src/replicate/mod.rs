//! Replicate: makes blobs durable. It sends a blob that the store has adopted directly to its final
//! key, then writes the link of its repository, then removes its journal entry.
//!
//! This module owns the pending journal, the markers of pending blobs, and one task for each
//! pending blob. It never reads content back from the bucket, never copies inside the bucket, and
//! never gives up a blob because of the bucket. While the bucket is unreachable the blob stays
//! pending, and pending content is never evicted.
//!
//! # Consistency
//!
//! - The link is written after the data, so a visible blob is never broken.
//! - Data that was already in the bucket is checked again after the link is written, because it may
//!   have been removed in between. Whatever removes data looks for links afterwards, so from then
//!   on the link protects the data.
//! - The content is pinned in the store until the blob is durable. A file that changed since it was
//!   verified is verified again before it is sent.
//! - Two repositories never send the data of one digest at the same time.
//!
//! # Retries
//!
//! The bucket retries each request for the retry budget. When that fails, the requests that wait
//! for the blob get the error, and the task pauses (exponentially, up to 5 s) and tries again,
//! until the blob is durable or the node stops. A blob whose content is missing or damaged in the
//! store is given up, because there is nothing to send.
//!
//! # Cancellation
//!
//! A client that disconnects does not stop the task of its blob. When the node stops, a task ends
//! at its next pause, or with the process at the end of the grace period. The journal entry
//! remains, and the next start resumes the blob.
//!
//! # Crash
//!
//! What a crash between two steps leaves:
//! - before the data is complete: a journal entry, and perhaps parts of a multipart upload. The
//!   next start aborts the multipart upload and sends the data again.
//! - before the link: data that no link makes visible. The next start finds the data complete and
//!   writes the link.
//! - before the entry is removed: a durable blob. The next start finds data and link, and removes
//!   the entry.

mod journal;
mod markers;
mod oldest;
mod plan;
mod send;
mod worker;

#[cfg(test)]
mod tests;

pub use oldest::OldestPending;
pub use worker::Replicate;
