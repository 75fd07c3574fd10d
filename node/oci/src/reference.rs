//! A reference to a manifest: a tag or a digest.

use super::digest::{Digest, DigestError};
use super::text::written_as_text;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A valid tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(Arc<str>);

impl Tag {
    /// Parses a tag (distribution-spec, "Pulling manifests").
    ///
    /// # Errors
    /// If it is empty, longer than 128 characters, or contains other characters.
    pub fn parse(text: &str) -> Result<Tag, ReferenceError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let mut bytes = text.bytes();
        let valid = bytes.next().is_some_and(word)
            && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
            && text.len() <= 128;
        if valid { Ok(Tag(text.into())) } else { Err(ReferenceError::Tag) }
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

written_as_text!(Tag, ReferenceError);

/// A reference to a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A name that may point to another manifest later.
    Tag(Tag),
    /// The manifest with this digest.
    Digest(Digest),
}

/// Why a text is neither a tag nor a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not a tag, and not a digest because it has no `:`.
    #[error("invalid tag: must be 1 to 128 letters, digits, '_', '.' or '-', and start with a letter, digit or '_'")]
    Tag,
    /// It has a `:` and is not a valid digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Parses a tag or a digest. Text with a colon is a digest, because a tag has none.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        if text.contains(':') {
            Ok(Reference::Digest(Digest::parse(text)?))
        } else {
            Ok(Reference::Tag(Tag::parse(text)?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags_of_the_specification_are_accepted_and_others_refused() {
        for tag in ["latest", "_", "v1.2.3-rc_1", "A", &"a".repeat(128)] {
            assert!(Tag::parse(tag).is_ok(), "{tag}");
        }
        for tag in ["", ".", "-a", "..", "a/b", "a b", "é", &"a".repeat(129)] {
            assert!(Tag::parse(tag).is_err(), "{tag}");
        }
    }

    proptest! {
        #[test]
        fn any_valid_reference_is_displayed_unchanged(text in "\\PC{0,140}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
