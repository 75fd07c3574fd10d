//! TLS of the registry API.

use crate::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The certificate of the registry API (TLS 1.2 and 1.3). The node reads the files again every two
/// seconds and applies a change to new connections. If the new files are invalid, or the key does
/// not belong to the certificate, or the certificate has expired, the previous ones stay in use; a
/// log line, a metric and `/status` say so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Tls {
    /// File (PEM) with the certificate, followed by the intermediate certificates. Required.
    pub cert_file: PathBuf,
    /// File (PEM) with the private key of the certificate: PKCS#8, PKCS#1 or SEC1, without a
    /// passphrase. Required.
    pub key_file: PathBuf,
    /// File (PEM) with the certificates of the authorities that sign the certificates of clients. If
    /// unset, clients are not asked for a certificate.
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client must have a certificate of an authority in `clientCaFile`.
    pub client_certificates: ClientCertificates,
    /// A connection ends after this time: the node sends `Connection: close` or GOAWAY, and requests
    /// in progress still complete. It limits for how long a client certificate that has expired or
    /// whose authority was removed is still in use.
    pub max_connection_age: Duration,
}

/// Whether a client must have a certificate of an authority in `clientCaFile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientCertificates {
    /// A client may connect without a certificate. A certificate that it sends must be valid.
    #[default]
    Optional,
    /// A client without a valid certificate cannot connect. Other nodes are clients too: they
    /// identify themselves with their own `certFile`, which must be valid for client authentication.
    Required,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_ca_file: None,
            client_certificates: ClientCertificates::default(),
            max_connection_age: Duration::from_secs(3600),
        }
    }
}
