use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use serde_json::{Value, json};

/// A token of another implementation for each algorithm, with its public key. Python's `cryptography`
/// signed them; the private keys are not kept.
fn vectors() -> Vec<(Algorithm, String, DecodingKey, Jwk)> {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    vectors
        .into_iter()
        .map(|vector| {
            let jwk: Jwk = serde_json::from_value(vector["key"].clone()).unwrap();
            let algorithm = serde_json::from_value(vector["algorithm"].clone()).unwrap();
            let token = vector["token"].as_str().unwrap().to_owned();
            (algorithm, token, DecodingKey::from_jwk(&jwk).unwrap(), jwk)
        })
        .collect()
}

fn spoiled(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[test]
fn a_signature_of_another_implementation_is_verified_and_a_changed_one_is_refused() {
    for (algorithm, token, key, _) in vectors() {
        let claims: Value = verify(&token, &key, algorithm).unwrap();
        assert_eq!(claims, json!({"sub": "alice"}), "{algorithm:?}");
        assert!(verify::<Value>(&spoiled(&token), &key, algorithm).is_err(), "{algorithm:?}");
    }
}

#[test]
fn a_token_is_refused_as_every_other_algorithm_also_with_the_public_key_as_a_secret() {
    let all = vectors();
    for (algorithm, token, key, _) in &all {
        for (other, _, _, _) in all.iter().filter(|(other, ..)| other != algorithm) {
            assert!(verify::<Value>(token, key, *other).is_err(), "{algorithm:?} as {other:?}");
        }
        assert!(verify::<Value>(token, key, Algorithm::HS256).is_err());
    }
    // Whoever knows the public key can compute this HMAC.
    let secrets = all.iter().filter_map(|(_, _, key, _)| Some((key, key.try_get_as_bytes().ok()?)));
    let mut forged = 0;
    for (key, public) in secrets {
        let token = sign(&Header::new(Algorithm::HS256), &json!({}), &EncodingKey::from_secret(public)).unwrap();
        assert!(verify::<Value>(&token, key, Algorithm::HS256).is_err());
        forged += 1;
    }
    assert_eq!(forged, 3);
}

#[test]
fn a_modulus_with_a_leading_zero_is_read() {
    let (algorithm, token, _, jwk) = vectors().into_iter().next().unwrap();
    let mut value = serde_json::to_value(&jwk).unwrap();
    let modulus = URL_SAFE_NO_PAD.decode(value["n"].as_str().unwrap()).unwrap();
    value["n"] = URL_SAFE_NO_PAD.encode([vec![0], modulus].concat()).into();
    let key = DecodingKey::from_jwk(&serde_json::from_value(value).unwrap()).unwrap();
    assert!(verify::<Value>(&token, &key, algorithm).is_ok());
}

#[test]
fn nothing_is_signed_but_by_hs256() {
    let key = EncodingKey::from_secret(&[1; 64]);
    for algorithm in [Algorithm::HS384, Algorithm::HS512, Algorithm::RS256] {
        assert!(sign(&Header::new(algorithm), &json!({}), &key).is_err(), "{algorithm:?}");
    }
    let token = sign(&Header::new(Algorithm::HS256), &json!({"a": 1}), &key).unwrap();
    assert_eq!(
        verify::<Value>(&token, &DecodingKey::from_secret(&[1; 64]), Algorithm::HS256).unwrap(),
        json!({"a": 1})
    );
    assert!(verify::<Value>(&token, &DecodingKey::from_secret(&[2; 64]), Algorithm::HS256).is_err());
    assert!(verify::<Value>(&spoiled(&token), &DecodingKey::from_secret(&[1; 64]), Algorithm::HS256).is_err());
}
