//! Why a configuration is invalid. Every error names the field.

/// Why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not valid YAML, or has an unknown field or a value of the wrong type.
    #[error("{path}: {message}")]
    Form {
        /// Path of the field, such as `bucket.s3.name`.
        path: String,
        /// What is wrong, for people.
        message: String,
    },
    /// The value of a field is invalid.
    #[error("{field}: {problem}")]
    Value {
        /// Path of the field, such as `store.lowFree`.
        field: String,
        /// What is wrong with the value, for people.
        problem: String,
    },
    /// A value has no form in YAML. This does not happen for a valid configuration.
    #[error("cannot write the configuration: {0}")]
    Write(String),
}
