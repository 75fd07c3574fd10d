//! Where a manifest has a descriptor.

use std::fmt;

/// Where a manifest has a descriptor. Displayed as the path of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `config`.
    Config,
    /// The index in `layers`.
    Layer(usize),
    /// The index in `manifests`.
    Manifest(usize),
    /// `subject`.
    Subject,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Config => f.write_str("config"),
            Place::Layer(index) => write!(f, "layers[{index}]"),
            Place::Manifest(index) => write!(f, "manifests[{index}]"),
            Place::Subject => f.write_str("subject"),
        }
    }
}
