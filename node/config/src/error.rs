//! Why a configuration is invalid. Every error names the field.

/// Why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not valid YAML, or has an unknown field or a value of the wrong type.
    #[error("{path}: {message}")]
    Form { path: String, message: String },
    /// The value of a field is invalid.
    #[error("{field}: {problem}")]
    Value { field: &'static str, problem: String },
    #[error("cannot write the configuration: {0}")]
    Write(String),
}
