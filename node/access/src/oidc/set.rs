//! The public keys of an issuer, and which of them verifies a token.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::str::FromStr;

/// The keys of an issuer (RFC 7517, section 5).
pub(super) struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    jwk: Jwk,
    decoding: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// How a token says that it is signed.
pub(super) struct Signed {
    pub(super) algorithm: Algorithm,
    named: KeyAlgorithm,
    kid: String,
}

impl Signed {
    /// `None` if the algorithm is not one of public keys that are accepted, or if no key is named:
    /// `none` and every HMAC are not accepted.
    pub(super) fn new(algorithm: &str, kid: Option<String>) -> Option<Signed> {
        let named = KeyAlgorithm::from_str(algorithm).ok()?;
        let algorithm = match named {
            KeyAlgorithm::RS256 => Algorithm::RS256,
            KeyAlgorithm::RS384 => Algorithm::RS384,
            KeyAlgorithm::RS512 => Algorithm::RS512,
            KeyAlgorithm::PS256 => Algorithm::PS256,
            KeyAlgorithm::ES256 => Algorithm::ES256,
            KeyAlgorithm::ES384 => Algorithm::ES384,
            KeyAlgorithm::EdDSA => Algorithm::EdDSA,
            _ => return None,
        };
        Some(Signed { algorithm, named, kid: kid? })
    }
}

impl KeySet {
    /// The keys of a JSON Web Key Set that can verify tokens. Others are left out: keys of kinds that
    /// are not supported, keys for encryption, and symmetric keys. `None` if the text is not a set.
    pub(super) fn parse(text: &[u8]) -> Option<KeySet> {
        let Document { keys } = serde_json::from_slice(text).ok()?;
        Some(KeySet { keys: keys.into_iter().filter_map(Key::new).collect() })
    }

    /// The keys with the ID that the token names and of the kind that its algorithm needs. An issuer
    /// may use one ID for keys of different kinds.
    pub(super) fn find<'a>(&'a self, signed: &'a Signed) -> impl Iterator<Item = &'a DecodingKey> {
        self.keys.iter().filter(|key| key.fits(signed)).map(|key| &key.decoding)
    }

    /// Whether there is a key for the token.
    pub(super) fn has(&self, signed: &Signed) -> bool {
        self.find(signed).next().is_some()
    }

    /// Whether the other set has the same keys in the same order.
    pub(super) fn is_same(&self, other: &KeySet) -> bool {
        self.keys.iter().map(|key| &key.jwk).eq(other.keys.iter().map(|key| &key.jwk))
    }
}

impl Key {
    fn new(value: Value) -> Option<Key> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let usable = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) | AlgorithmParameters::EllipticCurve(_) => true,
            AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519,
            _ => false,
        };
        let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        if !usable || !signs {
            return None;
        }
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Key { jwk, decoding })
    }

    fn fits(&self, signed: &Signed) -> bool {
        let kind = match (&self.jwk.algorithm, signed.algorithm) {
            (AlgorithmParameters::RSA(_), algorithm) => {
                matches!(algorithm, Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 | Algorithm::PS256)
            }
            (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => key.curve == EllipticCurve::P256,
            (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => key.curve == EllipticCurve::P384,
            (AlgorithmParameters::OctetKeyPair(_), Algorithm::EdDSA) => true,
            _ => false,
        };
        let named = self.jwk.common.key_algorithm.is_none_or(|algorithm| algorithm == signed.named);
        kind && named && self.jwk.common.key_id.as_deref() == Some(signed.kid.as_str())
    }
}
