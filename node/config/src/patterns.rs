//! Patterns of tags.

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

/// Patterns such as `v*` or `release-?.?`, compiled once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct TagPatterns {
    patterns: Vec<String>,
    compiled: GlobSet,
}

/// A text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct PatternError(#[from] globset::Error);

impl TagPatterns {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// If one of them is not valid.
    pub fn new(patterns: Vec<String>) -> Result<TagPatterns, PatternError> {
        let mut all = GlobSetBuilder::new();
        for pattern in &patterns {
            all.add(Glob::new(pattern)?);
        }
        let compiled = all.build()?;
        Ok(TagPatterns { patterns, compiled })
    }

    /// Whether one of the patterns matches the whole tag.
    #[must_use]
    pub fn matches(&self, tag: &str) -> bool {
        self.compiled.is_match(tag)
    }

    /// Whether there is no pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

impl PartialEq for TagPatterns {
    fn eq(&self, other: &TagPatterns) -> bool {
        self.patterns == other.patterns
    }
}

impl TryFrom<Vec<String>> for TagPatterns {
    type Error = PatternError;

    fn try_from(patterns: Vec<String>) -> Result<TagPatterns, PatternError> {
        TagPatterns::new(patterns)
    }
}

impl From<TagPatterns> for Vec<String> {
    fn from(patterns: TagPatterns) -> Vec<String> {
        patterns.patterns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_a_whole_tag() {
        let patterns = TagPatterns::new(vec!["v*".into(), "release-?.?".into()]).unwrap();
        for tag in ["v", "v1.2.3", "release-1.2"] {
            assert!(patterns.matches(tag), "{tag}");
        }
        for tag in ["latest", "my-v1", "release-1.20"] {
            assert!(!patterns.matches(tag), "{tag}");
        }
        assert!(!patterns.is_empty() && TagPatterns::default().is_empty());
        assert!(TagPatterns::new(vec!["[".into()]).is_err());
    }
}
