//! The URL of another node.

use entrepot_oci::NodeName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Host and port of another node.
pub type PeerAddress = http::uri::Authority;

/// Stands for the name of the other node.
const NODE: &str = "{node}";

/// The URL of another node, such as `http://{node}.images.registry.svc:5000`: plain HTTP, without a
/// path. `{node}` stands for the name of that node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerUrl {
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
    #[error("{0:?} must have the form http://host:port, without a path, a query or a fragment")]
    Form(String),
}

impl PeerUrl {
    /// Parses the URL. A slash at its end is ignored.
    ///
    /// # Errors
    /// If `{node}` is missing, or the rest is not `http://host:port`.
    pub fn parse(text: &str) -> Result<PeerUrl, PeerUrlError> {
        if !text.contains(NODE) {
            return Err(PeerUrlError::NoPlaceholder);
        }
        let form = || PeerUrlError::Form(text.to_owned());
        let authority = text.strip_prefix("http://").ok_or_else(form)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let example = authority.replace(NODE, "node").parse::<PeerAddress>();
        let valid = example.is_ok_and(|address| !address.host().is_empty());
        if !valid || authority.contains(['/', '?', '#', '@']) {
            return Err(form());
        }
        Ok(PeerUrl { authority: authority.to_owned() })
    }

    /// The address of that node. `None` if its name, which a client may have invented, makes no
    /// address.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Option<PeerAddress> {
        self.authority.replace(NODE, node.as_str()).parse().ok()
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
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
            ("http://{node}.images.registry.svc:5000", "images-1.images.registry.svc:5000"),
            ("http://{node}.peers/", "images-1.peers"),
        ] {
            assert_eq!(PeerUrl::parse(url).unwrap().of(&name).unwrap(), address);
        }
        assert_eq!(PeerUrl::parse("http://{node}.peers/").unwrap().to_string(), "http://{node}.peers");
    }

    #[test]
    fn only_host_and_port_are_accepted() {
        assert_eq!(PeerUrl::parse("http://x"), Err(PeerUrlError::NoPlaceholder));
        for url in [
            "{node}.x:5000",
            "https://{node}.x:5000",
            "http://{node}.x:5000/path?q#z",
            "http://{node}.x:5000/path",
            "http://{node}.x:5000?q",
            "http://{node}.x:5000#z",
            "http://other.example/?{node}",
            "http://user@{node}.x:5000",
            "http:// {node}",
        ] {
            assert_eq!(PeerUrl::parse(url), Err(PeerUrlError::Form(url.into())), "{url}");
        }
    }
}
