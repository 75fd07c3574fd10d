//! Tokens of an issuer in the test, which answers by TLS.

mod issuer;
mod keys;
mod refusals;

use super::*;
use entrepot_config::Auth;
use issuer::{Answer, Fake, NOW, Signer};
use serde_json::json;

/// A rule that uses the claims `ref` and `environment`, and the group `sre`.
fn rules() -> Rules {
    rules_of("{who: ['oidc:ci', 'group:sre'], may: [push], in: ['{ref}/**'], where: {environment: [production]}}")
}

fn rules_of(rule: &str) -> Rules {
    let config = entrepot_config::NodeConfig::from_yaml(&format!("auth: {{rules: [{rule}]}}")).unwrap();
    Rules::compile(&config.auth.unwrap())
}

#[tokio::test]
async fn a_token_of_the_issuer_is_its_user_as_bearer_and_as_password() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|config| {
        config.username = "{repository}@{run}".to_owned().try_into().unwrap();
        config.groups = Some("teams".to_owned());
        config.require = [("owner".to_owned(), vec!["other".to_owned(), "acme".to_owned()])].into();
    });
    let more = json!({
        "repository": "acme/app", "run": 7, "owner": "acme", "teams": ["a", "sre"], "ref": "main",
        "environment": "production", "secret": "unused", "list": ["x"],
    });
    let identity = fake.login(&oidc, &fake.token(more)).await.unwrap().unwrap();
    assert_eq!((identity.name.as_str(), &identity.via), ("acme/app@7", &crate::Via::Oidc("ci".into())));
    assert_eq!(identity.groups, ["a", "sre"]);
    let used =
        [("environment", "production"), ("ref", "main")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(identity.claims, used.into());
    assert_eq!(fake.asked(), ["/realm/.well-known/openid-configuration", "/keys"]);
}

#[tokio::test]
async fn by_default_the_user_is_the_subject_and_has_no_groups() {
    let fake = Fake::start().await;
    let identity = fake.login(&fake.oidc(|_| {}), &fake.token(json!({"groups": ["sre"]}))).await.unwrap().unwrap();
    assert_eq!((identity.name.as_str(), identity.groups.len()), ("alice", 0));
}

#[tokio::test]
async fn groups_are_a_list_or_a_text() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|config| config.groups = Some("groups".to_owned()));
    for (groups, expected) in [
        (json!("sre"), vec!["sre"]),
        (json!(["a", 1, "", "b"]), vec!["a", "b"]),
        (json!(null), vec![]),
        (json!({"a": 1}), vec![]),
    ] {
        let identity = fake.login(&oidc, &fake.token(json!({ "groups": groups }))).await.unwrap().unwrap();
        assert_eq!(identity.groups, expected, "{groups}");
    }
}

#[tokio::test]
async fn what_is_no_token_of_this_issuer_is_left_to_others_and_fetches_nothing() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|_| {});
    let slash = format!("{}/", fake.issuer());
    let other = |issuer: &str| fake.signer().sign(&fake.changed(json!({ "iss": issuer })));
    for token in [other(&slash), other("https://other"), other(""), "a password".into(), "a.b.c".into(), "..".into()] {
        assert!(fake.login(&oidc, &token).await.is_none(), "{token}");
    }
    assert_eq!(fake.asked(), [""; 0]);
}

#[tokio::test]
async fn sixty_four_kib_of_groups_are_read_and_the_groups_of_rules_remain() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|config| config.groups = Some("groups".to_owned()));
    let mut groups: Vec<String> = (0..2700).map(|number| format!("group-of-a-directory-{number}")).collect();
    groups.push("sre".to_owned());
    assert!(serde_json::to_string(&groups).unwrap().len() > 64 * 1024);
    let identity = fake.login(&oidc, &fake.token(json!({ "groups": groups }))).await.unwrap().unwrap();
    assert_eq!((identity.groups.len(), identity.groups[0].as_str()), (64, "sre"));
}

#[tokio::test]
async fn a_token_of_one_mib_is_refused_without_a_fetch() {
    let fake = Fake::start().await;
    let token = fake.token(json!({"filler": "x".repeat(1 << 20)}));
    assert_eq!(fake.refusal(&fake.oidc(|_| {}), &token).await, "the token is longer than 131072 bytes");
    assert_eq!(fake.asked(), [""; 0]);
}

#[tokio::test]
async fn a_known_token_is_refused_after_its_end_and_follows_changed_rules() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|_| {});
    let token = fake.token(json!({"job": "release"}));
    assert!(fake.login(&oidc, &token).await.unwrap().unwrap().claims.is_empty());
    oidc.replace_rules(&rules_of("{who: ['oidc:ci'], may: [pull], in: ['{job}/**']}"));
    assert_eq!(fake.login(&oidc, &token).await.unwrap().unwrap().claims["job"], "release");
    oidc.replace_rules(&Rules::compile(&Auth::default()));
    fake.clock.advance(Duration::from_secs(600 + 59));
    assert!(fake.login(&oidc, &token).await.unwrap().is_ok());
    fake.clock.advance(Duration::from_secs(1));
    assert_eq!(fake.refusal(&oidc, &token).await, "the token is expired");
}
