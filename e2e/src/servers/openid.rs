use super::Pages;
use anyhow::{Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// The id of the only key.
const KEY: &str = "tests";

/// The discovery document ("OpenID Connect Discovery 1.0", section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// An OpenID provider, such as the API server of a cluster: it signs tokens that identify their
/// subject, and publishes the key with which anyone can verify them.
pub struct OpenId {
    pages: Pages,
    key: EcdsaKeyPair,
}

impl OpenId {
    /// The audience of its tokens.
    pub const AUDIENCE: &str = "entrepot";

    /// # Errors
    /// If no port is free.
    pub async fn start() -> Result<OpenId> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| anyhow!("cannot generate a key"))?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pair.as_ref(), &random).map_err(|why| anyhow!("{why}"))?;
        let pages = Pages::start().await?;
        let keys = "/keys";
        let discovery = json!({
            "issuer": pages.url,
            "jwks_uri": format!("{}{keys}", pages.url),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        pages.put(DISCOVERY, discovery.to_string());
        // The point is uncompressed: a marker byte, then both coordinates (SEC 1, section 2.3.3).
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (encoded(x), encoded(y));
        let public = json!({"kid": KEY, "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y});
        pages.put(keys, json!({"keys": [public]}).to_string());
        Ok(OpenId { pages, key })
    }

    /// The URL of the discovery document.
    pub fn config_url(&self) -> String {
        format!("{}{DISCOVERY}", self.pages.url)
    }

    /// A token for a subject, valid for a whole number of seconds.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn token(&self, subject: &str, lifetime: Duration) -> Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": self.pages.url, "sub": subject, "aud": [Self::AUDIENCE], "iat": now, "exp": now + lifetime.as_secs(),
        });
        let head = json!({"alg": "ES256", "kid": KEY, "typ": "JWT"});
        let part = |value: &Value| encoded(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature =
            self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| anyhow!("cannot sign the token"))?;
        Ok(format!("{signed}.{}", encoded(signature.as_ref())))
    }
}

/// Base64url as in JSON Web Signatures (RFC 7515, section 2).
fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
