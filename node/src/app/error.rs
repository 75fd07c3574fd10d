//! Why a node does not start.

use crate::observe;
use crate::store::StoreError;
use entrepot_bucket::OpenError;
use std::io;
use std::net::SocketAddr;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{field}: cannot listen on {address}: {source}")]
    Listen { field: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Bucket(#[from] OpenError),
    #[error("store.path: {0}")]
    Store(#[from] StoreError),
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Log(#[from] observe::tracing::LogError),
    #[error("cannot {what}: {source}")]
    System { what: &'static str, source: io::Error },
}
