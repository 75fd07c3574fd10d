//! Parsing and writing of a configuration. Every error names the field.

use crate::{NodeConfig, validate};

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

pub(crate) fn from_yaml(text: &str) -> Result<NodeConfig, ConfigError> {
    // The deserializer reads an empty document as null, which is not a map. It means the defaults.
    let blank = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let config = if blank { NodeConfig::default() } else { parse(text)? };
    validate::check(&config)?;
    Ok(config)
}

fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
    let mut track = serde_path_to_error::Track::new();
    let parsed = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde::Deserialize::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
    });
    parsed.map_err(|error: serde_saphyr::Error| {
        let path = match track.path().to_string().as_str() {
            "." => "the configuration".to_owned(),
            path => path.to_owned(),
        };
        // Without the source snippet, which would repeat the message.
        let options = serde_saphyr::render_options! { snippets: serde_saphyr::SnippetMode::Off };
        ConfigError::Form { path, message: error.render_with_options(options) }
    })
}

pub(crate) fn to_yaml(config: &NodeConfig) -> Result<String, ConfigError> {
    serde_saphyr::to_string(config).map_err(|error| ConfigError::Write(error.to_string()))
}

#[cfg(test)]
mod tests;
