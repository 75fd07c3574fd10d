//! The URL of another node.

use crate::PeerAddress;
use crate::peer_address::{PeerAddressError, PeerScheme};
use entrepot_oci::NodeName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Stands for the name of the other node.
const NODE: &str = "{node}";

/// The URL of another node, such as `https://{node}.images.registry.svc:5000`, without a path.
/// `{node}` stands for the name of that node.
///
/// A client chooses the name, because an upload session ID contains it. So the host must end with a
/// name of this template: `{node}` alone would be any host of the network, and a name that consists
/// of digits is an IPv4 address to the resolver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerUrl {
    scheme: PeerScheme,
    /// Host and port, in which `{node}` stands for the name.
    authority: String,
}

/// Why a text is not the URL of another node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerUrlError {
    /// All nodes would have the same URL.
    #[error("must contain {NODE}, the placeholder for the name of the other node")]
    NoPlaceholder,
    /// It has another scheme, a user name, a path, a query, a fragment, or no host.
    #[error("{0:?} must have the form http://host:port or https://host:port, without a path, a query or a fragment")]
    Form(String),
    /// A client could choose the host or the port.
    #[error(
        "{0:?} must have {NODE} once, in the host, and after it a dot and the name of a domain, such as \
         http://{NODE}.images.registry.svc:5000; otherwise a client could choose the host. For nodes without DNS \
         names, list their URLs in node.peers"
    )]
    AnyHost(String),
}

impl PeerUrl {
    /// Parses the URL. A slash at its end is ignored.
    ///
    /// # Errors
    /// If `{node}` is missing or is not followed by the name of a domain, or the rest is not
    /// `http://host:port` or `https://host:port`.
    pub fn parse(text: &str) -> Result<PeerUrl, PeerUrlError> {
        if !text.contains(NODE) {
            return Err(PeerUrlError::NoPlaceholder);
        }
        let form = |_: PeerAddressError| PeerUrlError::Form(text.to_owned());
        let any_host = || PeerUrlError::AnyHost(text.to_owned());
        let example = PeerAddress::parse(&text.replace(NODE, "node")).map_err(form)?;
        let (before, after) = text.split_once(NODE).ok_or_else(any_host)?;
        let domain = after.strip_prefix('.').and_then(|rest| rest.split([':', '/']).next()).unwrap_or_default();
        if after.contains(NODE) || !is_domain(domain) {
            return Err(any_host());
        }
        let scheme = example.scheme();
        let before = before.strip_prefix(scheme.prefix()).ok_or_else(any_host)?;
        Ok(PeerUrl { scheme, authority: format!("{before}{NODE}{}", after.trim_end_matches('/')) })
    }

    /// The address of that node. `None` if its name, which a client may have invented, makes no
    /// address.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Option<PeerAddress> {
        PeerAddress::parse(&self.to_string().replace(NODE, node.as_str())).ok()
    }

    /// Whether nodes are reached over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.scheme == PeerScheme::Https
    }
}

/// Whether a host that ends with these labels is a name to every resolver. The last label of an IPv4
/// address is a number, possibly in hexadecimal (WHATWG URL, "ends in a number").
fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.split('.').all(label)
        && text.rsplit('.').next().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_alphabetic()))
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scheme.prefix(), self.authority)
    }
}

impl TryFrom<String> for PeerUrl {
    type Error = PeerUrlError;

    fn try_from(text: String) -> Result<PeerUrl, PeerUrlError> {
        PeerUrl::parse(&text)
    }
}

impl From<PeerUrl> for String {
    fn from(url: PeerUrl) -> String {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_node_is_put_into_the_address() {
        let name = NodeName::parse("images-1").unwrap();
        for (url, address) in [
            ("http://{node}.images.registry.svc:5000", "http://images-1.images.registry.svc:5000"),
            ("https://{node}.images.registry.svc:5000", "https://images-1.images.registry.svc:5000"),
            ("https://a-{node}.peers./", "https://a-images-1.peers."),
            ("http://{node}.peers/", "http://images-1.peers"),
        ] {
            assert_eq!(PeerUrl::parse(url).unwrap().of(&name).unwrap().to_string(), address);
        }
        assert_eq!(PeerUrl::parse("http://{node}.peers/").unwrap().to_string(), "http://{node}.peers");
    }

    #[test]
    fn only_host_and_port_are_accepted() {
        assert_eq!(PeerUrl::parse("http://x"), Err(PeerUrlError::NoPlaceholder));
        for url in [
            "{node}.x:5000",
            "ftp://{node}.x:5000",
            "http://{node}.x:5000/path?q#z",
            "http://{node}.x:5000/path",
            "http://{node}.x:5000?q",
            "http://{node}.x:5000#z",
            "http://other.example/?{node}",
            "http://user@{node}.x:5000",
            "http:// {node}",
            "http://127.0.0.1:{node}",
        ] {
            assert_eq!(PeerUrl::parse(url), Err(PeerUrlError::Form(url.into())), "{url}");
        }
    }

    #[test]
    fn a_template_in_which_the_node_could_be_any_host_is_refused() {
        for url in [
            "http://{node}:5000",
            "http://{node}",
            "http://{node}/",
            "http://{node}.",
            "http://{node}.:5000",
            "http://10.0.0.{node}:5000",
            "http://{node}.0.0.1:5000",
            "http://{node}.0x1",
            "http://{node}.x.7.",
            "http://{node}-x.y",
            "http://{node}.{node}.x",
            "http://{node}.x:{node}",
        ] {
            let refusal = PeerUrl::parse(url).unwrap_err();
            assert!(matches!(refusal, PeerUrlError::AnyHost(_) | PeerUrlError::Form(_)), "{url}: {refusal}");
        }
        let refusal = PeerUrl::parse("http://{node}:5000").unwrap_err().to_string();
        assert!(refusal.contains("after it a dot") && refusal.contains("node.peers"), "{refusal}");
    }
}
