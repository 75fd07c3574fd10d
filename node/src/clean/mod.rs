//! Clean: makes room in the store before it is full.
//!
//! When less than `lowFree` is free, or an upload or a fill waits for room, [`worker`] removes expired sessions and
//! then victims until `targetFree` is free. Which content goes is decided by [`victims`], a pure function over
//! records; what is pinned never does, for it is not yet durable. When that is not enough for those who wait, sessions that
//! nobody uses give way. Removing is an unlink off the async threads, one
//! at a time, so that reads go on beside it and those who have the content open read it to its end.
//!
//! It polls nothing: the store wakes it with the write that crosses the threshold.

pub mod victims;
pub mod worker;

#[cfg(test)]
mod tests;

pub use victims::victims;
pub use worker::{UnusedSessions, start};
