//! The CA certificates that a client trusts.

use super::{HttpsError, Trust};
use entrepot_runtime::tasks::blocking;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Trust {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            Trust::System(file) => file.as_ref(),
            Trust::Only(file) => Some(file),
        }
    }
}

/// The text of the CA file. Empty if there is none.
pub(super) async fn read(trust: &Trust) -> Result<Vec<u8>, HttpsError> {
    let Some(path) = trust.file().cloned() else { return Ok(Vec::new()) };
    let file = path.clone();
    let text = blocking(move || std::fs::read(file)).await.flatten();
    text.map_err(|error| HttpsError::CaFile { path, problem: error.to_string() })
}

/// The configuration of TLS that trusts the certificates of this text.
pub(super) async fn tls(trust: &Trust, text: &[u8]) -> Result<ClientConfig, HttpsError> {
    let mut roots = RootCertStore::empty();
    if let Trust::System(_) = trust {
        // Certificates of the system that cannot be used are left out, as everywhere else.
        let system = blocking(rustls_native_certs::load_native_certs).await;
        let system = system.map_err(|error| HttpsError::Tls(error.to_string()))?;
        roots.add_parsable_certificates(system.certs);
    }
    if let Some(path) = trust.file() {
        add(&mut roots, path, text)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| HttpsError::Tls(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn add(roots: &mut RootCertStore, path: &Path, text: &[u8]) -> Result<(), HttpsError> {
    let refused = |problem: String| HttpsError::CaFile { path: path.to_owned(), problem };
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| refused(format!("it is not a PEM file with certificates: {error}")))?;
    if found.is_empty() {
        return Err(refused("it contains no certificate".to_owned()));
    }
    found.into_iter().try_for_each(|certificate| roots.add(certificate).map_err(|error| refused(error.to_string())))
}
