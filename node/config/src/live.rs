//! Which fields of a changed configuration a running node applies, and which need a restart.

use crate::{Audit, NodeConfig, Store};
use serde_json::Value;

/// Fields that a running node applies at once, with all fields below them. A change of any other
/// field needs a restart.
pub const LIVE_FIELDS: [&str; 4] = ["audit", "auth", "store.lowFree", "store.targetFree"];

/// Whether a running node applies a change of this field, such as `auth.rules`, at once.
#[must_use]
pub fn is_live(field: &str) -> bool {
    let below = |live: &&str| field.strip_prefix(*live).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    LIVE_FIELDS.iter().any(below)
}

impl NodeConfig {
    /// The configuration with the defaults in the live fields. If two configurations are equal in
    /// this form, a change from one to the other needs no restart.
    #[must_use]
    pub fn at_start(&self) -> NodeConfig {
        let defaults = Store::default();
        let mut config = self.clone();
        (config.store.low_free, config.store.target_free) = (defaults.low_free, defaults.target_free);
        (config.auth, config.audit) = (None, Audit::default());
        config
    }

    /// The paths of the fields in which `other` differs, sorted by name.
    pub fn differences(&self, other: &NodeConfig) -> Vec<String> {
        let mut found = Vec::new();
        // The conversion cannot fail for these types. If it did, report the whole configuration as
        // different.
        match (serde_json::to_value(self), serde_json::to_value(other)) {
            (Ok(one), Ok(other)) => compare("", &one, &other, &mut found),
            _ => found.push(String::new()),
        }
        found
    }
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    if let (Value::Object(members), Value::Object(others)) = (one, other) {
        for (name, value) in members {
            let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            compare(&field, value, others.get(name).unwrap_or(&Value::Null), found);
        }
    } else if one != other {
        found.push(path.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Auth, BucketConfig, S3, Threshold};

    #[test]
    fn a_change_of_a_live_field_needs_no_restart() {
        let old = NodeConfig::default();
        let mut new = old.clone();
        (new.store.low_free, new.store.target_free) = (Threshold::percent(1), Threshold::percent(2));
        new.auth = Some(Auth::default());
        new.audit.writes = false;
        let changed = old.differences(&new);
        assert_eq!(changed, ["audit.writes", "auth", "store.lowFree", "store.targetFree"]);
        assert!(changed.iter().all(|field| is_live(field)));
        assert!(is_live("auth.rules") && !is_live("authority") && !is_live("store"));
        assert_eq!(old.at_start(), new.at_start());
        new.read_only = true;
        assert_ne!(old.at_start(), new.at_start());
    }

    #[test]
    fn a_difference_is_named_by_its_path() {
        let (old, mut new) = (NodeConfig::default(), NodeConfig::default());
        assert!(old.differences(&new).is_empty());
        new.http.max_requests = 7;
        new.bucket.backend = BucketConfig::S3(S3::default());
        assert_eq!(old.differences(&new), ["bucket.fileSystem", "bucket.s3", "http.maxRequests"]);
    }
}
