use super::*;
use crate::identity::{Identity, Via};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entrepot_config::Action;
use entrepot_oci::Repository;
use jsonwebtoken::EncodingKey;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const START: u64 = 1_800_000_000_400;

fn keys(texts: &[&str]) -> Keys {
    Keys::parse(&texts.join("\n")).unwrap()
}

fn first() -> String {
    base64::engine::general_purpose::STANDARD.encode(SECRET)
}

fn second() -> String {
    base64::engine::general_purpose::STANDARD.encode([7; 40])
}

fn settings(keys: Keys) -> Settings {
    Settings { keys, lifetime: Duration::from_secs(300), not_before: None }
}

fn tokens() -> Tokens {
    Tokens::new(settings(keys(&[&first()]))).unwrap()
}

fn alice() -> Caller {
    let claims = BTreeMap::from([("ref".to_owned(), "refs/heads/main".to_owned())]);
    let groups = vec!["sre".to_owned()];
    Caller::Known(Arc::new(Identity { name: "alice".to_owned(), groups, via: Via::Oidc("ci".to_owned()), claims }))
}

fn scopes(text: &str) -> Scopes {
    Scopes::parse(std::iter::once(text))
}

fn issue(tokens: &Tokens, now: u64) -> String {
    let issued = tokens.issue(&alice(), scopes("repository:a/b:pull,push"), "registry.example.com", Timestamp(now));
    issued.unwrap().token.expose_secret().to_owned()
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// A token with these header and claims, signed with the first key.
fn forge(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap());
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes())))
}

#[test]
fn the_layout_of_a_token_is_fixed_because_nodes_of_two_versions_share_tokens() {
    let token = issue(&tokens(), START);
    assert_eq!(part(&token, 0), json!({"alg": "HS256", "typ": "entrepot+jwt", "kid": "dbq0FMdG"}));
    let mut claims = part(&token, 1);
    assert_eq!(claims["jti"].as_str().unwrap().len(), 32);
    claims["jti"] = "".into();
    let expected = json!({
        "iss": "registry.example.com", "aud": "registry.example.com", "sub": "alice", "via": "oidc:ci",
        "grp": ["sre"], "clm": {"ref": "refs/heads/main"},
        "iat": 1_800_000_000, "nbf": 1_800_000_000, "exp": 1_800_000_301,
        "jti": "", "acc": "repository:a/b:pull,push",
    });
    assert_eq!(claims, expected);
}

#[test]
fn a_token_says_who_and_at_most_what_for() {
    let tokens = tokens();
    let issued = tokens.issue(&alice(), scopes("repository:a/b:pull"), "r", Timestamp(START)).unwrap();
    assert_eq!((issued.expires_in, issued.issued_at), (300, Timestamp(START - 400)));
    for _ in 0..2 {
        let ticket = tokens.verify(issued.token.expose_secret(), Timestamp(START)).unwrap();
        assert_eq!((&ticket.caller, ticket.service.as_str(), ticket.issued_at), (&alice(), "r", issued.issued_at));
        let name = Repository::parse("a/b").unwrap();
        assert!(ticket.scopes.covers(Action::Pull, &name) && !ticket.scopes.covers(Action::Push, &name));
    }
}

#[test]
fn an_anonymous_client_gets_a_token_without_a_name() {
    let tokens = tokens();
    let issued = tokens.issue(&Caller::Anonymous, Scopes::default(), "r", Timestamp(START)).unwrap();
    let token = issued.token.expose_secret();
    assert_eq!(part(token, 1)["sub"], "");
    assert!(part(token, 1).get("via").is_none() && part(token, 1).get("acc").is_none());
    let ticket = tokens.verify(token, Timestamp(START)).unwrap();
    assert_eq!((&ticket.caller, ticket.scopes.is_empty()), (&Caller::Anonymous, true));
}

#[test]
fn a_token_is_refused_no_earlier_than_a_minute_after_its_end() {
    let tokens = tokens();
    let token = issue(&tokens, START);
    for again in [false, true] {
        let last = START + (300 + 60) * 1000;
        assert!(tokens.verify(&token, Timestamp(last)).is_ok(), "{again}");
        assert_eq!(tokens.verify(&token, Timestamp(last + 1000)).unwrap_err(), TokenError::Expired);
    }
    // Also in a node that did not issue it and has not seen it.
    let other = self::tokens();
    assert_eq!(other.verify(&token, Timestamp(START + 361_000)).unwrap_err(), TokenError::Expired);
    assert!(other.verify(&token, Timestamp(START + 360_000)).is_ok());
}

