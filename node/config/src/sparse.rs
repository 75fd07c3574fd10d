//! A configuration without the fields that have their default value. A node of an older version can
//! read it too, because a field that the older version does not know is written only if it differs
//! from its default.

use crate::{BucketConfig, ConfigError, NodeConfig, S3};
use serde::Serialize;
use serde_json::{Value, json};

impl NodeConfig {
    /// Writes the fields that differ from their defaults, as YAML that [`NodeConfig::from_yaml`]
    /// can read.
    ///
    /// # Errors
    /// If the serializer fails. It cannot fail for these types.
    pub fn to_sparse_yaml(&self) -> Result<String, ConfigError> {
        write(&self.differing()?)
    }

    /// The same for several nodes: each takes its name from the environment variable `variable`.
    ///
    /// # Errors
    /// If the serializer fails. It cannot fail for these types.
    pub fn to_shared_yaml(&self, variable: &str) -> Result<String, ConfigError> {
        let mut config = self.differing()?;
        config["node"]["name"] = json!(format!("${{{variable}}}"));
        write(&config)
    }

    /// The fields that differ from their defaults.
    fn differing(&self) -> Result<Value, ConfigError> {
        let value =
            |config: &NodeConfig| serde_json::to_value(config).map_err(|error| ConfigError::Write(error.to_string()));
        let mut default = NodeConfig::default();
        // The default bucket is a directory, but the fields of `bucket.s3` also have defaults.
        if let BucketConfig::S3(_) = self.bucket.backend {
            default.bucket.backend = BucketConfig::S3(S3::default());
        }
        let mut config = value(self)?;
        prune(&mut config, &value(&default)?);
        Ok(config)
    }
}

pub(crate) fn write(config: &impl Serialize) -> Result<String, ConfigError> {
    serde_saphyr::to_string(config).map_err(|error| ConfigError::Write(error.to_string()))
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
    use crate::{NodeName, Threshold};

    #[test]
    fn only_differences_are_written_and_the_whole_configuration_is_read_back() {
        let mut config = NodeConfig::default();
        assert_eq!(config.to_sparse_yaml().unwrap().trim(), "{}");
        config.bucket.backend = BucketConfig::S3(S3 { name: "images".into(), ..S3::default() });
        config.store.low_free = Threshold::percent(7);
        let text = config.to_sparse_yaml().unwrap();
        assert!(!text.contains("targetFree") && !text.contains("region"), "{text}");
        assert!(!text.contains("checksums"), "an older node does not know this field: {text}");
        assert_eq!(NodeConfig::from_yaml(&text).unwrap(), config);
        let shared = config.to_shared_yaml("CARGO_PKG_NAME").unwrap();
        assert!(shared.contains("${CARGO_PKG_NAME}"), "{shared}");
        config.node.name = NodeName::parse(env!("CARGO_PKG_NAME")).unwrap();
        assert_eq!(NodeConfig::from_yaml(&shared).unwrap(), config);
    }
}
