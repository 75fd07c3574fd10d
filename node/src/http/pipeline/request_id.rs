//! `X-Request-Id`: the client's ID, or a new one.

use crate::http::headers::REQUEST_ID;
use axum::http::header::{HeaderMap, HeaderValue};

/// Longer than any usual ID, such as a UUID or a trace ID.
const MAX_LENGTH: usize = 128;

/// Identifies a request in the log and in error messages.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The ID that the client sent, if it is safe to write into a log; otherwise a new one.
    pub fn of(headers: &HeaderMap) -> RequestId {
        match headers.get(REQUEST_ID) {
            Some(value) if is_id(value.as_bytes()) => RequestId(value.clone()),
            _ => RequestId::new(),
        }
    }

    fn new() -> RequestId {
        // The thread's generator is used because the system's would cost one system call per
        // request.
        let uuid = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let mut buffer = uuid::Uuid::encode_buffer();
        let text = uuid.hyphenated().encode_lower(&mut buffer);
        RequestId(HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-")))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }

    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn is_id(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=MAX_LENGTH).contains(&bytes.len()) && bytes.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_id_is_kept_and_any_other_replaced() {
        let id_of = |sent: &'static str| {
            let mut map = HeaderMap::new();
            map.insert(REQUEST_ID, HeaderValue::from_static(sent));
            RequestId::of(&map).as_str().to_owned()
        };
        assert_eq!(id_of("00-4bf92f:3577"), "00-4bf92f:3577");
        for refused in ["", "a b", "a\"b", "a{b}", std::str::from_utf8(&[b'a'; 129]).unwrap().to_owned().leak()] {
            assert_eq!(id_of(Box::leak(refused.to_owned().into_boxed_str())).len(), 36, "{refused:?}");
        }
        assert_ne!(RequestId::new().as_str(), RequestId::new().as_str());
    }
}
