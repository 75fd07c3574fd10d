use super::*;
use crate::Via;
use crate::testing::{Server, response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use entrepot_runtime::clock::Timestamp;
use futures::future::join_all;
use http::Request;
use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A Kubernetes API server in the test: it keeps the questions, and answers as it is told.
struct Fake {
    server: Server,
    seen: Arc<Mutex<Vec<Value>>>,
    answer: Arc<Mutex<Answer>>,
    clock: Clock,
    folder: tempfile::TempDir,
}

#[derive(Clone)]
enum Answer {
    /// This status of the object, with this status code.
    Status(u16, Value),
    Hang,
}

fn token(issuer: &str, audience: &Value, subject: &str) -> String {
    let claims = json!({"iss": issuer, "aud": audience, "sub": subject});
    format!("e30.{}.signature", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn own_token() -> String {
    token("https://cluster", &json!(["https://api"]), "node")
}

impl Fake {
    async fn start(answer: Answer) -> Fake {
        let (seen, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(answer)));
        let (keep, current) = (seen.clone(), answer.clone());
        let server = Server::start(move |request: Request<Bytes>| {
            let mut question: Value = serde_json::from_slice(request.body()).unwrap();
            question["path"] = request.uri().path().into();
            question["token"] = request.headers()["authorization"].to_str().unwrap().into();
            keep.lock().push(question);
            let answer = current.lock().clone();
            async move {
                match answer {
                    Answer::Status(code, status) => response(code, json!({ "status": status }).to_string()),
                    Answer::Hang => std::future::pending().await,
                }
            }
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), own_token()).unwrap();
        Fake { server, seen, answer, clock: Clock::manual(Timestamp(1_000_000)), folder }
    }

    fn reviews(&self, change: impl FnOnce(&mut Kubernetes)) -> Reviews {
        let mut config = Kubernetes {
            api_server: self.server.url.clone(),
            ca_file: self.server.ca_file(),
            token_file: self.folder.path().join("token"),
            ..Kubernetes::default()
        };
        change(&mut config);
        Reviews::new(&config, "registry", &self.clock).unwrap()
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    fn asked(&self) -> usize {
        self.seen.lock().len()
    }

    fn question(&self) -> Value {
        self.seen.lock().last().unwrap().clone()
    }
}

fn accepted() -> Answer {
    let user = json!({
        "username": "system:serviceaccount:team-a:ci", "uid": "u-1", "groups": ["system:authenticated"],
        "extra": {"authentication.kubernetes.io/pod-name": ["ci-0"]},
    });
    Answer::Status(201, json!({"authenticated": true, "user": user, "audiences": ["registry"]}))
}

fn allowed(yes: bool) -> Answer {
    Answer::Status(201, json!({"allowed": yes, "reason": "by a RoleBinding"}))
}

async fn login(reviews: &Reviews, token: &str) -> Option<Result<Identity, AuthError>> {
    let bearer = Credential::Bearer(SecretString::from(token));
    let password = Credential::Password { name: "any".into(), password: SecretString::from(token) };
    let by_bearer = reviews.authenticate(&bearer, PEER).await;
    assert_eq!(by_bearer, reviews.authenticate(&password, PEER).await);
    by_bearer
}

fn pod_token() -> String {
    token("https://cluster", &json!("registry"), "ci")
}

fn reason(result: Option<Result<Identity, AuthError>>) -> String {
    match result.unwrap().unwrap_err() {
        AuthError::Refused { reason } => reason,
        other => panic!("not refused: {other}"),
    }
}

fn is_unavailable<T: std::fmt::Debug>(result: &Result<T, AuthError>) -> bool {
    matches!(result, Err(AuthError::Unavailable { .. }))
}

fn identity(via: Via, name: &str) -> Identity {
    Identity { name: name.into(), groups: vec!["system:masters".into()], via, claims: BTreeMap::new() }
}

fn known(via: Via, name: &str) -> Caller {
    Caller::Known(Arc::new(identity(via, name)))
}

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

#[tokio::test]
async fn a_pod_is_the_service_account_that_the_api_server_names() {
    let fake = Fake::start(accepted()).await;
    let identity = login(&fake.reviews(|_| {}), &pod_token()).await.unwrap().unwrap();
    assert_eq!((identity.name.as_str(), &identity.via), ("system:serviceaccount:team-a:ci", &Via::Kubernetes));
    assert_eq!((identity.claims["namespace"].as_str(), identity.claims["serviceaccount"].as_str()), ("team-a", "ci"));
    let question = fake.question();
    assert_eq!(question["path"], "/apis/authentication.k8s.io/v1/tokenreviews");
    assert_eq!(question["token"], format!("Bearer {}", own_token()));
    assert_eq!(question["spec"], json!({"token": pod_token(), "audiences": ["registry"]}));
    assert_eq!(
        (&question["kind"], &question["apiVersion"]),
        (&json!("TokenReview"), &json!("authentication.k8s.io/v1"))
    );
}

#[tokio::test]
async fn a_token_for_another_audience_or_for_the_api_server_is_refused() {
    let fake = Fake::start(accepted()).await;
    let reviews = fake.reviews(|_| {});
    for audiences in [json!("https://api"), json!(["registry", "https://api"])] {
        let refused = reason(login(&reviews, &token("https://cluster", &audiences, "ci")).await);
        assert!(refused.contains("for the Kubernetes API server"), "{refused}");
    }
    assert_eq!(fake.asked(), 0, "a token that opens the cluster goes no further");
    for (name, status) in [
        ("unknown audiences", json!({"authenticated": true, "user": {"username": "x"}})),
        ("another audience", json!({"authenticated": true, "user": {"username": "x"}, "audiences": ["other"]})),
        ("not authenticated", json!({"authenticated": false, "audiences": ["registry"], "error": "secret"})),
        ("no user", json!({"authenticated": true, "audiences": ["registry"]})),
    ] {
        fake.answers(Answer::Status(201, status));
        let refused = reason(login(&reviews, &token("https://cluster", &json!("registry"), name)).await);
        assert!(!refused.contains("secret"), "{refused}");
    }
    let long = token("https://cluster", &json!("registry"), &"x".repeat(20_000));
    assert!(reason(login(&reviews, &long).await).contains("longer than 16384 bytes"));
}

#[tokio::test]
async fn only_tokens_of_the_cluster_are_claimed_unless_any_are() {
    let fake = Fake::start(accepted()).await;
    let other = token("https://other", &json!("registry"), "ci");
    let cluster = fake.reviews(|_| {});
    for text in [&other, "password", "a.b.c", "e30.e30.x", ""] {
        assert_eq!(login(&cluster, text).await, None, "{text}");
    }
    assert_eq!(fake.asked(), 0);
    assert!(login(&fake.reviews(|config| config.issuers = KubernetesIssuers::Any), &other).await.unwrap().is_ok());
    assert_eq!(login(&fake.reviews(|config| config.review = false), &pod_token()).await, None);
}

#[tokio::test]
async fn a_token_is_reviewed_once_a_minute_and_a_refused_one_once_in_thirty_seconds() {
    let fake = Fake::start(accepted()).await;
    let reviews = fake.reviews(|_| {});
    let text = pod_token();
    join_all((0..10).map(|_| login(&reviews, &text))).await;
    assert_eq!(fake.asked(), 1, "the same questions are joined");
    fake.clock.advance(Duration::from_secs(59));
    assert!(login(&reviews, &text).await.unwrap().is_ok());
    assert_eq!(fake.asked(), 1);
    fake.answers(Answer::Status(201, json!({"authenticated": false})));
    fake.clock.advance(Duration::from_secs(1));
    assert!(login(&reviews, &text).await.unwrap().is_err(), "deleted a minute ago");
    fake.clock.advance(Duration::from_secs(29));
    assert!(login(&reviews, &text).await.unwrap().is_err());
    assert_eq!(fake.asked(), 2);
    fake.clock.advance(Duration::from_secs(1));
    fake.answers(accepted());
    assert!(login(&reviews, &text).await.unwrap().is_ok());
    assert_eq!(fake.asked(), 3);
}

#[tokio::test]
async fn an_api_server_that_fails_refuses_nobody() {
    let fake = Fake::start(Answer::Hang).await;
    let reviews = fake.reviews(|_| {});
    let text = pod_token();
    let bearer = Credential::Bearer(SecretString::from(text));
    let answers = join_all((0..5).map(|_| reviews.authenticate(&bearer, PEER))).await;
    assert!(answers.iter().all(|answer| is_unavailable(answer.as_ref().unwrap())), "{answers:?}");
    assert_eq!(fake.asked(), 1, "all wait for the same question");
    for (code, status) in
        [(500, json!({})), (401, json!({})), (403, json!({})), (429, json!({})), (302, json!({})), (201, json!("x"))]
    {
        fake.answers(Answer::Status(code, status));
        let answer = reviews.authenticate(&bearer, PEER).await.unwrap();
        assert!(is_unavailable(&answer), "{code}: {answer:?}");
        let text = answer.unwrap_err().to_string();
        assert!(code != 403 || text.contains("bind the ClusterRole system:auth-delegator"), "{text}");
    }
    fake.answers(accepted());
    assert!(reviews.authenticate(&bearer, PEER).await.unwrap().is_ok(), "a failure is not remembered");
}

#[tokio::test]
async fn the_token_of_the_node_is_read_for_each_question() {
    let fake = Fake::start(accepted()).await;
    let reviews = fake.reviews(|_| {});
    let file = fake.folder.path().join("token");
    std::fs::remove_file(&file).unwrap();
    let bearer = Credential::Bearer(SecretString::from(pod_token()));
    let text = reviews.authenticate(&bearer, PEER).await.unwrap().unwrap_err().to_string();
    assert!(text.contains("auth.kubernetes.tokenFile"), "{text}");
    let rotated = token("https://cluster", &json!(["https://api"]), "node, rotated");
    std::fs::write(&file, format!("{rotated}\n")).unwrap();
    assert!(reviews.authenticate(&bearer, PEER).await.unwrap().is_ok());
    assert_eq!(fake.question()["token"], format!("Bearer {rotated}"));
}

#[tokio::test]
async fn a_repository_is_a_resource_in_the_namespace_that_its_name_begins_with() {
    let fake = Fake::start(allowed(true)).await;
    let reviews = fake.reviews(|config| config.resource = "mirrors".into());
    let caller = known(Via::Kubernetes, "system:serviceaccount:team-a:ci");
    for (action, verb, name, attributes) in [
        (Action::Pull, "pull", "team-a/web/api", json!({"namespace": "team-a", "name": "web/api"})),
        (Action::Push, "push", "busybox", json!({"name": "busybox"})),
        (Action::Delete, "delete", "team-a/x", json!({"namespace": "team-a", "name": "x"})),
    ] {
        let found = reviews.allows(&caller, action, &repository(name)).await.unwrap();
        assert_eq!(found.unwrap(), "kubernetes: by a RoleBinding");
        let mut expected = json!({"group": "registry.entrepot.dev", "resource": "mirrors", "verb": verb});
        expected.as_object_mut().unwrap().append(&mut attributes.as_object().unwrap().clone());
        assert_eq!(fake.question()["spec"]["resourceAttributes"], expected);
        assert_eq!(fake.question()["path"], "/apis/authorization.k8s.io/v1/subjectaccessreviews");
    }
    assert!(reviews.may_pull_namespace(&caller, "team-a").await.unwrap());
    let attributes =
        json!({"group": "registry.entrepot.dev", "resource": "mirrors", "verb": "pull", "namespace": "team-a"});
    assert_eq!(fake.question()["spec"]["resourceAttributes"], attributes);
    let none = fake.reviews(|config| config.authorize = false);
    assert_eq!(none.allows(&caller, Action::Pull, &repository("a")).await, Ok(None));
    assert_eq!(none.may_pull_namespace(&caller, "a").await, Ok(false));
}

#[tokio::test]
async fn no_other_issuer_can_name_a_user_or_group_of_the_cluster() {
    let fake = Fake::start(accepted()).await;
    let reviews = fake.reviews(|_| {});
    let pod = Caller::Known(Arc::new(login(&reviews, &pod_token()).await.unwrap().unwrap()));
    fake.answers(allowed(false));
    for (caller, expected) in [
        (Caller::Anonymous, json!({"user": "system:anonymous", "groups": ["system:unauthenticated"]})),
        (known(Via::File, "system:admin"), json!({"user": "file:system:admin", "groups": ["file:system:masters"]})),
        (known(Via::Certificate, "x"), json!({"user": "cert:x", "groups": ["cert:system:masters"]})),
        (known(Via::Oidc("ci".into()), "x"), json!({"user": "oidc:ci:x", "groups": ["oidc:ci:system:masters"]})),
        (
            pod,
            json!({
                "user": "system:serviceaccount:team-a:ci", "uid": "u-1", "groups": ["system:authenticated"],
                "extra": {"authentication.kubernetes.io/pod-name": ["ci-0"]},
            }),
        ),
    ] {
        assert_eq!(reviews.allows(&caller, Action::Pull, &repository("a/b")).await, Ok(None));
        let mut spec = fake.question()["spec"].clone();
        spec.as_object_mut().unwrap().remove("resourceAttributes");
        assert_eq!(spec, expected);
    }
}

#[tokio::test]
async fn an_allowed_action_is_asked_again_after_thirty_seconds_and_a_denied_one_after_five() {
    let fake = Fake::start(allowed(true)).await;
    let reviews = fake.reviews(|_| {});
    let (alice, name) = (known(Via::File, "alice"), repository("a/b"));
    let may = || reviews.allows(&alice, Action::Push, &name);
    let answers = join_all((0..10).map(|_| may())).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Some(_)))));
    assert_eq!(fake.asked(), 1, "the same questions are joined");
    fake.answers(allowed(false));
    fake.clock.advance(Duration::from_secs(29));
    assert!(may().await.unwrap().is_some());
    fake.clock.advance(Duration::from_secs(1));
    assert_eq!((may().await.unwrap(), fake.asked()), (None, 2), "in force 30 s after it was deleted");
    fake.answers(allowed(true));
    fake.clock.advance(Duration::from_secs(4));
    assert_eq!((may().await.unwrap(), fake.asked()), (None, 2));
    fake.clock.advance(Duration::from_secs(1));
    assert!(may().await.unwrap().is_some());
    assert_eq!(fake.asked(), 3);
    for (caller, action, name) in [
        (known(Via::File, "bob"), Action::Push, "a/b"),
        (alice.clone(), Action::Pull, "a/b"),
        (alice.clone(), Action::Push, "a/c"),
    ] {
        let before = fake.asked();
        assert!(reviews.allows(&caller, action, &repository(name)).await.is_ok());
        assert_eq!(fake.asked(), before + 1, "another question");
    }
}

