//! Clients that speak TLS.

use crate::pki::Identity;
use anyhow::{Context, Result};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

/// A client that can connect only without TLS.
pub fn trusting_nobody() -> ClientConfig {
    client(RootCertStore::empty(), None).unwrap_or_else(|error| unreachable!("{error}"))
}

/// A client that trusts an authority, with a certificate of its own if it has one.
///
/// # Errors
/// If a file is invalid.
pub fn trusting(authority: &Path, own: Option<&Identity>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).context("cannot read the authority")?)?;
    client(roots, own)
}

fn client(roots: RootCertStore, own: Option<&Identity>) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    let Some(own) = own else { return Ok(builder.with_no_client_auth()) };
    let certificate = CertificateDer::from_pem_file(&own.certificate)?;
    Ok(builder.with_client_auth_cert(vec![certificate], PrivateKeyDer::from_pem_file(&own.key)?)?)
}
