//! The serde form of the types of this crate: their text, parsed and displayed as everywhere else.

/// Conversions for `#[serde(try_from = "String", into = "String")]`, from `parse` and `Display`.
macro_rules! written_as_text {
    ($type:ident, $error:ident) => {
        impl TryFrom<String> for $type {
            type Error = $error;

            fn try_from(text: String) -> Result<$type, $error> {
                $type::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}

pub(crate) use written_as_text;

#[cfg(test)]
mod tests {
    use crate::{Digest, NodeName, Repository, SessionId, Tag};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    fn read_and_written<T: DeserializeOwned + Serialize>(text: &str) {
        let json = format!("{text:?}");
        let value: T = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
    }

    fn refused<T: DeserializeOwned>(text: &str) {
        assert!(serde_json::from_str::<T>(&format!("{text:?}")).is_err(), "{text}");
        assert!(serde_json::from_str::<T>("7").is_err());
    }

    #[test]
    fn a_serialized_value_is_its_text_and_an_invalid_text_is_refused() {
        read_and_written::<Digest>("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        read_and_written::<Repository>("library/alpine");
        read_and_written::<Tag>("v1.2.3");
        read_and_written::<NodeName>("images-0");
        read_and_written::<SessionId>("images-0.67e55044-10b1-426f-9247-bb680e5fe0c8");
        refused::<Digest>("sha256:00");
        refused::<Repository>("../a");
        refused::<Tag>("a/b");
        refused::<NodeName>("a.b");
        refused::<SessionId>("images-0");
    }
}
