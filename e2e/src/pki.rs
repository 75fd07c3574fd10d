//! A certificate authority, which issues the certificates that identify users and servers: those of
//! a cluster, and of registries with TLS.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// The group that has all permissions.
pub const ADMINISTRATORS: &str = "system:masters";

/// A certificate authority with its files in a folder.
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// # Errors
    /// If the folder cannot be written.
    pub fn new(folder: &Path) -> Result<Authority> {
        fs::create_dir_all(folder)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "entrepot-e2e");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Authority { folder: folder.to_owned(), issuer };
        fs::write(authority.certificate(), authority.issuer.pem())?;
        Ok(authority)
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Issues a certificate for a user or server with the common name `name`, the organisation
    /// `group` and the addresses `hosts`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn issue(&self, name: &str, group: &str, hosts: &[String]) -> Result<Identity> {
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = name.replace(':', "-");
        let identity = Identity {
            certificate: self.folder.join(format!("{file}.crt")),
            key: self.folder.join(format!("{file}.key")),
        };
        fs::write(&identity.certificate, certificate.pem())?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }

    /// A key pair without a certificate, for service account tokens: private and public key.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn key_pair(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let (private, public) = (self.folder.join(format!("{name}.key")), self.folder.join(format!("{name}.pub")));
        fs::write(&private, key.serialize_pem())?;
        fs::write(&public, key.public_key_pem())?;
        Ok((private, public))
    }

    /// Writes a self-contained kubeconfig, which can be copied.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn kubeconfig(&self, path: &Path, server: &str, identity: &Identity) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "entrepot", "cluster": {
                "server": server, "certificate-authority-data": encoded(&self.certificate())?,
            }}],
            "users": [{"name": "entrepot", "user": {
                "client-certificate-data": encoded(&identity.certificate)?, "client-key-data": encoded(&identity.key)?,
            }}],
            "contexts": [{"name": "entrepot", "context": {"cluster": "entrepot", "user": "entrepot"}}],
            "current-context": "entrepot",
        });
        fs::write(path, serde_json::to_vec_pretty(&config)?).with_context(|| path.display().to_string())
    }
}

/// A file in base64, the encoding of Kubernetes' `ByteString`.
fn encoded(path: &Path) -> Result<serde_json::Value> {
    Ok(serde_json::to_value(k8s_openapi::ByteString(fs::read(path)?))?)
}
