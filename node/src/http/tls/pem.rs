//! The files with certificates and keys. Every error names the field of the configuration.

use super::provider;
use entrepot_oci::{Algorithm, Digest};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};

pub const CERT_FILE: &str = "http.tls.certFile";
pub const KEY_FILE: &str = "http.tls.keyFile";

/// Why TLS cannot be used as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or is invalid.
    #[error("{field}: {path}: {why}")]
    File {
        /// The field of the configuration.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A field is required.
    #[error("{field}: the file is not set")]
    Unset {
        /// The field of the configuration.
        field: &'static str,
    },
    /// An error of the TLS library, which these options rule out.
    #[error("http.tls: {0}")]
    Library(String),
}

/// A file that a field of the configuration names.
pub struct PemFile {
    pub field: &'static str,
    pub path: PathBuf,
}

/// The text of a file.
pub struct Pem<'a> {
    file: &'a PemFile,
    text: Vec<u8>,
}

impl PemFile {
    pub fn new(field: &'static str, path: &Path) -> PemFile {
        PemFile { field, path: path.to_owned() }
    }

    /// Reads the file. Blocking.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<Pem<'_>, TlsError> {
        let text = std::fs::read(&self.path).map_err(|error| self.refused(format!("cannot read it: {error}")))?;
        Ok(Pem { file: self, text })
    }

    fn refused(&self, why: impl Into<String>) -> TlsError {
        TlsError::File { field: self.field, path: self.path.clone(), why: why.into() }
    }
}

impl Pem<'_> {
    /// Identifies the text. Texts are compared by it, so that no second copy of a key stays in
    /// memory.
    pub fn digest(&self) -> Digest {
        Digest::of(Algorithm::Sha256, &self.text)
    }

    /// An error about this file.
    pub fn refused(&self, why: impl Into<String>) -> TlsError {
        self.file.refused(why)
    }

    /// The certificates, in their order.
    ///
    /// # Errors
    /// If there is none, or the text is not PEM.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        let found = found.map_err(|error| self.refused(format!("not a PEM file with certificates: {error}")))?;
        if found.is_empty() {
            return Err(self.refused("it contains no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)"));
        }
        Ok(found)
    }

    /// Adds the certificates to those of trusted authorities.
    ///
    /// # Errors
    /// If there is none, or one is invalid.
    pub fn add_to(&self, roots: &mut RootCertStore) -> Result<(), TlsError> {
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.refused(format!("invalid certificate: {error}")))?;
        }
        Ok(())
    }
}

/// The text of a field's file. `None` if the field is not set.
pub fn text_of<'a>(texts: &'a [Pem<'a>], field: &str) -> Option<&'a Pem<'a>> {
    texts.iter().find(|text| text.file.field == field)
}

/// The node's own certificate, as a file and parsed with its chain and its key.
///
/// # Errors
/// If either file is invalid, or they do not belong together.
pub fn own_certificate<'a>(texts: &'a [Pem<'a>]) -> Result<(&'a Pem<'a>, CertifiedKey), TlsError> {
    let certificate = text_of(texts, CERT_FILE).ok_or(TlsError::Unset { field: CERT_FILE })?;
    let key = text_of(texts, KEY_FILE).ok_or(TlsError::Unset { field: KEY_FILE })?;
    Ok((certificate, certified_key(certificate, key)?))
}

fn certified_key(certificate: &Pem<'_>, key: &Pem<'_>) -> Result<CertifiedKey, TlsError> {
    let chain = certificate.certificates()?;
    // The error of the parser says nothing of the content.
    let private = PrivateKeyDer::from_pem_slice(&key.text).map_err(|error| {
        key.refused(format!(
            "not a PEM file with a private key (PKCS#8, PKCS#1 or SEC1, without a passphrase): {error}"
        ))
    })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            key.refused(format!("the key does not belong to the certificate in {}", certificate.file.field))
        }
        Error::InvalidCertificate(error) => certificate.refused(format!("invalid certificate: {error}")),
        error => key.refused(format!("cannot use the private key: {error}")),
    })
}
