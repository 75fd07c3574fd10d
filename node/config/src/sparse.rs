//! A configuration without the fields that have their default value. A node of an older version can
//! read it too, because a field that the older version does not know is written only if it differs
//! from its default.

use crate::{ConfigError, NodeConfig, S3};
use serde_json::Value;

impl NodeConfig {
    /// Writes the fields that differ from their defaults, as YAML that [`NodeConfig::from_yaml`]
    /// can read.
    ///
    /// # Errors
    /// If the serializer fails. It cannot fail for these types.
    pub fn to_sparse_yaml(&self) -> Result<String, ConfigError> {
        let value =
            |config: &NodeConfig| serde_json::to_value(config).map_err(|error| ConfigError::Write(error.to_string()));
        let mut default = NodeConfig::default();
        // The default configuration has no `bucket.s3`, but the fields of `bucket.s3` have
        // defaults.
        default.bucket.s3 = self.bucket.s3.as_ref().map(|_| S3::default());
        let mut config = value(self)?;
        prune(&mut config, &value(&default)?);
        serde_saphyr::to_string(&config).map_err(|error| ConfigError::Write(error.to_string()))
    }
}

/// Removes the members of `value` that are null or equal to those of `default`.
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
    fn only_differences_are_written_and_the_whole_configuration_is_read_back() {
        let mut config = NodeConfig::default();
        assert_eq!(config.to_sparse_yaml().unwrap().trim(), "{}");
        config.bucket.s3 = Some(S3 { name: "images".into(), ..S3::default() });
        config.bucket.file_system = None;
        config.store.low_free = Threshold::percent(7);
        let text = config.to_sparse_yaml().unwrap();
        assert!(!text.contains("targetFree") && !text.contains("region"), "{text}");
        assert!(!text.contains("checksums"), "an older node does not know this field: {text}");
        assert_eq!(NodeConfig::from_yaml(&text).unwrap(), config);
    }
}
