//! When keys are fetched, and what they are while the issuer is away.

use super::*;
use futures::future::join_all;
use tokio::sync::watch;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn down() -> Answer {
    Answer::Fixed(500, "secret of the issuer".into())
}

#[tokio::test]
async fn a_new_key_is_fetched_and_a_withdrawn_one_is_refused_also_for_a_known_token() {
    let fake = Fake::start().await;
    let (oidc, second) = (fake.oidc(|_| {}), Signer::new("second"));
    let old = fake.token(json!({"exp": NOW + 80_000}));
    let new = second.sign(&fake.changed(json!({"exp": NOW + 80_000})));
    assert!(fake.login(&oidc, &old).await.unwrap().is_ok());
    fake.has(&[&second]);
    fake.clock.advance(MINUTE);
    // Nothing has asked for another key, so the first one is still known.
    assert!(fake.login(&oidc, &old).await.unwrap().is_ok());
    assert!(fake.login(&oidc, &new).await.unwrap().is_ok());
    assert_eq!(fake.refusal(&oidc, &old).await, "the issuer does not have the key of the token");
    assert_eq!(fake.fetches(), 2);
}

#[tokio::test]
async fn keys_are_fetched_again_after_an_hour() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|_| {});
    let token = fake.token(json!({"exp": NOW + 80_000}));
    assert!(fake.login(&oidc, &token).await.unwrap().is_ok());
    fake.has(&[]);
    fake.clock.advance(HOUR - MINUTE);
    assert!(fake.login(&oidc, &token).await.unwrap().is_ok());
    fake.clock.advance(MINUTE);
    assert_eq!(fake.refusal(&oidc, &token).await, "the issuer does not have the key of the token");
    assert_eq!(fake.fetches(), 2);
}

#[tokio::test]
async fn a_flood_of_made_up_keys_fetches_at_most_once_in_thirty_seconds() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|_| {});
    assert!(fake.login(&oidc, &fake.token(json!({}))).await.unwrap().is_ok());
    let flood = || async {
        let tokens = (0..50).map(|number| Signer::new(&number.to_string()).sign(&fake.changed(json!({}))));
        join_all(tokens.map(|token| {
            let (fake, oidc) = (&fake, &oidc);
            async move { fake.refusal(oidc, &token).await }
        }))
        .await;
        fake.fetches()
    };
    // The first fetch was just now.
    assert_eq!(flood().await, 1);
    fake.clock.advance(Duration::from_secs(29));
    assert_eq!(flood().await, 1);
    fake.clock.advance(Duration::from_secs(1));
    assert_eq!(flood().await, 2);
    assert_eq!(flood().await, 2);
    assert_eq!(oidc.status(), IssuerStatus { age: Some(Duration::ZERO), fetched: 2, failed: 0 });
}

#[tokio::test]
async fn without_keys_clients_are_told_to_come_again_and_never_refused() {
    let fake = Fake::start().await;
    let (oidc, token) = (fake.oidc(|_| {}), fake.token(json!({})));
    fake.answers(down());
    let reason = fake.unavailable(&oidc, &token).await;
    assert!(
        reason.ends_with("/realm/.well-known/openid-configuration answers 500; redirects are not followed"),
        "{reason}"
    );
    assert_eq!((fake.asked().len(), oidc.status().failed, oidc.status().age), (1, 1, None));
    fake.answers(Answer::Documents);
    fake.clock.advance(Duration::from_secs(4));
    fake.unavailable(&oidc, &token).await;
    assert_eq!(fake.asked().len(), 1);
    fake.clock.advance(Duration::from_secs(1));
    assert!(fake.login(&oidc, &token).await.unwrap().is_ok());
}

#[tokio::test]
async fn while_the_issuer_is_away_its_last_keys_serve_for_a_day() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|_| {});
    assert!(fake.login(&oidc, &fake.token(json!({}))).await.unwrap().is_ok());
    fake.answers(down());
    let later = |by: Duration| {
        let now = NOW + by.as_secs();
        fake.token(json!({"iat": now, "exp": now + 600}))
    };
    fake.clock.advance(2 * HOUR);
    for _ in 0..3 {
        assert!(fake.login(&oidc, &later(2 * HOUR)).await.unwrap().is_ok());
    }
    assert_eq!(oidc.status(), IssuerStatus { age: Some(2 * HOUR), fetched: 1, failed: 1 });
    // It may be a key that the issuer has since: not known is not refused.
    let new = Signer::new("new").sign(&fake.changed(json!({"iat": NOW + 7200, "exp": NOW + 7800})));
    fake.unavailable(&oidc, &new).await;
    fake.clock.advance(22 * HOUR - MINUTE);
    assert!(fake.login(&oidc, &later(24 * HOUR - MINUTE)).await.unwrap().is_ok());
    fake.clock.advance(MINUTE);
    fake.unavailable(&oidc, &later(24 * HOUR)).await;
    fake.answers(Answer::Documents);
    fake.clock.advance(MINUTE);
    assert!(fake.login(&oidc, &later(24 * HOUR)).await.unwrap().is_ok());
}