#[test]
fn a_clock_may_be_a_minute_behind() {
    let tokens = tokens();
    let token = issue(&tokens, START);
    assert!(tokens.verify(&token, Timestamp(START - 60_000)).is_ok());
    let token = issue(&tokens, START);
    assert_eq!(tokens.verify(&token, Timestamp(START - 62_000)).unwrap_err(), TokenError::NotYetValid);
}

#[test]
fn a_lifetime_below_a_minute_is_a_minute() {
    let short = Settings { lifetime: Duration::from_secs(5), ..settings(keys(&[&first()])) };
    let tokens = Tokens::new(short).unwrap();
    let issued = tokens.issue(&alice(), Scopes::default(), "r", Timestamp(START)).unwrap();
    assert_eq!(issued.expires_in, 60);
    assert!(tokens.verify(issued.token.expose_secret(), Timestamp(START + 119_000)).is_ok());
}

#[test]
fn a_rotation_with_overlap_breaks_no_token_and_one_without_ends_all() {
    let tokens = tokens();
    let old = issue(&tokens, START);
    assert!(tokens.verify(&old, Timestamp(START)).is_ok());
    let tokens = Tokens::new(settings(keys(&[&second(), &first()]))).unwrap();
    let new = issue(&tokens, START);
    assert_ne!(part(&old, 0)["kid"], part(&new, 0)["kid"]);
    assert!(tokens.verify(&old, Timestamp(START)).is_ok() && tokens.verify(&new, Timestamp(START)).is_ok());
    let tokens = Tokens::new(settings(keys(&[&second()]))).unwrap();
    assert_eq!(tokens.verify(&old, Timestamp(START)).unwrap_err(), TokenError::UnknownKey);
    assert!(tokens.verify(&new, Timestamp(START)).is_ok());
}

#[test]
fn tokens_from_before_a_time_are_refused() {
    let tokens = tokens();
    let (old, new) = (issue(&tokens, START), issue(&tokens, START + 10_000));
    assert!(tokens.verify(&old, Timestamp(START + 10_000)).is_ok());
    let not_before = Some(Timestamp(START + 5_000));
    let tokens = Tokens::new(Settings { not_before, ..settings(keys(&[&first()])) }).unwrap();
    assert_eq!(tokens.verify(&old, Timestamp(START + 10_000)).unwrap_err(), TokenError::Revoked);
    assert!(tokens.verify(&new, Timestamp(START + 10_000)).is_ok());
}

#[test]
fn nothing_of_a_header_is_believed_but_the_key_id() {
    let tokens = tokens();
    let token = issue(&tokens, START);
    let (header, claims) = (part(&token, 0), part(&token, 1));
    let with = |field: &str, value: Value| {
        let mut header = header.clone();
        header[field] = value;
        tokens.verify(&forge(&header, &claims), Timestamp(START)).map(|_| ())
    };
    assert_eq!(with("alg", "HS256".into()), Ok(()));
    let jwk = json!({"kty": "oct", "k": "AAAA"});
    assert_eq!(with("jwk", jwk), Ok(()));
    assert_eq!(with("x5u", "https://example.com".into()), Ok(()));
    for algorithm in ["none", "HS384", "RS256", "EdDSA"] {
        assert_eq!(with("alg", algorithm.into()), Err(TokenError::Malformed), "{algorithm}");
    }
    for kid in ["other".into(), "../../key".into(), Value::Null] {
        assert_eq!(with("kid", kid), Err(TokenError::UnknownKey));
    }
    assert_eq!(with("crit", json!(["exp"])), Err(TokenError::Malformed));
    for typ in ["JWT".into(), "at+jwt".into(), Value::Null] {
        assert_eq!(with("typ", typ), Err(TokenError::Foreign));
    }
    assert!(Tokens::claims(&token) && !Tokens::claims(&forge(&json!({"alg": "HS256"}), &claims)));
    // Signed with a key of the client, under the ID of ours.
    let wrong = jwt::sign(
        &serde_json::from_value(header.clone()).unwrap(),
        &claims,
        &EncodingKey::from_secret(b"mine-mine-mine-mine-mine-mine-mine"),
    );
    assert_eq!(tokens.verify(&wrong.unwrap(), Timestamp(START)).unwrap_err(), TokenError::Signature);
}

