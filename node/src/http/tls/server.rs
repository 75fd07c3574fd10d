//! The certificate of the registry API.

use super::certificate::describe;
use super::live::Live;
use super::pem::{CERT_FILE, KEY_FILE, Pem, PemFile, TlsError, own_certificate, text_of};
use super::provider;
use entrepot_config::{self as config, CertificateStatus, ClientCertificates};
use entrepot_runtime::clock::Timestamp;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;
use std::time::Duration;

const CLIENT_CA_FILE: &str = "http.tls.clientCaFile";

/// Protocols in the order of preference (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The TLS configuration of the registry API, which changes with its files. Clones share it.
#[derive(Clone)]
pub struct ServerTls {
    live: Arc<Live<Served>>,
    /// `http.tls.maxConnectionAge`.
    max_connection_age: Duration,
}

struct Served {
    config: Arc<ServerConfig>,
    certificate: CertificateStatus,
    not_after: i64,
}

impl ServerTls {
    /// Reads the files. Blocking.
    ///
    /// # Errors
    /// If they are invalid.
    pub fn load(tls: &config::Tls, now: Timestamp) -> Result<ServerTls, TlsError> {
        let mut files = vec![PemFile::new(CERT_FILE, &tls.cert_file), PemFile::new(KEY_FILE, &tls.key_file)];
        files.extend(tls.client_ca_file.as_ref().map(|path| PemFile::new(CLIENT_CA_FILE, path)));
        let clients = tls.client_certificates;
        let live = Live::load(files, Box::new(move |texts, now| served(texts, clients, now)), now)?;
        Ok(ServerTls { live: Arc::new(live), max_connection_age: tls.max_connection_age.get() })
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.live.current().config)
    }

    /// `http.tls.maxConnectionAge`.
    pub fn max_connection_age(&self) -> Duration {
        self.max_connection_age
    }

    /// The certificate in use.
    pub fn certificate(&self) -> CertificateStatus {
        self.live.current().certificate.clone()
    }

    /// End of the validity of the certificate in use, in seconds since the Unix epoch.
    pub fn not_after(&self) -> i64 {
        self.live.current().not_after
    }

    /// Why the current files are not in use.
    pub fn refused(&self) -> Option<TlsError> {
        self.live.refused()
    }

    /// Reads the files again, and uses them if they changed and are valid. Blocking.
    pub fn reload(&self, now: Timestamp) {
        if self.live.reload(now) {
            let CertificateStatus { not_after, names, .. } = self.certificate();
            tracing::info!(names = names.join(", "), not_after, "new connections use the changed TLS files");
        }
    }
}

fn served(texts: &[Pem<'_>], clients: ClientCertificates, now: Timestamp) -> Result<Served, TlsError> {
    let (certificate, certified) = own_certificate(texts)?;
    let invalid = |why: String| certificate.refused(format!("invalid certificate: {why}"));
    let first = certified.end_entity_cert().map_err(|error| invalid(error.to_string()))?;
    let (status, not_after) = describe(first).map_err(invalid)?;
    if i64::try_from(now.0 / 1000).is_ok_and(|now| now >= not_after) {
        return Err(certificate.refused(format!("the certificate expired at {}; renew it", status.not_after)));
    }
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Library(error.to_string()))?;
    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let mut config = match text_of(texts, CLIENT_CA_FILE) {
        None => builder.with_no_client_auth().with_cert_resolver(resolver),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            authorities.add_to(&mut roots)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = match clients {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                ClientCertificates::Required => verifier,
            };
            let verifier = verifier.build().map_err(|error| authorities.refused(error.to_string()))?;
            let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
            // rustls copies the client's certificate from a resumed session without a check. So no
            // session is resumed: one could outlive the certificate or its authority.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    // Without client certificates, rustls keeps the sessions in a cache that belongs to this
    // configuration. A session never passes from one configuration to the next.
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Served { config: Arc::new(config), certificate: status, not_after })
}
