//! Eviction: frees space in the store before it is full.
//!
//! If less than `lowFree` is free, or an upload or a download waits for space, [`worker`] removes
//! expired sessions and then evicts content until `targetFree` is free. `victims`, a pure
//! function of the access statistics, decides which content is evicted. Pinned content is never
//! evicted, because it is not in the bucket yet. If that does not free enough for waiting requests,
//! unused upload sessions are removed. Content is unlinked off the async threads, one file at a
//! time, so that reads continue and readers with an open file read it to its end.
//!
//! This flow never polls: the store wakes it on the write that crosses the threshold.

pub mod victims;
pub mod worker;

#[cfg(test)]
mod tests;

pub use victims::victims;
pub use worker::start;
