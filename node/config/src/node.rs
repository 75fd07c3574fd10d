//! The name of a node and the addresses of its peers.

use crate::{NodeName, PeerAddress, PeerUrl, Peers};
use schemars::JsonSchema;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The name of this node and the addresses of its peers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Node {
    /// The name of this node: a DNS label, unique among the nodes that share the bucket. In a
    /// StatefulSet, use the name of the pod. The id of an upload session contains this name.
    /// `${VAR}` is replaced by the environment variable VAR.
    #[serde(deserialize_with = "name")]
    #[schemars(with = "String")]
    pub name: NodeName,
    /// URL of another node, in which `{node}` stands for the name of that node, for example
    /// `https://{node}.images.registry.svc:5000`. In the host, a dot and a domain must follow
    /// `{node}`, because a client can choose the name. Requests that belong to an upload session of
    /// another node are forwarded to this URL. If neither this field nor `peers` is set, a client
    /// must send all requests of an upload to the same node.
    #[schemars(with = "Option<String>")]
    pub peer_url: Option<PeerUrl>,
    /// URLs of the other nodes by their names, for nodes without DNS names, for example
    /// `{images-1: "http://10.0.0.7:5000"}`. At most one of `peerUrl` and `peers` can be set.
    // The former name of `peerUrl`, which scripts that run against every build still write, is this
    // field with a template.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    pub peers: Option<Peers>,
    /// File (PEM) with the certificates of the authorities that sign the certificates of the other
    /// nodes, in addition to those of the system. It applies to `https` URLs of `peerUrl` and
    /// `peers`. A change of the file is applied within seconds.
    pub peer_ca_file: Option<PathBuf>,
}

impl Node {
    /// The address of another node. `None` if it has none, or if its name, which a client may have
    /// invented, is a number: the resolver would take it for an IPv4 address.
    #[must_use]
    pub fn peer(&self, node: &NodeName) -> Option<PeerAddress> {
        if is_number(node) {
            return None;
        }
        let listed = self.peers.as_ref().and_then(|peers| peers.of(node));
        listed.or_else(|| self.peer_url.as_ref().and_then(|url| url.of(node)))
    }

    /// Whether any other node is reached over TLS.
    #[must_use]
    pub fn has_https_peers(&self) -> bool {
        self.peer_url.as_ref().is_some_and(PeerUrl::is_https) || self.peers.as_ref().is_some_and(Peers::any_https)
    }
}

/// Whether a resolver could take the name for a number (`inet_aton`: decimal, octal or hexadecimal).
pub(crate) fn is_number(name: &NodeName) -> bool {
    let text = name.as_str();
    let hexadecimal = text.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Reads a name, in which `${VAR}` stands for an environment variable.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeName, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expanded = expand(&text, |name| std::env::var(name).ok()).map_err(D::Error::custom)?;
    NodeName::parse(&expanded).map_err(D::Error::custom)
}

/// Replaces each `${VAR}` by the value of the environment variable.
fn expand(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else {
            return Err("unterminated variable reference: missing '}'".into());
        };
        expanded.push_str(before);
        let value = environment(name).ok_or_else(|| format!("the environment variable {name} is not set"))?;
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_a_number_is_never_a_peer() {
        let node = Node { peer_url: Some(PeerUrl::parse("http://{node}.peers").unwrap()), ..Node::default() };
        for (name, known) in [("images-0", true), ("a1", true), ("0xfg", true), ("2130706433", false), ("0x7f", false)]
        {
            assert_eq!(node.peer(&NodeName::parse(name).unwrap()).is_some(), known, "{name}");
        }
    }

    #[test]
    fn variables_are_replaced_by_their_values() {
        let environment = |name: &str| (name == "POD").then(|| "images-0".to_owned());
        assert_eq!(expand("${POD}", environment).unwrap(), "images-0");
        assert_eq!(expand("a-${POD}-${POD}", environment).unwrap(), "a-images-0-images-0");
        assert_eq!(expand("images", environment).unwrap(), "images");
        assert!(expand("${NOPE}", environment).unwrap_err().contains("NOPE is not set"));
        assert!(expand("${POD", environment).is_err());
    }
}
