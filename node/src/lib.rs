//! A registry node. It stores uploads on its local disk and replicates them to a bucket, fetches
//! missing content from the bucket, evicts content when the store fills up, and periodically
//! verifies stored content. `docs/architecture.md` describes the design.
//!
//! The flows (`upload`, `replicate`, `fetch`, `clean`, `scrub`) depend neither on each other nor on
//! `http`. What they share is in `oci`, `store` and `run`, and [`run::app`] wires them.

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
