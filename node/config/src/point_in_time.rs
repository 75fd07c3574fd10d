//! Points in time, as RFC 3339 writes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time after 1970, written as RFC 3339: `2026-11-01T00:00:00Z`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct PointInTime {
    text: String,
    milliseconds: u64,
}

/// A text is not a point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} must be a time after 1970 as RFC 3339, such as 2026-11-01T00:00:00Z")]
pub struct PointInTimeError(String);

impl PointInTime {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        self.milliseconds
    }
}

impl TryFrom<String> for PointInTime {
    type Error = PointInTimeError;

    fn try_from(text: String) -> Result<PointInTime, PointInTimeError> {
        let parsed = OffsetDateTime::parse(&text, &Rfc3339).ok();
        let milliseconds = parsed.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
        match milliseconds {
            Some(milliseconds) => Ok(PointInTime { text, milliseconds }),
            None => Err(PointInTimeError(text)),
        }
    }
}

impl From<PointInTime> for String {
    fn from(time: PointInTime) -> String {
        time.text
    }
}

impl fmt::Display for PointInTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_rfc_3339_is_read_and_written_as_it_was() {
        for (text, milliseconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-01T00:00:00Z", 1_793_491_200_000),
            ("2026-11-01T01:00:00.250+01:00", 1_793_491_200_250),
        ] {
            let time = PointInTime::try_from(text.to_owned()).unwrap();
            assert_eq!((time.milliseconds(), String::from(time).as_str()), (milliseconds, text));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "now",
            "2026-11-01",
            "2026-11-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "1969-12-31T00:00:00Z",
            "1793491200",
        ] {
            assert!(PointInTime::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
