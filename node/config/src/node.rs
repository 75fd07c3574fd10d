//! The name of a node and the addresses of its peers.

use crate::{NodeName, PeerUrl};
use schemars::JsonSchema;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

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
    /// `http://{node}.images.registry.svc:5000`. Requests that belong to an upload session of
    /// another node are forwarded to this URL. If unset, a client must send all requests of an
    /// upload to the same node.
    // `peers` is its former name, which scripts that run against every build still write.
    #[serde(alias = "peers")]
    #[schemars(with = "Option<String>")]
    pub peer_url: Option<PeerUrl>,
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
    fn variables_are_replaced_by_their_values() {
        let environment = |name: &str| (name == "POD").then(|| "images-0".to_owned());
        assert_eq!(expand("${POD}", environment).unwrap(), "images-0");
        assert_eq!(expand("a-${POD}-${POD}", environment).unwrap(), "a-images-0-images-0");
        assert_eq!(expand("images", environment).unwrap(), "images");
        assert!(expand("${NOPE}", environment).unwrap_err().contains("NOPE is not set"));
        assert!(expand("${POD", environment).is_err());
    }
}
