//! Tokens that are refused.

use super::issuer::message;
use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;

#[tokio::test]
async fn a_claim_that_is_missing_wrong_or_of_another_type_is_refused() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|config| config.require = [("owner".to_owned(), vec!["acme".to_owned()])].into());
    let expired = "the token is expired";
    let (early, long) = ("the token is not valid yet", "the token is valid for more than 24 hours");
    let (audience, required) = ("no `aud` of the token", "the claim owner of the token does not have a value");
    let cases = [
        (json!({}), None),
        (json!({"aud": ["other", "registry"]}), None),
        (json!({"aud": "other"}), Some(audience)),
        (json!({"aud": "registry/"}), Some(audience)),
        (json!({"aud": ["other"]}), Some(audience)),
        (json!({"aud": []}), Some(audience)),
        (json!({"aud": 5}), Some(audience)),
        (json!({"aud": null}), Some(audience)),
        (json!({"exp": null}), Some("the claim exp of the token is missing or is not a number")),
        (json!({"exp": (NOW + 600).to_string()}), Some("the claim exp of the token is missing or is not a number")),
        (json!({"nbf": NOW.to_string()}), Some("the claim nbf")),
        (json!({"iat": NOW.to_string()}), Some("the claim iat")),
        (json!({"iat": NOW - 600, "exp": NOW - 59}), None),
        (json!({"iat": NOW - 600, "exp": NOW as f64 - 59.5}), None),
        (json!({"iat": NOW - 600, "exp": NOW - 60}), Some(expired)),
        (json!({"exp": -1}), Some(expired)),
        (json!({"iat": NOW + 60, "nbf": NOW + 60}), None),
        (json!({"nbf": NOW + 61}), Some(early)),
        (json!({"iat": NOW + 61}), Some(early)),
        (json!({"exp": NOW + 86_400}), None),
        (json!({"exp": NOW + 86_401}), Some(long)),
        (json!({"exp": NOW + 60, "iat": NOW - 86_341}), Some(long)),
        (json!({"exp": NOW + 86_401, "iat": null}), Some(long)),
        (json!({"exp": 1e300}), Some(long)),
        (json!({"owner": "acme2"}), Some(required)),
        (json!({"owner": ["acme"]}), Some(required)),
        (json!({"owner": null}), Some(required)),
        (json!({"sub": null}), Some("the token lacks a claim of auth.oidc[].username")),
        (json!({"sub": ""}), Some("the token lacks a claim of auth.oidc[].username")),
        (json!({"sub": "a\nb"}), Some("the name of the user")),
        (json!({"sub": "a".repeat(513)}), Some("the name of the user")),
    ];
    for (changes, expected) in cases {
        let mut all = json!({"owner": "acme"});
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = fake.token(all);
        match expected {
            None => assert!(fake.login(&oidc, &token).await.unwrap().is_ok(), "{changes}"),
            Some(reason) => {
                let refusal = fake.refusal(&oidc, &token).await;
                assert!(refusal.starts_with(reason), "{changes}: {refusal}");
            }
        }
    }
    assert_eq!(fake.fetches(), 1);
}

