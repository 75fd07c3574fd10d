//! What RegistryClusters may use of the operator's rights. Whoever may create a RegistryCluster has
//! the operator create pods, ServiceAccounts, Services and Ingresses, so the administrator who
//! installs the operator sets these limits.

use globset::{Glob, GlobSet, GlobSetBuilder};
use std::str::FromStr;

/// The limits. Each names its field in the values of the chart.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// `allowed.nodeImages`, in addition to every tag and digest of the default image.
    pub node_images: Patterns,
    /// `allowed.serviceAccountAnnotations`
    pub service_account_annotations: Patterns,
    /// `allowed.ingressAnnotations`
    pub ingress_annotations: Patterns,
    /// `allowed.serviceAnnotations`
    pub service_annotations: Patterns,
    /// `allowed.priorityClasses`
    pub priority_classes: Patterns,
    /// `allowed.endpoints`: hosts of S3 endpoints.
    pub endpoints: Patterns,
}

/// Patterns such as `eks.amazonaws.com/*`; `*` stands for any text. Parsed from a list that is
/// separated by commas.
#[derive(Clone, Debug, Default)]
pub struct Patterns(GlobSet);

impl Patterns {
    /// Whether one of the patterns matches the whole text.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl FromStr for Patterns {
    type Err = globset::Error;

    fn from_str(list: &str) -> Result<Patterns, globset::Error> {
        let mut all = GlobSetBuilder::new();
        for pattern in list.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
            all.add(Glob::new(pattern)?);
        }
        Ok(Patterns(all.build()?))
    }
}

/// The image without its tag and digest.
pub fn repository(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    // A colon before the last slash belongs to a port.
    let name = image.rfind('/').map_or(0, |slash| slash + 1);
    image[name..].find(':').map_or(image, |colon| &image[..name + colon])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_a_whole_text_and_an_empty_list_nothing() {
        let patterns: Patterns = "eks.amazonaws.com/*, example.com/exact".parse().unwrap();
        assert!(patterns.matches("eks.amazonaws.com/role-arn") && patterns.matches("example.com/exact"));
        assert!(!patterns.matches("my.eks.amazonaws.com/role-arn") && !patterns.matches("example.com/exact-not"));
        for nothing in ["", " ", ",,"] {
            let patterns: Patterns = nothing.parse().unwrap();
            assert!(!patterns.matches("") && !patterns.matches("a"), "{nothing:?}");
        }
        assert!("*".parse::<Patterns>().unwrap().matches("a.b/c:d@e"));
        assert!("[".parse::<Patterns>().is_err());
    }

    #[test]
    fn a_repository_is_an_image_without_tag_and_digest() {
        for image in ["a.example:5000/b/node", "a.example:5000/b/node:1", "a.example:5000/b/node:1@sha256:0123"] {
            assert_eq!(repository(image), "a.example:5000/b/node");
        }
        assert_eq!((repository("node:1"), repository("node")), ("node", "node"));
    }
}
