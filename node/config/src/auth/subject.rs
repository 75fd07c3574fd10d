//! Whom a rule is about.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whom a rule is about. In a name, `*` stands for any characters, and in both parts of a service
/// account separately.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// Every client, with or without credentials.
    Anonymous,
    /// Every client with credentials.
    Authenticated,
    /// A user of the users file, by name.
    User(String),
    /// A group that the identity is a member of, however it was proved.
    Group(String),
    /// A Kubernetes service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// An identity of this OpenID Connect issuer (`auth.oidc[].name`).
    Oidc(String),
    /// The name in a client certificate.
    Certificate(String),
}

/// A text is not a subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} must be anonymous, authenticated, user:NAME, group:NAME, serviceaccount:NAMESPACE/NAME, oidc:ISSUER or cert:NAME"
)]
pub struct SubjectError(String);

impl Subject {
    /// Parses the text of a rule.
    ///
    /// # Errors
    /// If it has none of the forms.
    pub fn parse(text: &str) -> Result<Subject, SubjectError> {
        let named = |name: &str| if name.is_empty() { None } else { Some(name.to_owned()) };
        let parsed = match text.split_once(':') {
            None if text == "anonymous" => Some(Subject::Anonymous),
            None if text == "authenticated" => Some(Subject::Authenticated),
            Some(("user", name)) => named(name).map(Subject::User),
            Some(("group", name)) => named(name).map(Subject::Group),
            Some(("oidc", name)) => named(name).map(Subject::Oidc),
            Some(("cert", name)) => named(name).map(Subject::Certificate),
            Some(("serviceaccount", account)) => match account.split_once('/') {
                Some((namespace, name)) if !name.contains('/') => named(namespace)
                    .zip(named(name))
                    .map(|(namespace, name)| Subject::ServiceAccount { namespace, name }),
                _ => None,
            },
            _ => None,
        };
        parsed.ok_or_else(|| SubjectError(text.to_owned()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Anonymous => f.write_str("anonymous"),
            Subject::Authenticated => f.write_str("authenticated"),
            Subject::User(name) => write!(f, "user:{name}"),
            Subject::Group(name) => write!(f, "group:{name}"),
            Subject::ServiceAccount { namespace, name } => write!(f, "serviceaccount:{namespace}/{name}"),
            Subject::Oidc(name) => write!(f, "oidc:{name}"),
            Subject::Certificate(name) => write!(f, "cert:{name}"),
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;

    fn try_from(text: String) -> Result<Subject, SubjectError> {
        Subject::parse(&text)
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> String {
        subject.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_written_as_it_was_read() {
        for text in
            ["anonymous", "authenticated", "user:a:b", "group:sre", "serviceaccount:*/ci", "oidc:github", "cert:x"]
        {
            assert_eq!(Subject::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "alice", "user:", "group", "serviceaccount:a", "serviceaccount:a/b/c", "serviceaccount:/b"] {
            assert!(Subject::parse(text).is_err(), "{text}");
        }
    }
}
