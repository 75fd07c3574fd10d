//! What a token says of itself. Nothing here is verified: it decides only who verifies the token,
//! and with which key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;

/// The header of a token, unverified. `None` if the text is not a token with such a header.
pub(crate) fn header_of<T: DeserializeOwned>(token: &str) -> Option<T> {
    part(token, 0)
}

/// The claims of a token, unverified. `None` if the text is not a token with such claims.
pub(crate) fn claims_of<T: DeserializeOwned>(token: &str) -> Option<T> {
    part(token, 1)
}

fn part<T: DeserializeOwned>(token: &str, number: usize) -> Option<T> {
    let mut parts = token.split('.');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(three.get(number)?).ok()?).ok()
}
