//! The conditions of a client for a change of a tag: `If-Match` and `If-None-Match` (RFC 9110,
//! sections 13.1.1 and 13.1.2). The entity tag of a manifest is its digest in quotes.

use entrepot_oci::Digest;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `If-Match: *`
    Exists,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match` with a list.
    OneOf(Vec<Digest>),
    /// `If-None-Match` with a list.
    NoneOf(Vec<Digest>),
}

/// All conditions of a request; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(pub Vec<Condition>);

impl Conditions {
    /// Whether the request has no condition.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all conditions hold for the manifest that the tag points to.
    pub fn hold(&self, current: Option<&Digest>) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Exists => current.is_some(),
            Condition::Absent => current.is_none(),
            Condition::OneOf(digests) => current.is_some_and(|current| digests.contains(current)),
            Condition::NoneOf(digests) => current.is_none_or(|current| !digests.contains(current)),
        })
    }
}
