//! Sizes in bytes, durations and thresholds, in the form in which people write them in YAML.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A number of bytes, written as Kubernetes quantities are: `1073741824`, `512Mi`, `10Gi`, `5G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// A text is not a valid value of the expected unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// Binary and decimal suffixes, each group in descending order, because printing takes the first
/// that fits.
const SUFFIXES: [(&str, u64); 10] = [
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

impl ByteSize {
    /// This many bytes.
    pub const fn bytes(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    /// This many times 2^20 bytes.
    pub const fn mebibytes(count: u64) -> ByteSize {
        ByteSize(count << 20)
    }

    /// This many times 2^40 bytes.
    pub const fn tebibytes(count: u64) -> ByteSize {
        ByteSize(count << 40)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        let wrong = || UnitError(format!("{text:?} is not a number of bytes such as 512Mi, 10Gi or 5G"));
        let (number, factor) = SUFFIXES
            .iter()
            .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|number| (number, *factor)))
            .unwrap_or((text, 1));
        let number = decimal(number).ok_or_else(wrong)?;
        number.checked_mul(factor).map(ByteSize).ok_or_else(wrong)
    }
}

/// Parses a decimal number without a sign and without spaces.
fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SUFFIXES.iter().take(5);
        match binary.into_iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((suffix, factor)) => write!(f, "{}{suffix}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A duration: `250ms`, `10s`, `5m`, `24h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// Milliseconds of each unit. `ms` comes before `m` and `s`, because parsing takes the first suffix
/// that matches.
const DURATIONS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1000)];

impl Duration {
    /// This many seconds.
    pub const fn from_secs(seconds: u64) -> Duration {
        Duration(std::time::Duration::from_secs(seconds))
    }

    /// This many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Duration {
        Duration(std::time::Duration::from_millis(milliseconds))
    }

    /// The duration for the standard library.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Duration, UnitError> {
        let wrong = || UnitError(format!("{text:?} is not a duration such as 250ms, 10s, 5m, 24h or 7d"));
        let (number, factor) = DURATIONS
            .iter()
            .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|number| (number, *factor)))
            .ok_or_else(wrong)?;
        let number = decimal(number).ok_or_else(wrong)?;
        let milliseconds = number.checked_mul(factor).ok_or_else(wrong)?;
        Ok(Duration::from_millis(milliseconds))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (suffix, factor) = match milliseconds {
            0 => ("s", 1000),
            n if n.is_multiple_of(3_600_000) => ("h", 3_600_000),
            n if n.is_multiple_of(60_000) => ("m", 60_000),
            n if n.is_multiple_of(1000) => ("s", 1000),
            _ => ("ms", 1),
        };
        write!(f, "{}{suffix}", milliseconds / factor)
    }
}

/// A threshold of free space in the store: bytes, or a percentage of the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Threshold {
    /// A number of bytes.
    Bytes(ByteSize),
    /// From 0 to 100.
    Percent(u8),
}

impl Threshold {
    /// This part of the capacity, from 0 to 100.
    pub const fn percent(percent: u8) -> Threshold {
        Threshold::Percent(percent)
    }

    /// The threshold in bytes, for a store of `capacity` bytes.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Threshold::Bytes(size) => size.get(),
            Threshold::Percent(percent) => {
                let part = u128::from(capacity) * u128::from(percent) / 100;
                u64::try_from(part).unwrap_or(u64::MAX)
            }
        }
    }
}

impl FromStr for Threshold {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Threshold, UnitError> {
        let Some(number) = text.strip_suffix('%') else {
            return text.parse().map(Threshold::Bytes).map_err(|_| {
                UnitError(format!("{text:?} is neither bytes such as 10Gi nor a percentage such as 10%"))
            });
        };
        decimal(number)
            .and_then(|percent| u8::try_from(percent).ok())
            .filter(|percent| *percent <= 100)
            .map(Threshold::Percent)
            .ok_or_else(|| UnitError(format!("{text:?} is not a percentage from 0% to 100%")))
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threshold::Bytes(size) => size.fmt(f),
            Threshold::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Implements the YAML form of a unit (a string, or also a plain number if `numbers` is true) and
/// its schema.
macro_rules! written_as_text {
    ($type:ident, $numbers:expr, $expecting:expr, $pattern:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.trim().parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        if $numbers {
                            self.visit_str(&number.to_string())
                        } else {
                            Err(E::invalid_type(de::Unexpected::Unsigned(number), &self))
                        }
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$type, E> {
                        u64::try_from(number)
                            .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                            .and_then(|number| self.visit_u64(number))
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "x-unit": $expecting})
            }
        }
    };
}

written_as_text!(ByteSize, true, "bytes such as 512Mi, 10Gi or 5G", "^[0-9]+([KMGTP]i|[kMGTP])?$");
written_as_text!(Duration, false, "a duration such as 250ms, 10s, 5m, 24h or 7d", "^[0-9]+(ms|s|m|h|d)$");
written_as_text!(
    Threshold,
    true,
    "bytes such as 10Gi or a percentage such as 10%",
    "^([0-9]+([KMGTP]i|[kMGTP])?|(100|[0-9]{1,2})%)$"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_suffixes() {
        for (text, bytes) in [("0", 0), ("512Mi", 512 << 20), ("10Gi", 10 << 30), ("5G", 5_000_000_000), ("1k", 1000)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().get(), bytes, "{text}");
        }
        for text in ["", "Gi", "1.5Gi", "-1", "+1", "1 Gi", "1KB", "99999999999Pi", "1gi"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!("90s".parse::<Duration>().unwrap().get().as_secs(), 90);
        assert_eq!("250ms".parse::<Duration>().unwrap().get().as_millis(), 250);
        assert_eq!("5m".parse::<Duration>().unwrap(), Duration::from_secs(300));
        for text in ["", "5", "s", "5 s", "-5s", "1.5h", "99999999999999999999d"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_threshold_is_bytes_or_a_part_of_the_capacity() {
        assert_eq!("10%".parse::<Threshold>().unwrap().of(1000), 100);
        assert_eq!("1Ki".parse::<Threshold>().unwrap().of(1000), 1024);
        assert_eq!(Threshold::percent(100).of(u64::MAX), u64::MAX);
        for text in ["", "%", "101%", "-1%", "1.5%", "ten"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_value_is_parsed_back(bytes in any::<u64>(), milliseconds in 0u64..1 << 50, percent in 0u8..=100) {
            let size = ByteSize::bytes(bytes);
            prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(duration.to_string().parse::<Duration>().unwrap(), duration);
            let threshold = Threshold::percent(percent);
            prop_assert_eq!(threshold.to_string().parse::<Threshold>().unwrap(), threshold);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _ = (text.parse::<ByteSize>(), text.parse::<Duration>(), text.parse::<Threshold>());
        }
    }
}
