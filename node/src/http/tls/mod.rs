//! Certificates and keys of the listener of the registry API and of the connections to other nodes,
//! by rustls with ring.
//!
//! - `pem`: the files that fields of the configuration name.
//! - `live`: a value that is made of files, and made again when their text changes.
//! - `certificate`: what a certificate says about its owner.
//! - `server` and `peer`: the configurations of the two directions.
//!
//! This folder accepts no connection (`listen` does), and decides nothing about what a client may
//! do.

mod certificate;
mod live;
mod peer;
mod pem;
mod server;

pub use certificate::ClientCertificate;
pub use peer::PeerTls;
pub use pem::TlsError;
pub use server::ServerTls;

use rustls::crypto::{CryptoProvider, ring};
use std::sync::Arc;

/// The cryptography of all connections.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
