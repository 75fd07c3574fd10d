//! Where another node listens.

use http::uri::Authority;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Scheme, host and port of another node, such as `https://10.0.0.7:5000`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress {
    scheme: PeerScheme,
    authority: Authority,
}

/// How a node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerScheme {
    /// Without TLS.
    Http,
    /// Over TLS.
    Https,
}

impl PeerScheme {
    /// The beginning of a URL with this scheme.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            PeerScheme::Http => "http://",
            PeerScheme::Https => "https://",
        }
    }
}

/// A text is not the address of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} must have the form http://host:port or https://host:port, without a path, a query or a fragment")]
pub struct PeerAddressError(String);

impl PeerAddress {
    /// Parses the address. A slash at its end is ignored.
    ///
    /// # Errors
    /// If it has another scheme, a user name, a path, a query, a fragment, or no host.
    pub fn parse(text: &str) -> Result<PeerAddress, PeerAddressError> {
        let refused = || PeerAddressError(text.to_owned());
        let of = |scheme: PeerScheme| Some((scheme, text.strip_prefix(scheme.prefix())?));
        let (scheme, rest) = of(PeerScheme::Http).or_else(|| of(PeerScheme::Https)).ok_or_else(refused)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: Authority = rest.parse().map_err(|_| refused())?;
        let has_port = authority.as_str().len() > authority.host().len();
        if authority.host().is_empty() || rest.contains('@') || has_port && authority.port_u16().is_none() {
            return Err(refused());
        }
        Ok(PeerAddress { scheme, authority })
    }

    /// How this node is reached.
    #[must_use]
    pub fn scheme(&self) -> PeerScheme {
        self.scheme
    }

    /// Whether this node is reached over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.scheme == PeerScheme::Https
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scheme.prefix(), self.authority)
    }
}

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<PeerAddress, PeerAddressError> {
        PeerAddress::parse(text)
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = PeerAddressError;

    fn try_from(text: String) -> Result<PeerAddress, PeerAddressError> {
        PeerAddress::parse(&text)
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port() {
        for text in ["http://a", "https://a.b:5000", "http://10.0.0.7:5000", "https://[::1]:5000"] {
            assert_eq!(PeerAddress::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(PeerAddress::parse("https://a:1/").unwrap().to_string(), "https://a:1");
        for text in ["a:5000", "ftp://a", "http://", "http://:5000", "http://a:x", "http://a:99999", "http://u@a"] {
            assert_eq!(PeerAddress::parse(text), Err(PeerAddressError(text.into())));
        }
        for text in ["http://a/b", "http://a?b", "http://a#b", "http://a b"] {
            assert_eq!(PeerAddress::parse(text), Err(PeerAddressError(text.into())));
        }
    }
}
