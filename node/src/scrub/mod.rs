//! Scrub: reads what is stored, in turn and at a bounded rate, to find what has decayed. A round over everything takes
//! `store.scrub.period`.
//!
//! Content that does not match its digest is removed by the store, which counts and logs it, and is filled again from the
//! bucket. Content that is not durable yet has no other copy: it is removed all the same, because it must not be sent,
//! and the log says that it has to be pushed again.
//!
//! It goes on after an orderly restart where it was, and after an unclean stop at a random place: a node that is always
//! killed comes past everything in time, too. It counts as no use, keeps nothing in the system's memory that was not
//! there, and writes nothing.

mod schedule;
#[cfg(test)]
mod tests;
mod worker;

pub use worker::{Refill, Scrub};
