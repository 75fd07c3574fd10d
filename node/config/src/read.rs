//! Parsing and writing of a configuration.

use crate::sparse::write;
use crate::{ConfigError, NodeConfig, Peers, validate};

impl NodeConfig {
    /// Parses and validates a configuration. `${VAR}` in `node.name` is replaced by an environment
    /// variable of this process.
    ///
    /// # Errors
    /// If the text is not valid YAML, or contains an unknown field or an invalid value. The error
    /// names the path of the field.
    pub fn from_yaml(text: &str) -> Result<NodeConfig, ConfigError> {
        // The deserializer reads an empty document as null, which is not a map. It means the defaults.
        let blank = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        let mut config = if blank { NodeConfig::default() } else { parse(text)? };
        if let Some(listen) = config.http.old_operations.take() {
            config.operations.listen = listen;
        }
        config.node.peers = match (config.node.peers.take(), &config.node.peer_url) {
            (Some(Peers::Template(url)), None) => {
                config.node.peer_url = Some(url);
                None
            }
            (peers, _) => peers,
        };
        validate::check(&config)?;
        Ok(config)
    }

    /// Writes the configuration as YAML that [`NodeConfig::from_yaml`] can read.
    ///
    /// # Errors
    /// If the serializer fails. It cannot fail for these types.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        write(self)
    }
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

#[cfg(test)]
mod tests;
