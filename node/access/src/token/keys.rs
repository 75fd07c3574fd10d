//! The keys that sign and verify tokens.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::{DecodingKey, EncodingKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::SecretString;
use std::fmt;
use std::sync::Arc;

/// The shortest key: the length of the output of SHA-256 (RFC 7518, section 3.2).
const SHORTEST_KEY: usize = 32;

/// The most keys of a file. A rotation needs two.
const MAX_KEYS: usize = 32;

/// Bytes of a key ID, enough to tell a few keys apart.
const KEY_ID_LENGTH: usize = 6;

/// Keys of HMAC-SHA-256. The first one signs, all of them verify. Cheap to clone; the debug output
/// contains the IDs alone.
#[derive(Clone)]
pub struct Keys(Arc<[Key]>);

pub(super) struct Key {
    /// The `kid` header of its tokens: what the key says of itself, so that a file needs no names.
    pub(super) id: String,
    pub(super) signs: EncodingKey,
    pub(super) verifies: DecodingKey,
}

/// Why a text is not a file of keys. No message contains text of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// No line has a key.
    #[error("has no key; write a line with the base64 of at least {SHORTEST_KEY} random bytes")]
    Empty,
    /// A line is not base64.
    #[error("line {line} is not base64")]
    Base64 {
        /// The number of the line, from 1.
        line: usize,
    },
    /// A key is too short.
    #[error("the key in line {line} is shorter than {SHORTEST_KEY} bytes")]
    Short {
        /// The number of the line, from 1.
        line: usize,
    },
    /// There are too many keys.
    #[error("has more than {MAX_KEYS} keys")]
    TooMany,
    /// No key could be generated.
    #[error("the system provides no random bytes for a key")]
    NoRandom,
}

impl Keys {
    /// Parses a file of keys: in each line, base64 of at least 32 bytes, standard or URL-safe, with or
    /// without padding. Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    /// If a line is not a key, or there is none. The error names the line.
    pub fn parse(text: &str) -> Result<Keys, KeyFileError> {
        let mut keys: Vec<Key> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let (line, content) = (number + 1, line.trim());
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let bytes = decode(content).ok_or(KeyFileError::Base64 { line })?;
            if bytes.len() < SHORTEST_KEY {
                return Err(KeyFileError::Short { line });
            }
            let key = Key::of(&bytes);
            if keys.iter().all(|known| known.id != key.id) {
                keys.push(key);
            }
            if keys.len() > MAX_KEYS {
                return Err(KeyFileError::TooMany);
            }
        }
        if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(Keys(keys.into())) }
    }

    /// One new random key.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn generate() -> Result<Keys, KeyFileError> {
        let mut bytes = [0; SHORTEST_KEY];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeyFileError::NoRandom)?;
        Ok(Keys([Key::of(&bytes)].into()))
    }

    /// The text of a file with these keys.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        let engine = base64::engine::general_purpose::STANDARD;
        self.0.iter().map(|key| engine.encode(key.signs.as_bytes()) + "\n").collect::<String>().into()
    }

    pub(super) fn signing(&self) -> Option<&Key> {
        self.0.first()
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl Key {
    fn of(bytes: &[u8]) -> Key {
        // An HMAC, so that the ID tells nothing of the key.
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), b"entrepot key id");
        let id = URL_SAFE_NO_PAD.encode(hash.as_ref().get(..KEY_ID_LENGTH).unwrap_or_default());
        Key { id, signs: EncodingKey::from_secret(bytes), verifies: DecodingKey::from_secret(bytes) }
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [STANDARD, URL_SAFE].iter().find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    const FIRST: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const SECOND: &str = "__79_Pv6-fj39vX08_Lx8O_u7ezr6uno5-bl5OPi4eA";

    fn ids(keys: &Keys) -> Vec<&str> {
        keys.0.iter().map(|key| key.id.as_str()).collect()
    }

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let keys = Keys::parse(&format!("# current\n{FIRST}\r\n\n  {SECOND}\n{FIRST}\n")).unwrap();
        let (first, second) = (Keys::parse(FIRST).unwrap(), Keys::parse(SECOND).unwrap());
        assert_eq!(ids(&keys), [ids(&first), ids(&second)].concat());
        assert_eq!(keys.signing().unwrap().id, ids(&first)[0]);
        assert!(keys.by_id(ids(&second)[0]).is_some() && keys.by_id("").is_none());
    }

    #[test]
    fn an_error_names_the_line_and_not_its_text() {
        let short = "c2VjcmV0";
        for (text, error) in [
            (String::new(), KeyFileError::Empty),
            ("# none\n\n".to_owned(), KeyFileError::Empty),
            (format!("{FIRST}\nhunter2!"), KeyFileError::Base64 { line: 2 }),
            (format!("#\n{short}"), KeyFileError::Short { line: 2 }),
        ] {
            let refused = Keys::parse(&text).unwrap_err();
            assert_eq!(refused, error);
            let told = format!("{refused} {refused:?}");
            assert!(!told.contains(short) && !told.contains("hunter2"), "{told}");
        }
        let key = |number: u32| format!("{:032}", number).bytes().map(char::from).collect::<String>();
        let many: Vec<_> =
            (0..40).map(|number| base64::engine::general_purpose::STANDARD.encode(key(number))).collect();
        assert_eq!(Keys::parse(&many.join("\n")).unwrap_err(), KeyFileError::TooMany);
    }

    #[test]
    fn a_generated_key_is_new_and_is_read_from_its_text() {
        let (one, other) = (Keys::generate().unwrap(), Keys::generate().unwrap());
        assert_ne!(ids(&one), ids(&other));
        assert_eq!(ids(&Keys::parse(one.to_text().expose_secret()).unwrap()), ids(&one));
    }

    #[test]
    fn debug_output_has_no_key() {
        let keys = Keys::parse(FIRST).unwrap();
        let told = format!("{keys:?} {:?}", keys.to_text());
        assert!(!told.contains("MDEy") && !told.contains("0123") && !told.contains("48, 49"), "{told}");
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in "[ \\PC\\n]{0,200}") {
            let _ = Keys::parse(&text);
        }
    }
}
