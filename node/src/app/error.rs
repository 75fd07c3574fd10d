//! Why a node does not start.

use crate::http::tls::TlsError;
use crate::observe;
use crate::store::StoreError;
use entrepot_bucket::OpenError;
use entrepot_config::ConfigError;
use std::io;
use std::net::SocketAddr;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is in use, or is not one of this machine.
    #[error("{field}: cannot listen on {address}: {source}")]
    Listen {
        /// The field of the configuration, such as `http.listen`.
        field: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The settings of the bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] OpenError),
    /// The directory of the store cannot be used.
    #[error("store.path: {0}")]
    Store(#[from] StoreError),
    /// The files of access control are missing or invalid.
    #[error(transparent)]
    Access(#[from] ConfigError),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Two metrics have the same name, which is a programming error.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The log cannot be written as configured.
    #[error(transparent)]
    Log(#[from] observe::tracing::LogError),
    /// The system refuses threads or signal handlers.
    #[error("cannot {what}: {source}")]
    System {
        /// The action, as in "start threads".
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}
