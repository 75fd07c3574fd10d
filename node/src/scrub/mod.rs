//! Scrub: reads all stored content in turn, at a limited rate, to find content that was damaged on
//! disk. One round over everything takes `store.scrub.period`.
//!
//! The store removes content that does not match its digest, counts and logs it, and it is
//! downloaded from the bucket again. Content that is not in the bucket yet has no other copy. It is
//! removed as well, because it must not be uploaded, and the log states that it must be pushed
//! again.
//!
//! After an orderly restart the scrub continues where it was. After an unclean stop it continues at
//! a random position, so that a node that is always killed also verifies everything in time. The
//! scrub never counts as a use of the content, never leaves anything in the page cache that was not
//! there, and never writes.

mod schedule;
#[cfg(test)]
mod tests;
mod worker;

pub use worker::{Refill, Scrub};
