//! The issuer of the tests.

use super::super::*;
use crate::testing::{Server, response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use entrepot_runtime::clock::Timestamp;
use http::Request;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use secrecy::SecretString;
use serde_json::json;
use std::net::Ipv4Addr;
use std::sync::OnceLock;
use tokio::sync::watch;

/// The time of the tests, in seconds since the Unix epoch.
pub(super) const NOW: u64 = 1_800_000_000;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A key of an issuer.
pub(super) struct Signer {
    pub(super) kid: String,
    pair: EcdsaKeyPair,
}

impl Signer {
    pub(super) fn new(kid: &str) -> Signer {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        Signer { kid: kid.to_owned(), pair }
    }

    /// The point of the public key.
    pub(super) fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub(super) fn jwk(&self) -> Value {
        let [x, y] = [1..33, 33..65].map(|range| URL_SAFE_NO_PAD.encode(&self.public()[range]));
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid, "use": "sig", "alg": "ES256"})
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({"alg": "ES256", "kid": self.kid}), claims)
    }

    pub(super) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The part of a token that is signed.
pub(super) fn message(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

/// What the issuer answers.
#[derive(Clone)]
pub(super) enum Answer {
    /// Its documents.
    Documents,
    /// This status and text to everything.
    Fixed(u16, Bytes),
    /// Its documents, as soon as this is true.
    Late(watch::Receiver<bool>),
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Documents>>);

struct Documents {
    answer: Answer,
    configuration: Value,
    keys: Value,
    asked: Vec<String>,
}

impl Default for Documents {
    fn default() -> Documents {
        Documents { answer: Answer::Documents, configuration: Value::Null, keys: Value::Null, asked: Vec::new() }
    }
}

pub(super) struct Fake {
    pub(super) server: Server,
    shared: Shared,
    pub(super) clock: Clock,
    signer: OnceLock<Signer>,
}

impl Fake {
    pub(super) async fn start() -> Fake {
        let shared = Shared::default();
        let documents = shared.clone();
        let server = Server::start(move |request: Request<Bytes>| {
            let documents = documents.clone();
            async move {
                let path = request.uri().path().to_owned();
                documents.0.lock().asked.push(path.clone());
                let answer = documents.0.lock().answer.clone();
                match answer {
                    Answer::Fixed(status, text) => return response(status, text),
                    Answer::Late(mut open) => drop(open.wait_for(|open| *open).await),
                    Answer::Documents => {}
                }
                let documents = documents.0.lock();
                let is_keys = path == "/keys";
                response(200, if is_keys { &documents.keys } else { &documents.configuration }.to_string())
            }
        })
        .await;
        let clock = Clock::manual(Timestamp(NOW * 1000));
        let fake = Fake { server, shared, clock, signer: OnceLock::new() };
        fake.configures(json!({"issuer": fake.issuer(), "jwks_uri": format!("{}/keys", fake.server.url)}));
        fake.has(&[fake.signer()]);
        fake
    }

    pub(super) fn issuer(&self) -> String {
        format!("{}/realm", self.server.url)
    }

    /// Its first key.
    pub(super) fn signer(&self) -> &Signer {
        self.signer.get_or_init(|| Signer::new("first"))
    }

    pub(super) fn oidc(&self, change: impl FnOnce(&mut OidcIssuer)) -> Oidc {
        let mut config = OidcIssuer {
            name: "ci".to_owned(),
            issuer: self.issuer(),
            audiences: vec!["registry".to_owned()],
            ca_file: Some(self.server.ca_file()),
            ..OidcIssuer::default()
        };
        change(&mut config);
        Oidc::new(&config, &super::rules(), &self.clock).unwrap()
    }

    pub(super) fn has(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        self.shared.0.lock().keys = json!({ "keys": keys });
    }

    pub(super) fn configures(&self, configuration: Value) {
        self.shared.0.lock().configuration = configuration;
    }

    pub(super) fn answers(&self, answer: Answer) {
        self.shared.0.lock().answer = answer;
    }

    /// The paths of all requests.
    pub(super) fn asked(&self) -> Vec<String> {
        self.shared.0.lock().asked.clone()
    }

    /// How often its keys were asked for.
    pub(super) fn fetches(&self) -> usize {
        self.asked().iter().filter(|path| *path == "/keys").count()
    }

    /// The usual claims, changed. A claim that becomes `null` is left out.
    pub(super) fn changed(&self, changes: Value) -> Value {
        claims(&self.issuer(), changes)
    }

    /// A token of the usual claims, changed.
    pub(super) fn token(&self, changes: Value) -> String {
        self.signer().sign(&self.changed(changes))
    }

    pub(super) async fn login(&self, oidc: &Oidc, token: &str) -> Option<Result<Identity, AuthError>> {
        let bearer = Credential::Bearer(SecretString::from(token));
        let password = Credential::Password { name: "any".into(), password: SecretString::from(token) };
        let by_bearer = oidc.authenticate(&bearer, PEER).await;
        assert_eq!(by_bearer, oidc.authenticate(&password, PEER).await);
        by_bearer
    }

    /// The reason of the refusal of this token.
    pub(super) async fn refusal(&self, oidc: &Oidc, token: &str) -> String {
        match self.login(oidc, token).await.unwrap() {
            Err(AuthError::Refused { reason }) => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Why this token cannot be verified now.
    pub(super) async fn unavailable(&self, oidc: &Oidc, token: &str) -> String {
        match self.login(oidc, token).await.unwrap() {
            Err(AuthError::Unavailable { service, reason }) => {
                assert_eq!(service, "the issuer ci");
                reason
            }
            other => panic!("not unavailable: {other:?}"),
        }
    }
}

fn claims(issuer: &str, changes: Value) -> Value {
    let mut claims = json!({"iss": issuer, "aud": "registry", "sub": "alice", "iat": NOW, "exp": NOW + 600});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}
