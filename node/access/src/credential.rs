//! What a client sends to prove its identity.

use crate::AuthError;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use secrecy::SecretString;

/// Base64 with or without padding, because some scripts leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A credential of a request. The debug output contains no secret.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A token, from `Authorization: Bearer`.
    Bearer(SecretString),
    /// A user name and a password, from `Authorization: Basic` or from a form of the token service.
    /// The password may be a token of an issuer; its user name then does not matter.
    Password {
        /// The name of the user.
        name: String,
        /// The password.
        password: SecretString,
    },
}

impl Credential {
    /// Parses the value of an `Authorization` header (RFC 7617, RFC 6750). `None` for an empty user
    /// name with an empty password: podman and skopeo send it if they know no user.
    ///
    /// # Errors
    /// `Refused` if it is neither Basic nor Bearer, or is malformed.
    pub fn parse(header: &[u8]) -> Result<Option<Credential>, AuthError> {
        let malformed = || AuthError::refused("the Authorization header is malformed");
        let header = std::str::from_utf8(header).map_err(|_| malformed())?.trim();
        let (scheme, value) = header.split_once(' ').ok_or_else(malformed)?;
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Some(Credential::Bearer(value.into())));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(AuthError::refused("the scheme of the Authorization header is neither Basic nor Bearer"));
        }
        let decoded = BASE64.decode(value).map_err(|_| malformed())?;
        let decoded = String::from_utf8(decoded).map_err(|_| malformed())?;
        let (name, password) = decoded.split_once(':').ok_or_else(malformed)?;
        Ok(Credential::password(name, password))
    }

    /// A user name and a password. `None` if both are empty.
    #[must_use]
    pub fn password(name: &str, password: &str) -> Option<Credential> {
        let sent = !name.is_empty() || !password.is_empty();
        sent.then(|| Credential::Password { name: name.to_owned(), password: password.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn password(header: &str) -> Option<(String, String)> {
        match Credential::parse(header.as_bytes()).unwrap()? {
            Credential::Password { name, password } => Some((name, password.expose_secret().to_owned())),
            Credential::Bearer(_) => panic!("a token"),
        }
    }

    #[test]
    fn a_user_name_and_a_password_are_read() {
        let alice = Some(("alice".to_owned(), "a:b".to_owned()));
        assert_eq!(password("Basic YWxpY2U6YTpi"), alice);
        assert_eq!(password("basic  YWxpY2U6YTpi "), alice);
        assert_eq!(password("Basic YWxpY2U6"), Some(("alice".to_owned(), String::new())));
        assert_eq!(password("Basic Og=="), None);
        assert_eq!(password("Basic Og"), None);
    }

    #[test]
    fn a_token_is_read_and_never_printed() {
        let token = Credential::parse(b"Bearer secret-token").unwrap().unwrap();
        assert!(matches!(&token, Credential::Bearer(token) if token.expose_secret() == "secret-token"));
        assert!(!format!("{token:?}").contains("secret-token"));
    }

    #[test]
    fn what_is_neither_is_refused_without_its_text() {
        for header in ["Basic", "Basic !", "Basic YQ==", "Negotiate c2VjcmV0", "c2VjcmV0", ""] {
            let error = Credential::parse(header.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{error}");
        }
        assert!(Credential::parse(b"Basic \xff").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(header in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Credential::parse(&header));
        }
    }
}
