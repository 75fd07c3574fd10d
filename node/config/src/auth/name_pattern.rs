//! Patterns of repository names in rules.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A pattern of repository names, such as `team-a/**` or `{namespace}/web-*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamePattern {
    parts: Vec<Part>,
}

/// A part of a pattern, between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `**`: any number of parts, also none.
    Any,
    /// `{claim}`: the value of this claim, which may consist of several parts.
    Claim(String),
    /// Text in which `*` stands for any characters, also none.
    Text(String),
}

/// A text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a pattern of repository names: its parts are **, a {{claim}}, or characters of names (a-z 0-9 . _ -) and *"
)]
pub struct NamePatternError(String);

impl NamePattern {
    /// Parses the text of a rule.
    ///
    /// # Errors
    /// If no name can match one of its parts.
    pub fn parse(text: &str) -> Result<NamePattern, NamePatternError> {
        let parts = text.split('/').map(Part::parse).collect::<Option<Vec<_>>>();
        parts.map(|parts| NamePattern { parts }).ok_or_else(|| NamePatternError(text.to_owned()))
    }

    /// The parts between the slashes.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl Part {
    /// The name of the claim that stands here.
    #[must_use]
    pub fn claim(&self) -> Option<&String> {
        match self {
            Part::Claim(name) => Some(name),
            Part::Any | Part::Text(_) => None,
        }
    }

    fn parse(text: &str) -> Option<Part> {
        if text == "**" {
            return Some(Part::Any);
        }
        if let Some(claim) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:".contains(&byte);
            return (!claim.is_empty() && claim.bytes().all(plain)).then(|| Part::Claim(claim.to_owned()));
        }
        let of_names = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte);
        (!text.is_empty() && !text.contains("**") && text.bytes().all(of_names)).then(|| Part::Text(text.to_owned()))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Any => f.write_str("**"),
            Part::Claim(name) => write!(f, "{{{name}}}"),
            Part::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, part) in self.parts.iter().enumerate() {
            let slash = if number == 0 { "" } else { "/" };
            write!(f, "{slash}{part}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for NamePattern {
    type Error = NamePatternError;

    fn try_from(text: String) -> Result<NamePattern, NamePatternError> {
        NamePattern::parse(&text)
    }
}

impl From<NamePattern> for String {
    fn from(pattern: NamePattern) -> String {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_written_as_it_was_read() {
        for text in ["**", "team-a/**", "{namespace}/**", "a/*/b", "a.b_c--d/web-*", "**/x"] {
            assert_eq!(NamePattern::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "/", "a//b", "A/**", "a/**b", "{}", "{a b}", "a{b}", "a/", "../x:y"] {
            assert!(NamePattern::parse(text).is_err(), "{text}");
        }
    }
}
