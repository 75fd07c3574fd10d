//! Why access control cannot be built.

/// Why access control cannot be built from the configuration and its files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct AccessConfigError {
    /// The field of the configuration.
    pub field: &'static str,
    /// What is wrong.
    pub problem: String,
}