#[tokio::test]
async fn pulls_that_were_allowed_go_on_for_ten_minutes_without_the_api_server_and_pushes_do_not() {
    let fake = Fake::start(allowed(true)).await;
    let reviews = fake.reviews(|_| {});
    let (alice, name) = (known(Via::File, "alice"), repository("a/b"));
    let pull = || reviews.allows(&alice, Action::Pull, &name);
    assert!(pull().await.unwrap().is_some() && reviews.allows(&alice, Action::Push, &name).await.unwrap().is_some());
    fake.answers(allowed(false));
    assert_eq!(reviews.allows(&alice, Action::Pull, &repository("a/denied")).await, Ok(None));
    fake.answers(Answer::Status(500, json!({})));
    fake.clock.advance(Duration::from_secs(599));
    assert_eq!(pull().await.unwrap().unwrap(), "kubernetes: by a RoleBinding (asked 599 s ago)");
    for (action, repository) in
        [(Action::Push, name.clone()), (Action::Pull, repository("a/denied")), (Action::Pull, repository("a/new"))]
    {
        let answer = reviews.allows(&alice, action, &repository).await;
        assert!(is_unavailable(&answer), "{action:?} {repository}: {answer:?}");
    }
    fake.clock.advance(Duration::from_secs(1));
    assert!(is_unavailable(&pull().await));
    fake.answers(allowed(false));
    assert_eq!(pull().await, Ok(None), "an answer counts again at once");
}
