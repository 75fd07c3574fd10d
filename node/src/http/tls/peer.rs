//! The connections to other nodes.

use super::live::Live;
use super::pem::{CERT_FILE, KEY_FILE, Pem, PemFile, TlsError, own_certificate, text_of};
use super::provider;
use entrepot_config::{ClientCertificates, NodeConfig};
use entrepot_runtime::clock::Timestamp;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// The TLS configuration for requests to other nodes, which changes with its files. Clones share it.
#[derive(Clone)]
pub struct PeerTls(Arc<Live<Arc<ClientConfig>>>);

const PEER_CA_FILE: &str = "node.peerCaFile";

impl PeerTls {
    /// Reads the files and the certificates of the system. Blocking. If no other node is reached over
    /// TLS, it reads nothing.
    ///
    /// # Errors
    /// If a file is invalid.
    pub fn load(config: &NodeConfig, now: Timestamp) -> Result<PeerTls, TlsError> {
        let mut files = Vec::new();
        let mut system = RootCertStore::empty();
        if config.node.has_https_peers() {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "cannot load certificates of the system");
            }
            system.add_parsable_certificates(found.certs);
            files.extend(config.node.peer_ca_file.as_ref().map(|path| PemFile::new(PEER_CA_FILE, path)));
            // Only where it is needed: a node's certificate is no identity of the client.
            if let Some(tls) = &config.http.tls
                && tls.client_certificates == ClientCertificates::Required
            {
                files.push(PemFile::new(CERT_FILE, &tls.cert_file));
                files.push(PemFile::new(KEY_FILE, &tls.key_file));
            }
        }
        let make = Box::new(move |texts: &[Pem<'_>], _| client(texts, system.clone()).map(Arc::new));
        Live::load(files, make, now).map(|live| PeerTls(Arc::new(live)))
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.current())
    }

    /// Why the current files are not in use.
    pub fn refused(&self) -> Option<TlsError> {
        self.0.refused()
    }

    /// Reads the files again, and uses them if they changed and are valid. Blocking.
    pub fn reload(&self, now: Timestamp) {
        if self.0.reload(now) {
            tracing::info!("new connections to other nodes use the changed TLS files");
        }
    }
}

fn client(texts: &[Pem<'_>], mut roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    if let Some(authorities) = text_of(texts, PEER_CA_FILE) {
        authorities.add_to(&mut roots)?;
    }
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Library(error.to_string()))?
        .with_root_certificates(roots);
    if text_of(texts, CERT_FILE).is_none() {
        return Ok(builder.with_no_client_auth());
    }
    let (_, certified) = own_certificate(texts)?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))))
}
