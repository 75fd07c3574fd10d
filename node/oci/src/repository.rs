//! Repository names: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, components separated by `/`.

use super::text::written_as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Clients limit host and name together to 255 characters (distribution-spec, "Pulling manifests").
/// Here the limit applies to the name alone.
const MAX_NAME: usize = 255;

/// A valid repository name. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(Arc<str>);

/// Why a text is not a repository name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// It is empty or too long.
    #[error("invalid repository name: must be 1 to {MAX_NAME} characters long")]
    Length,
    /// A path component has another form.
    #[error(
        "invalid repository name: each path component must consist of lowercase letters and digits, separated by '.', \
         '_', '__' or dashes"
    )]
    Component,
}

impl Repository {
    /// Parses a repository name (distribution-spec, "Pulling manifests").
    ///
    /// # Errors
    /// If it is empty, longer than 255 characters, or has an invalid component. Invalid components
    /// include `.`, `..`, and everything that begins with `_`. So a name never leads out of its
    /// directory and never collides with a directory of the layout.
    pub fn parse(text: &str) -> Result<Repository, RepositoryError> {
        if text.is_empty() || text.len() > MAX_NAME {
            return Err(RepositoryError::Length);
        }
        if !text.split('/').all(is_component) {
            return Err(RepositoryError::Component);
        }
        Ok(Repository(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes
            .split(alphanumeric)
            .filter(|separator| !separator.is_empty())
            .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

written_as_text!(Repository, RepositoryError);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_names_of_the_specification_are_accepted() {
        for name in ["a", "library/alpine", "a.b/c_d/e__f/g---h", "0/1/2", &"a".repeat(255)] {
            assert!(Repository::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            "A",
            "a..b",
            "a___b",
            "_layers",
            "a/_layers",
            "a.-b",
            "-a",
            "a-",
            "ä",
            "a b",
            "a\0",
            "a%2fb",
            &"a".repeat(256),
        ] {
            assert!(Repository::parse(name).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_accepted_if_the_regular_expression_accepts_it(text in "[a-cA.0_/-]{0,12}") {
            let expected = regex::Regex::new(
                r"\A[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\z").unwrap();
            prop_assert_eq!(Repository::parse(&text).is_ok(), expected.is_match(&text), "{}", text);
        }
    }
}