#[tokio::test]
async fn only_a_signature_by_a_published_key_with_its_algorithm_counts() {
    let fake = Fake::start().await;
    let (oidc, signer, forger) = (fake.oidc(|_| {}), fake.signer(), Signer::new("first"));
    let claims = fake.changed(json!({}));
    let header = |more: Value| {
        let mut header = json!({"alg": "ES256", "kid": "first"});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        header
    };
    let good = signer.sign(&claims);
    assert!(fake.login(&oidc, &good).await.unwrap().is_ok());
    let unsigned = |algorithm: &str| format!("{}.", message(&header(json!({ "alg": algorithm })), &claims));
    let other_claims = {
        let signature = good.rsplit_once('.').unwrap().1;
        format!("{}.{signature}", message(&header(json!({})), &fake.changed(json!({"sub": "mallory"}))))
    };
    // Whoever knows the public key can compute this HMAC.
    let hmac = {
        let mut hs256 = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        hs256.kid = Some("first".to_owned());
        jwt::sign(&hs256, &claims, &EncodingKey::from_secret(signer.public())).unwrap()
    };
    let (refused, wrong) = ("the token names no key, needs an extension", "the signature of the token is wrong");
    let brought = |more: Value| forger.sign_as(&header(more), &claims);
    let cases = [
        (unsigned("none"), refused),
        (unsigned("None"), refused),
        (unsigned("ES256"), wrong),
        (hmac, refused),
        (signer.sign_as(&header(json!({"alg": "HS256"})), &claims), refused),
        (signer.sign_as(&header(json!({"alg": "PS384"})), &claims), refused),
        (signer.sign_as(&header(json!({"alg": "RS256"})), &claims), "the issuer does not have the key"),
        (signer.sign_as(&header(json!({"kid": null})), &claims), refused),
        (signer.sign_as(&header(json!({"crit": ["exp"], "exp": 1})), &claims), refused),
        (signer.sign_as(&header(json!({"kid": 5})), &claims), "the header of the token cannot be read"),
        (forger.sign(&claims), wrong),
        (brought(json!({"jwk": forger.jwk()})), wrong),
        (brought(json!({"jku": "https://localhost/keys", "x5u": "https://localhost/x"})), wrong),
        (brought(json!({"x5c": [URL_SAFE_NO_PAD.encode(forger.public())]})), wrong),
        (brought(json!({"kid": "own", "jwk": forger.jwk()})), "the issuer does not have the key"),
        (other_claims, wrong),
    ];
    for (token, reason) in cases {
        let refusal = fake.refusal(&oidc, &token).await;
        assert!(refusal.starts_with(reason), "{reason}: {refusal}");
    }
}

#[test]
fn every_accepted_algorithm_finds_its_key_and_no_other_algorithm_does() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../../jwt/vectors.json")).unwrap();
    let algorithms = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"];
    assert_eq!(vectors.len(), algorithms.len());
    let signed = |algorithm: &str| Signed::new(algorithm, Some("1".to_owned())).unwrap();
    for vector in vectors {
        let named = vector["algorithm"].as_str().unwrap();
        let set = |more: Value| {
            let mut key = vector["key"].clone();
            key["kid"] = "1".into();
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).unwrap()
        };
        let key = set(json!({ "alg": named }));
        let found: Vec<_> = algorithms.iter().filter(|algorithm| key.has(&signed(algorithm))).collect();
        assert_eq!(found, [&named]);
        let token = vector["token"].as_str().unwrap();
        let wanted = signed(named);
        let verified = key.find(&wanted).any(|key| jwt::verify::<Value>(token, key, wanted.algorithm).is_ok());
        assert!(verified, "{named}");
        assert!(!set(json!({"use": "enc"})).has(&wanted));
        assert!(!set(json!({"kid": "2"})).has(&wanted));
        assert!(!set(json!({"kty": "oct", "k": "AAAA"})).has(&wanted), "{named}");
    }
    for algorithm in ["none", "HS256", "HS384", "HS512", "PS384", "PS512", "RSA-OAEP", "ES256K", "es256", ""] {
        assert!(Signed::new(algorithm, Some("1".to_owned())).is_none(), "{algorithm}");
    }
}

#[test]
fn a_key_that_cannot_be_used_does_not_hide_the_others() {
    let signer = Signer::new("1");
    let keys = json!({"keys": [{"kty": "new"}, {"kty": "RSA", "n": "!"}, "x", signer.jwk()]}).to_string();
    let wanted = Signed::new("ES256", Some("1".to_owned())).unwrap();
    assert!(KeySet::parse(keys.as_bytes()).unwrap().has(&wanted));
    assert!(KeySet::parse(b"{}").is_none());
}
