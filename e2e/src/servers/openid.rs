use super::Pages;
use anyhow::{Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// The name of the only key.
const KEY: &str = "tests";

/// Where a provider tells of itself ("OpenID Connect Discovery 1.0", section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// An OpenID provider, as the API server of a cluster is one: it signs tokens that say whose they are, and tells everybody
/// the key to verify them with.
pub struct OpenId {
    pages: Pages,
    key: EcdsaKeyPair,
}

impl OpenId {
    /// Whom its tokens are meant for.
    pub const AUDIENCE: &str = "entrepot";

    /// # Errors
    /// When there is no port.
    pub async fn start() -> Result<OpenId> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| anyhow!("no random key"))?;
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
        // The point is uncompressed: one byte that says so, then both coordinates (SEC 1, section 2.3.3).
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (encoded(x), encoded(y));
        let public = json!({"kid": KEY, "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y});
        pages.put(keys, json!({"keys": [public]}).to_string());
        Ok(OpenId { pages, key })
    }

    /// Where it tells of itself.
    pub fn config_url(&self) -> String {
        format!("{}{DISCOVERY}", self.pages.url)
    }

    /// A token of a subject that is good for so long, in whole seconds.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn token(&self, subject: &str, lifetime: Duration) -> Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": self.pages.url, "sub": subject, "aud": [Self::AUDIENCE], "iat": now, "exp": now + lifetime.as_secs(),
        });
        let head = json!({"alg": "ES256", "kid": KEY, "typ": "JWT"});
        let part = |value: &Value| encoded(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| anyhow!("not signed"))?;
        Ok(format!("{signed}.{}", encoded(signature.as_ref())))
    }
}

/// As JSON Web Signatures have it (RFC 7515, section 2).
fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