#[test]
fn a_claim_of_the_wrong_type_is_refused() {
    let tokens = tokens();
    let token = issue(&tokens, START);
    let (header, claims) = (part(&token, 0), part(&token, 1));
    assert!(tokens.verify(&forge(&header, &claims), Timestamp(START)).is_ok());
    for (field, value) in [
        ("exp", "1800000301".into()),
        ("exp", Value::Null),
        ("exp", json!(-1)),
        ("nbf", "0".into()),
        ("iat", "0".into()),
        ("aud", json!(["registry.example.com"])),
        ("iss", "another".into()),
        ("sub", "".into()),
        ("via", Value::Null),
        ("via", "root".into()),
        ("grp", "sre".into()),
    ] {
        let mut claims = claims.clone();
        claims[field] = value.clone();
        let refused = tokens.verify(&forge(&header, &claims), Timestamp(START)).unwrap_err();
        assert_eq!(refused, TokenError::Malformed, "{field}: {value}");
    }
}

#[test]
fn a_token_of_a_caller_with_many_groups_is_bounded_and_valid() {
    let groups = (0..500).map(|number| format!("group-{number}-{}", "g".repeat(100))).collect();
    let claims = (0..100).map(|number| (format!("claim-{number}"), "v".repeat(100))).collect();
    let caller = Caller::Known(Arc::new(Identity { name: "n".repeat(255), groups, via: Via::Kubernetes, claims }));
    let many: Vec<_> = (0..100).map(|number| format!("repository:{}{number}:*", "a".repeat(200))).collect();
    let tokens = tokens();
    let issued = tokens.issue(&caller, scopes(&many.join(" ")), "r", Timestamp(START)).unwrap();
    let token = issued.token.expose_secret();
    assert!(token.len() <= MAX_LENGTH);
    let ticket = tokens.verify(token, Timestamp(START)).unwrap();
    let Caller::Known(identity) = &ticket.caller else { panic!("{:?}", ticket.caller) };
    assert!(!identity.groups.is_empty() && identity.groups.len() <= 64);
    assert_eq!(tokens.verify(&"x".repeat(MAX_LENGTH + 1), Timestamp(START)).unwrap_err(), TokenError::Malformed);
}

#[test]
fn a_remembered_token_is_not_verified_again() {
    let tokens = tokens();
    let token = issue(&tokens, START);
    let first = tokens.verify(&token, Timestamp(START)).unwrap();
    assert!(Arc::ptr_eq(&first, &tokens.verify(&token, Timestamp(START)).unwrap()));
}

#[test]
fn no_output_contains_a_token_or_a_key() {
    let tokens = tokens();
    let issued = tokens.issue(&alice(), Scopes::default(), "r", Timestamp(START)).unwrap();
    let token = issued.token.expose_secret();
    let signature = token.rsplit('.').next().unwrap();
    let refused = tokens.verify(&format!("{token}x"), Timestamp(START)).unwrap_err();
    let ticket = tokens.verify(token, Timestamp(START)).unwrap();
    let told = format!("{tokens:?} {issued:?} {refused} {refused:?} {ticket:?}");
    assert!(!told.contains(signature) && !told.contains("MDEy") && !told.contains("48, 49"), "{told}");
}

proptest::proptest! {
    #[test]
    fn arbitrary_text_is_refused(text in "[a-zA-Z0-9_.=-]{0,200}") {
        proptest::prop_assert!(tokens().verify(&text, Timestamp(START)).is_err());
    }

    #[test]
    fn a_token_with_a_changed_letter_is_refused(place in 0_usize..1000, letter in "[A-Za-z0-9_.-]") {
        let tokens = tokens();
        let token = issue(&tokens, START);
        let place = place % token.len();
        let changed = format!("{}{letter}{}", &token[..place], &token[place + 1..]);
        proptest::prop_assume!(changed != token);
        proptest::prop_assert!(tokens.verify(&changed, Timestamp(START)).is_err());
    }
}
