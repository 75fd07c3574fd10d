//! The names of nodes.

use super::text::written_as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The name of a node: a DNS label (RFC 1123). In a StatefulSet it is the name of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

/// A text is not the name of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} must be a DNS label: 1 to 63 lowercase letters, digits or '-', and start and end with a letter or digit"
)]
pub struct NodeNameError(String);

impl NodeName {
    /// Parses a DNS label.
    ///
    /// # Errors
    /// If it is not one. This prevents a session ID, which a client sends, from addressing any host
    /// but a peer.
    pub fn parse(text: &str) -> Result<NodeName, NodeNameError> {
        let valid = (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid { Ok(NodeName(text.into())) } else { Err(NodeNameError(text.to_owned())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a node that has no name in its configuration: `local`.
impl Default for NodeName {
    fn default() -> NodeName {
        NodeName("local".into())
    }
}

written_as_text!(NodeName, NodeNameError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label() {
        for name in ["a", "images-0", "11", &"a".repeat(63), NodeName::default().as_str()] {
            assert_eq!(NodeName::parse(name).unwrap().as_str(), name);
        }
        for name in ["", "a.b", "A", "-a", "a-", "a_b", "a b", &"a".repeat(64)] {
            assert_eq!(NodeName::parse(name), Err(NodeNameError(name.into())));
        }
    }
}
