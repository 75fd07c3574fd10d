//! A registry node. It stores uploads on its local disk and replicates them to a bucket, fetches
//! missing content from the bucket, evicts content when the store fills up, and periodically
//! verifies stored content. `docs/explanation/architecture.md` describes the design.
//!
//! Imports point down only; `e2e/src/layers.rs` checks it:
//!
//! ```text
//! app                                                              wiring, live configuration, shutdown
//! http                                                             the API
//! discover  fetch  manage  replicate  upload  clean  scrub         flows; none imports another
//! repository                                                       layout, links, tags
//! store                                                            this node's disk
//! observe                                                          metrics, logs
//! entrepot_bucket  entrepot_oci  entrepot_runtime  entrepot_config crates
//! ```

pub mod app;
pub mod clean;
pub mod discover;
pub mod fetch;
pub mod http;
pub mod manage;
pub mod observe;
pub mod replicate;
pub mod repository;
pub mod scrub;
pub mod store;
pub mod upload;

#[cfg(test)]
mod testing;
