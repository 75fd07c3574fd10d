//! Parses parts of a spec with the types of the Kubernetes API and rejects unknown fields. The
//! schema accepts any fields there, and the API server would answer 500 only when the operator
//! applies the object.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Parses an optional value of the Kubernetes API type `T`.
///
/// # Errors
/// If a field has the wrong type, or if `T` has no such field. The message contains the path of the
/// field within the value.
pub(super) fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Serialize,
{
    let Some(given) = Option::<Value>::deserialize(deserializer)? else { return Ok(None) };
    let read: T = serde_path_to_error::deserialize(&given)
        .map_err(|error| D::Error::custom(format!("{}: {}", error.path(), error.inner())))?;
    let known = serde_json::to_value(&read).map_err(D::Error::custom)?;
    match unknown(&given, &known) {
        Some(path) => Err(D::Error::custom(format!("{path}: unknown field; check its spelling"))),
        None => Ok(Some(read)),
    }
}

/// The path of the first field of `given` that `T` does not have.
fn unknown(given: &Value, known: &Value) -> Option<String> {
    let join = |head: String, tail: String| match tail.as_str() {
        "" => head,
        _ if tail.starts_with('[') => format!("{head}{tail}"),
        _ => format!("{head}.{tail}"),
    };
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| match known.get(name) {
            // A null value means that the field is unset, so it is not serialized.
            None if value.is_null() => None,
            None => Some(name.clone()),
            Some(known) => Some(join(name.clone(), unknown(value, known)?)),
        }),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(position, (value, known))| Some(join(format!("[{position}]"), unknown(value, known)?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Affinity;
    use serde_json::json;

    fn read(value: Value) -> Result<Option<Affinity>, String> {
        optional(value).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn a_misspelt_field_is_refused_with_its_path() {
        let error = read(json!({"podAntiAfinity": {}})).unwrap_err();
        assert!(error.starts_with("podAntiAfinity: "), "{error}");
        let term = json!({"weight": 1, "podAffinityTerm": {"topologyKey": "a", "labelSelektor": {}}});
        let error = read(json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}));
        let path = "podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelektor";
        assert!(error.as_ref().unwrap_err().starts_with(path), "{error:?}");
    }

    #[test]
    fn a_field_of_the_wrong_type_is_refused_with_its_path() {
        let error = read(json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": 3}})).unwrap_err();
        assert!(error.starts_with("nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution: "), "{error}");
    }

    #[test]
    fn known_fields_are_accepted_and_may_be_empty_or_null() {
        let affinity = json!({"nodeAffinity": {}, "podAffinity": null, "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [],
        }});
        assert!(read(affinity).unwrap().is_some());
        assert_eq!(read(Value::Null).unwrap(), None);
    }
}
