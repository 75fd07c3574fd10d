//! A registry node: it takes uploads into its local store and replicates them to a bucket, fetches from the bucket
//! what it does not store, cleans its store when it fills up, and verifies what it stores in time. `docs/architecture.md` tells the story.
//!
//! The flows (`upload`, `replicate`, `fetch`, `clean`, `scrub`) know neither each other nor `http`; what they share is in
//! `oci`, `store` and `run`, and [`run::app`] wires them.

pub mod clean;
pub mod discover;
pub mod fetch;
pub mod http;
pub mod manage;
pub mod observe;
pub mod oci;
pub mod replicate;
pub mod run;
pub mod scrub;
pub mod store;
pub mod upload;

#[cfg(test)]
mod testing;
