//! A configuration without what is the default anyway: a node of another version reads it, too, for a field that it
//! does not know is only written where it matters.

use crate::{ConfigError, NodeConfig, S3};
use serde_json::Value;

impl NodeConfig {
    /// Writes only what differs from the defaults, as YAML that [`NodeConfig::from_yaml`] reads back.
    ///
    /// # Errors
    /// When the serializer fails, which these types give it no cause for.
    pub fn to_sparse_yaml(&self) -> Result<String, ConfigError> {
        let value =
            |config: &NodeConfig| serde_json::to_value(config).map_err(|error| ConfigError::Write(error.to_string()));
        let mut default = NodeConfig::default();
        // A default node has no S3, but the fields of one have defaults.
        default.bucket.s3 = self.bucket.s3.as_ref().map(|_| S3::default());
        let mut config = value(self)?;
        prune(&mut config, &value(&default)?);
        serde_saphyr::to_string(&config).map_err(|error| ConfigError::Write(error.to_string()))
    }
}

/// Removes from `value` what `default` has, and what is absent by being null.
fn prune(value: &mut Value, default: &Value) {
    let Value::Object(members) = value else { return };
    members.retain(|name, member| {
        let default = default.get(name).unwrap_or(&Value::Null);
        if member.is_null() || member == default {
            return false;
        }
        prune(member, default);
        true
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Threshold;

    #[test]
    fn only_what_differs_is_written_and_all_is_read_back() {
        let mut config = NodeConfig::default();
        assert_eq!(config.to_sparse_yaml().unwrap().trim(), "{}");
        config.bucket.s3 = Some(S3 { name: "images".into(), ..S3::default() });
        config.bucket.file_system = None;
        config.store.low_free = Threshold::percent(7);
        let text = config.to_sparse_yaml().unwrap();
        assert!(!text.contains("targetFree") && !text.contains("region"), "{text}");
        assert!(!text.contains("checksums"), "an older node does not know it: {text}");
        assert_eq!(NodeConfig::from_yaml(&text).unwrap(), config);
    }
}
