//! A number of pods, or a percentage of them, as in the spec of a PodDisruptionBudget.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A number of pods, or a percentage of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Pods(i32),
    /// From 0 to 100.
    Percent(u8),
}

/// The schema admits exactly what [`Count`] reads. The limits apply to numbers, the pattern to text.
pub(super) fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true, "minimum": 0, "maximum": i32::MAX, "pattern": "^(100|[0-9]{1,2})%$",
    })
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Count::Pods(number) => serializer.serialize_i32(*number),
            Count::Percent(percent) => serializer.collect_str(&format_args!("{percent}%")),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        deserializer.deserialize_any(AnyForm)
    }
}

struct AnyForm;

impl Visitor<'_> for AnyForm {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of pods such as 1, or a percentage such as 50%")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Count, E> {
        let problem = || E::custom(format!("{number} must be at most {}", i32::MAX));
        i32::try_from(number).map(Count::Pods).map_err(|_| problem())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Count, E> {
        let problem = || E::custom(format!("{number} must not be negative"));
        u64::try_from(number).map_err(|_| problem()).and_then(|number| self.visit_u64(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Count, E> {
        let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let percent = digits.and_then(|digits| digits.parse().ok()).filter(|percent| *percent <= 100);
        percent.map(Count::Percent).ok_or_else(|| E::custom(format!("{text:?} is not a percentage such as 50%")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<Count, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn a_number_and_a_percentage_are_read_and_written_in_their_form() {
        for value in [json!(0), json!(i32::MAX), json!("0%"), json!("100%")] {
            assert_eq!(serde_json::to_value(read(value.clone()).unwrap()).unwrap(), value);
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_text() {
        for wrong in
            [json!("1"), json!("101%"), json!("+1%"), json!("%"), json!(""), json!(-1), json!(4_294_967_296_u64)]
        {
            let error = read(wrong.clone()).unwrap_err().to_string();
            assert!(error.contains(&wrong.to_string()), "{error}");
        }
        assert!(read(json!(1.5)).is_err() && read(json!(null)).is_err());
    }
}