#[tokio::test]
async fn one_fetch_serves_all_clients_and_outlives_the_one_that_caused_it() {
    let fake = Fake::start().await;
    let (oidc, token) = (fake.oidc(|_| {}), fake.token(json!({})));
    let (open, opened) = watch::channel(false);
    fake.answers(Answer::Late(opened));
    let asked = || async {
        while fake.asked().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = fake.login(&oidc, &token) => panic!("no keys yet"),
        () = asked() => {}
    }
    let logins = join_all((0..20).map(|_| fake.login(&oidc, &token)));
    let (logins, ()) = tokio::join!(logins, async { open.send(true).unwrap() });
    assert!(logins.into_iter().all(|login| login.unwrap().is_ok()));
    assert_eq!(fake.asked().len(), 2, "{:?}", fake.asked());
}

#[tokio::test]
async fn documents_of_others_and_redirects_and_large_ones_are_not_used() {
    let fake = Fake::start().await;
    let token = fake.token(json!({}));
    let keys = format!("{}/keys", fake.server.url);
    let configuration = |issuer: &str, keys: &str| json!({"issuer": issuer, "jwks_uri": keys});
    for (document, reason) in [
        (configuration(&format!("{}/", fake.issuer()), &keys), "auth.oidc[].issuer must be exactly that"),
        (configuration("https://other", &keys), "is the configuration of the issuer \"https://other\""),
        (configuration(&fake.issuer(), "http://127.0.0.1:1/keys"), "jwks_uri must begin with https://"),
        (configuration(&fake.issuer(), "http://issuer/keys"), "jwks_uri must begin with https://"),
        (configuration(&fake.issuer(), "ftp://issuer/keys"), "must begin with https://"),
        (configuration(&fake.issuer(), &fake.issuer()), "is not a JSON Web Key Set"),
        (json!({}), "is not the configuration of an OpenID Connect issuer"),
    ] {
        fake.configures(document.clone());
        let found = fake.unavailable(&fake.oidc(|_| {}), &token).await;
        assert!(found.contains(reason), "{document}: {found}");
    }
    for (status, text, reason) in [
        (302, String::new(), "answers 302; redirects are not followed"),
        (200, " ".repeat((1 << 20) + 1), "larger than 1048576 bytes"),
    ] {
        fake.answers(Answer::Fixed(status, text.into()));
        let found = fake.unavailable(&fake.oidc(|_| {}), &token).await;
        assert!(found.contains(reason), "{found}");
    }
}

#[tokio::test]
async fn keys_come_from_a_configured_address_without_discovery() {
    let fake = Fake::start().await;
    let oidc = fake.oidc(|config| config.jwks_uri = Some(format!("{}/keys", fake.server.url)));
    assert!(fake.login(&oidc, &fake.token(json!({}))).await.unwrap().is_ok());
    assert_eq!(fake.asked(), ["/keys"]);
}

#[tokio::test]
async fn keys_in_a_file_are_read_again_when_it_has_changed() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let oidc = fake.oidc(|config| config.jwks_file = Some(file.clone()));
    let token = fake.token(json!({}));
    assert!(fake.unavailable(&oidc, &token).await.starts_with("cannot read auth.oidc[].jwksFile "));
    let write = |keys: &[Value]| std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    write(&[fake.signer().jwk()]);
    fake.clock.advance(MINUTE);
    assert!(fake.login(&oidc, &token).await.unwrap().is_ok());
    write(&[]);
    fake.clock.advance(MINUTE);
    assert_eq!(fake.refusal(&oidc, &token).await, "the issuer does not have the key of the token");
    assert_eq!(fake.asked(), [""; 0]);
}

/// The clock of the runtime stands still, and jumps to the next timer when nothing else can go on.
#[tokio::test(start_paused = true)]
async fn an_issuer_that_hangs_costs_five_seconds() {
    let fake = Fake::start().await;
    let (_open, opened) = watch::channel(false);
    fake.answers(Answer::Late(opened));
    let reason = fake.unavailable(&fake.oidc(|_| {}), &fake.token(json!({}))).await;
    assert!(reason.contains("within 5s"), "{reason}");
}
