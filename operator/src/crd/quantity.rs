//! Quantities in the form of Kubernetes: `500m`, `1Gi`, `1e3`, or a plain number.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Number of parts in one unit. Kubernetes stores no smaller fraction than a billionth.
const NANO: i128 = 1_000_000_000;

/// An amount of a resource. It is always serialized as text, as the API server does, even if it was
/// a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    text: String,
    nanos: i128,
}

impl Quantity {
    /// The value in billionths. It is equal for two notations of one quantity. A value that is too
    /// large for the type is the largest one of the type.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// Whether Kubernetes stores the value as it is, instead of the largest value that it can store.
    pub fn is_storable(&self) -> bool {
        self.nanos <= i128::from(i64::MAX) * NANO
    }
}

/// The schema admits only what [`Quantity`] reads. The minimum applies to numbers, the other limits to
/// text.
pub(super) fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let pattern = "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$";
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true, "minimum": 0, "minLength": 1, "maxLength": 32, "pattern": pattern,
    })
}

/// A text that is not a quantity.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a quantity: must be a number such as 2, or a number with a suffix such as 500m or 1Gi")]
pub struct NotAQuantity(String);

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Quantity, NotAQuantity> {
        let nanos = nanos(text).ok_or_else(|| NotAQuantity(text.to_owned()))?;
        Ok(Quantity { text: text.to_owned(), nanos })
    }
}

/// Parses the grammar that `k8s.io/apimachinery/pkg/api/resource.Quantity` documents. Fractions
/// below a billionth are rounded up, as in Kubernetes.
fn nanos(text: &str) -> Option<i128> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || fraction.contains('.') {
        return None;
    }
    let (times, divided) = factor(suffix)?;
    let scale = 10_i128.saturating_pow(u32::try_from(fraction.len()).ok()?).saturating_mul(divided);
    // Only digits are left, so the number can only be too large.
    let value = digits.parse().unwrap_or(i128::MAX).saturating_mul(times).saturating_mul(NANO);
    let rounded = value / scale + i128::from(value % scale != 0);
    Some(if negative { -rounded } else { rounded })
}

/// The multiplier and the divisor of a suffix.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let times = |base: i128, power: u32| Some((base.saturating_pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, NANO)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => times(1000, 1),
        "M" => times(1000, 2),
        "G" => times(1000, 3),
        "T" => times(1000, 4),
        "P" => times(1000, 5),
        "E" => times(1000, 6),
        "Ki" => times(1024, 1),
        "Mi" => times(1024, 2),
        "Gi" => times(1024, 3),
        "Ti" => times(1024, 4),
        "Pi" => times(1024, 5),
        "Ei" => times(1024, 6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.saturating_pow(exponent.unsigned_abs());
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quantity, D::Error> {
        deserializer.deserialize_any(AnyForm)
    }
}

/// Accepts text and every type of number, as the API server does.
struct AnyForm;

impl Visitor<'_> for AnyForm {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity such as 2, 500m or 1Gi")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<Quantity, serde_json::Error> {
        serde_json::from_value(value)
    }

    #[test]
    fn a_number_is_a_quantity_and_is_written_as_text() {
        for (number, text) in
            [(json!(4_294_967_296_u64), "4294967296"), (json!(2), "2"), (json!(0.5), "0.5"), (json!(-1), "-1")]
        {
            assert_eq!(serde_json::to_value(read(number).unwrap()).unwrap(), json!(text));
        }
        assert_eq!(serde_json::to_value(read(json!("1024Mi")).unwrap()).unwrap(), json!("1024Mi"));
    }

    #[test]
    fn two_notations_of_one_quantity_have_the_same_value() {
        for (one, other) in [
            ("1", "1000m"),
            ("1.5Gi", "1536Mi"),
            ("0.1e9", "100e6"),
            ("0.1234Gi", "132499741081600u"),
            (".05", "50m"),
            ("0.0105", "10500u"),
            ("1E", "1e18"),
            ("2.", "+2"),
        ] {
            let nanos = |text: &str| text.parse::<Quantity>().unwrap().nanos();
            assert_eq!(nanos(one), nanos(other), "{one} {other}");
        }
    }

    #[test]
    fn a_quantity_beyond_what_kubernetes_stores_is_read_and_recognised() {
        for large in ["1e99", "9223372036854775808", "8Ei", "99999999999999999999999999999Ei", &"9".repeat(60)] {
            assert!(!large.parse::<Quantity>().unwrap().is_storable(), "{large}");
        }
        for small in ["9223372036854775807", "7Ei", "1e-99", "0"] {
            assert!(small.parse::<Quantity>().unwrap().is_storable(), "{small}");
        }
    }

    #[test]
    fn an_invalid_quantity_is_refused_with_its_text() {
        for wrong in ["lots", "", ".", "1.2.3", "1gi", "1 Gi", "-", "1e", "1e99999999999", "--1", "0x10"] {
            let error = read(json!(wrong)).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?} is not a quantity")), "{error}");
        }
        assert!(read(json!(true)).is_err() && read(json!({})).is_err() && read(json!(null)).is_err());
    }
}
