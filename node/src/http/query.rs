//! The query of a URL: limited in size, percent-decoded; the first value of each name counts.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::fmt::Display;

/// More parameters than any request of the specification has.
const MAX_PARAMETERS: usize = 16;

/// All characters except the unreserved ones of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parameters of a request, not yet decoded. `+` is a plus sign and not a space, because media
/// types contain it and clients do not encode it.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a>(&'a str);

/// Why a query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("the query must not have more than {MAX_PARAMETERS} parameters")]
    TooMany,
    #[error("query parameters must be percent-encoded UTF-8")]
    NotUtf8,
}

impl<'a> Query<'a> {
    /// # Errors
    /// If it has too many parameters.
    pub fn new(text: Option<&'a str>) -> Result<Query<'a>, QueryError> {
        let text = text.unwrap_or_default();
        let separators = text.bytes().filter(|byte| *byte == b'&').count();
        if separators >= MAX_PARAMETERS { Err(QueryError::TooMany) } else { Ok(Query(text)) }
    }

    /// The first value of a parameter. A parameter without a value, or with an empty one, counts as
    /// missing.
    ///
    /// # Errors
    /// If the value is not UTF-8.
    pub fn get(&self, name: &str) -> Result<Option<Cow<'a, str>>, QueryError> {
        self.values(name).next().transpose()
    }

    /// All values of a parameter that may be repeated, in their order.
    ///
    /// # Errors
    /// If a value is not UTF-8.
    pub fn all(&self, name: &str) -> Result<Vec<Cow<'a, str>>, QueryError> {
        self.values(name).collect()
    }

    fn values(&self, name: &str) -> impl Iterator<Item = Result<Cow<'a, str>, QueryError>> {
        let parameters = self.0.split('&').filter_map(|parameter| parameter.split_once('='));
        let named = parameters.filter(move |(key, value)| *key == name && !value.is_empty());
        named.map(|(_, value)| percent_decode_str(value).decode_utf8().map_err(|_| QueryError::NotUtf8))
    }
}

/// Encodes a value for a query.
pub fn encode(value: &str) -> impl Display + '_ {
    utf8_percent_encode(value, ENCODED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_value_counts_and_an_empty_one_does_not() {
        let query = Query::new(Some("n=&n=5&n=6&flag&last=a%2Fb")).unwrap();
        assert_eq!(query.get("n").unwrap().as_deref(), Some("5"));
        assert_eq!(query.get("last").unwrap().as_deref(), Some("a/b"));
        assert_eq!(query.get("flag"), Ok(None));
        assert_eq!(query.all("n").unwrap(), ["5", "6"]);
        assert!(query.all("flag").unwrap().is_empty());
        assert_eq!(Query::new(None).unwrap().get("n"), Ok(None));
    }

    #[test]
    fn a_plus_is_a_plus() {
        let query = Query::new(Some("artifactType=application/x+json")).unwrap();
        assert_eq!(query.get("artifactType").unwrap().as_deref(), Some("application/x+json"));
    }

    #[test]
    fn too_many_parameters_and_other_encodings_are_refused() {
        assert_eq!(Query::new(Some(&"a=1&".repeat(16))).err(), Some(QueryError::TooMany));
        assert_eq!(Query::new(Some("n=%ff")).unwrap().get("n"), Err(QueryError::NotUtf8));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(value in "\\PC{1,40}") {
            let text = format!("n={}", encode(&value));
            prop_assert_eq!(Query::new(Some(&text)).unwrap().get("n").unwrap().unwrap(), value);
        }
    }
}
