//! Upload session ids: `<node>.<uuid>`, so that every node knows from the id whose session it is.

use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// The name of a node: a DNS label (RFC 1123), in a StatefulSet the pod's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeName(Arc<str>);

/// Why a text is not a session id or a node name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionIdError {
    #[error("a node name is a DNS label: 1 to 63 lower-case letters, digits and '-', not at an end")]
    NodeName,
    #[error("not an upload session id of this registry")]
    Form,
}

impl NodeName {
    /// Parses a DNS label.
    ///
    /// # Errors
    /// When it is not one. This is what keeps a session id, which a client sends, from naming any other host than a
    /// peer.
    pub fn parse(text: &str) -> Result<NodeName, SessionIdError> {
        let valid = (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid { Ok(NodeName(text.into())) } else { Err(SessionIdError::NodeName) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an upload session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    owner: NodeName,
    uuid: Uuid,
}

impl SessionId {
    /// A new id of a session that `owner` keeps. It is random, so that nobody guesses another's session.
    pub fn new(owner: NodeName) -> SessionId {
        SessionId { owner, uuid: Uuid::new_v4() }
    }

    /// Parses `<node>.<uuid>`.
    ///
    /// # Errors
    /// When the first part is not a DNS label or the second not a UUID in its lower-case hyphenated form.
    pub fn parse(text: &str) -> Result<SessionId, SessionIdError> {
        let (owner, uuid) = text.split_once('.').ok_or(SessionIdError::Form)?;
        let id = SessionId {
            owner: NodeName::parse(owner)?,
            uuid: Uuid::try_parse(uuid).map_err(|_| SessionIdError::Form)?,
        };
        if id.to_string() == text { Ok(id) } else { Err(SessionIdError::Form) }
    }

    /// The node that keeps the session.
    pub fn owner(&self) -> &NodeName {
        &self.owner
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.owner, self.uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_id_is_read_back_and_names_its_owner() {
        let id = SessionId::new(NodeName::parse("images-0").unwrap());
        assert_eq!(SessionId::parse(&id.to_string()).unwrap(), id);
        assert_eq!(id.owner().as_str(), "images-0");
    }

    #[test]
    fn an_id_cannot_name_another_host_or_leave_its_folder() {
        let uuid = Uuid::new_v4();
        for owner in ["", "a.b", "evil.example:80/", "..", "a/b", "A", "-a", "a@b"] {
            assert!(SessionId::parse(&format!("{owner}.{uuid}")).is_err(), "{owner}");
        }
        assert!(SessionId::parse(&format!("a.{}", uuid.simple())).is_err());
        assert!(SessionId::parse(&format!("a.{}", uuid.to_string().to_uppercase())).is_err());
    }

    proptest! {
        #[test]
        fn any_id_that_parses_is_written_back_unchanged(text in "\\PC{0,120}") {
            if let Ok(id) = SessionId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
