//! Upload session IDs: `<node>.<uuid>`, so that every node can tell from the ID which node owns the
//! session.

use super::node_name::NodeName;
use super::text::written_as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A text is not a session ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an upload session ID of this registry")]
pub struct SessionIdError;

/// The ID of an upload session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId {
    owner: NodeName,
    uuid: Uuid,
}

impl SessionId {
    /// A new ID of a session that `owner` stores. It is random, so that no client can guess the ID
    /// of another session.
    pub fn new(owner: NodeName) -> SessionId {
        SessionId { owner, uuid: Uuid::new_v4() }
    }

    /// Parses `<node>.<uuid>`.
    ///
    /// # Errors
    /// If the first part is not a DNS label, or the second is not a UUID in lowercase hyphenated
    /// form.
    pub fn parse(text: &str) -> Result<SessionId, SessionIdError> {
        let (owner, uuid) = text.split_once('.').ok_or(SessionIdError)?;
        let id = SessionId {
            owner: NodeName::parse(owner).map_err(|_| SessionIdError)?,
            uuid: Uuid::try_parse(uuid).map_err(|_| SessionIdError)?,
        };
        if id.to_string() == text { Ok(id) } else { Err(SessionIdError) }
    }

    /// The node that owns the session.
    pub fn owner(&self) -> &NodeName {
        &self.owner
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.owner, self.uuid)
    }
}

written_as_text!(SessionId, SessionIdError);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_id_is_valid_and_contains_its_owner() {
        let id = SessionId::new(NodeName::parse("images-0").unwrap());
        assert_eq!(SessionId::parse(&id.to_string()).unwrap(), id);
        assert_eq!(id.owner().as_str(), "images-0");
    }

    #[test]
    fn an_id_cannot_address_another_host_or_leave_its_directory() {
        let uuid = Uuid::new_v4();
        for owner in ["", "a.b", "evil.example:80/", "..", "a/b", "A", "-a", "a@b"] {
            assert!(SessionId::parse(&format!("{owner}.{uuid}")).is_err(), "{owner}");
        }
        assert!(SessionId::parse(&format!("a.{}", uuid.simple())).is_err());
        assert!(SessionId::parse(&format!("a.{}", uuid.to_string().to_uppercase())).is_err());
    }

    proptest! {
        #[test]
        fn any_valid_id_is_displayed_unchanged(text in "\\PC{0,120}") {
            if let Ok(id) = SessionId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
