//! What a certificate says about its owner (RFC 5280).

use entrepot_config::CertificateStatus;
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

/// The identity of a client, from its certificate. The TLS handshake has verified it. It is an
/// extension of each request of the connection, next to the peer's address.
///
/// At the owner of an upload session, a forwarded request has the certificate of the node that
/// forwarded it, if any, and not the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The first URI of the subject alternative names (a SPIFFE ID), else the first DNS name, else
    /// the common name of the subject.
    pub name: String,
    /// The organizations of the subject.
    pub groups: Vec<String>,
}

impl ClientCertificate {
    /// `None` if the certificate has no name.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<ClientCertificate> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let alternatives = alternatives(&parsed);
        let uri = alternatives.iter().find_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
        let dns =
            alternatives.iter().find_map(|name| if let GeneralName::DNSName(dns) = name { Some(*dns) } else { None });
        let name = uri.or(dns).or_else(|| common_name(parsed.subject())).filter(|name| !name.is_empty())?;
        let groups = parsed.subject().iter_organization().filter_map(|group| group.as_str().ok());
        Some(ClientCertificate { name: name.to_owned(), groups: groups.map(str::to_owned).collect() })
    }
}

/// A certificate as `/status` shows it, and the end of its validity in seconds since the Unix epoch.
///
/// # Errors
/// If it cannot be parsed, as text.
pub fn describe(certificate: &CertificateDer<'_>) -> Result<(CertificateStatus, i64), String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let mut names: Vec<String> = alternatives(&parsed).iter().filter_map(|name| shown(name)).collect();
    if names.is_empty() {
        names.extend(common_name(parsed.subject()).map(str::to_owned));
    }
    let validity = parsed.validity();
    let status = CertificateStatus {
        not_before: date(&validity.not_before),
        not_after: date(&validity.not_after),
        issuer: parsed.issuer().to_string(),
        names,
    };
    Ok((status, validity.not_after.timestamp()))
}

fn alternatives<'a>(certificate: &'a X509Certificate<'_>) -> &'a [GeneralName<'a>] {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension.map_or(&[], |extension| extension.value.general_names.as_slice())
}

fn common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    name.iter_common_name().find_map(|name| name.as_str().ok())
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn date(time: &ASN1Time) -> String {
    time.to_datetime().format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}
