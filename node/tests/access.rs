//! Access control over sockets: every answer of the table in docs/explanation/access-control.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use support::{Answer, Node, Setup, manifest, memory, sha256};

const BLOB: &[u8] = b"0123456789";

/// `public/**` for everybody, `team-a/**` for Alice, pulls of `team-a/**` for Bob. The hashes are
/// bcrypt with the lowest cost; each password is the name with `-password`.
const AUTH: &str = "service: registry.example.com
users: {file: USERS}
groups: {readers: [bob]}
rules:
- {who: [anonymous], may: [pull], in: ['public/**']}
- {who: ['user:alice'], may: [delete], in: ['team-a/**', 'public/**']}
- {who: ['group:readers'], may: [pull], in: ['team-a/**']}";

async fn node() -> Node {
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    let users = format!("alice:{}\nbob:{}\n", hash("alice-password"), hash("bob-password"));
    let auth = Some((AUTH, &*users.leak()));
    let node = Node::start(&memory(), Setup { auth, ..Setup::default() }).await;
    for repository in ["public/app", "team-a/app"] {
        push(&node, repository, &basic("alice")).await;
    }
    node
}

fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{user}-password")))
}

async fn ask(node: &Node, method: &str, target: &str, authorization: &str) -> Answer {
    let headers = [("authorization", authorization)];
    let sent = usize::from(!authorization.is_empty());
    node.ask(method, target, &headers[..sent], "").await
}

async fn push(node: &Node, repository: &str, authorization: &str) {
    let digest = sha256(BLOB);
    let headers = [("authorization", authorization)];
    let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
    let pushed = node.ask("POST", &target, &headers, BLOB).await;
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    let target = format!("/v2/{repository}/manifests/v1");
    let pushed = node.ask("PUT", &target, &headers, manifest(&digest, BLOB.len(), "")).await;
    assert_eq!(pushed.status, 201, "{}", pushed.text());
}

/// A token for these scopes; without a user if the authorization is empty.
async fn token(node: &Node, authorization: &str, scopes: &[&str]) -> String {
    let query: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
    let answer = ask(node, "GET", &format!("/v2/_token?{}", query.join("&")), authorization).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    format!("Bearer {}", answer.json()["token"].as_str().unwrap())
}

/// The challenge of a request to this node.
fn challenge(node: &Node, more: &str) -> String {
    let realm = format!("http://{}/v2/_token", node.address);
    format!("Bearer realm=\"{realm}\",service=\"registry.example.com\"{more}")
}

/// A request and its answer: method, target, `Authorization`, status, code, and what follows the
/// service in the challenge.
type Case<'a> = (&'a str, &'a str, &'a str, u16, &'a str, Option<String>);

#[tokio::test]
async fn every_refusal_has_its_status_its_code_and_its_challenge() {
    let node = node().await;
    let nobody = token(&node, "", &["repository:team-a/app:pull"]).await;
    let narrow = token(&node, &basic("alice"), &["repository:team-a/app:pull"]).await;
    let bob = token(&node, &basic("bob"), &["repository:team-a/app:pull,push"]).await;
    let (pull, uploads) = ("/v2/team-a/app/manifests/v1", "/v2/team-a/app/blobs/uploads/");
    let invalid = ",error=\"invalid_token\"";
    let insufficient = ",error=\"insufficient_scope\"";
    let (pulls, pushes) = (",scope=\"repository:team-a/app:pull\"", ",scope=\"repository:team-a/app:pull,push\"");
    let join = |scope: &str, error: &str| Some(format!("{scope}{error}"));
    let mounts = Some(",scope=\"repository:team-a/app:pull,push repository:public/app:pull\"".to_owned());
    let mount = format!("/v2/team-a/app/blobs/uploads/?mount={}&from=public/app", sha256(BLOB));
    let cases: &[Case<'_>] = &[
        ("GET", "/v2/", "", 401, "UNAUTHORIZED", Some(String::new())),
        ("GET", "/v2/", &nobody, 200, "", None),
        ("GET", "/v2/", &basic("alice"), 200, "", None),
        ("GET", pull, "", 401, "UNAUTHORIZED", join(pulls, "")),
        ("POST", uploads, "", 401, "UNAUTHORIZED", join(pushes, "")),
        ("GET", pull, &nobody, 401, "UNAUTHORIZED", join(pulls, insufficient)),
        ("GET", pull, "Bearer wrong", 401, "UNAUTHORIZED", join(pulls, invalid)),
        ("GET", pull, &basic("mallory"), 401, "UNAUTHORIZED", join(pulls, invalid)),
        ("GET", "/v2/public/app/manifests/v1", &basic("mallory"), 401, "UNAUTHORIZED", None),
        ("POST", uploads, &narrow, 401, "UNAUTHORIZED", join(pushes, insufficient)),
        ("POST", uploads, &bob, 403, "DENIED", None),
        ("POST", uploads, &basic("bob"), 403, "DENIED", None),
        ("GET", "/v2/team-b/missing/manifests/v1", &basic("bob"), 403, "DENIED", None),
        ("GET", "/v2/_catalog", "", 401, "UNAUTHORIZED", Some(",scope=\"registry:catalog:*\"".into())),
        ("POST", &mount, "", 401, "UNAUTHORIZED", mounts),
        ("DELETE", pull, &basic("bob"), 403, "DENIED", None),
        ("GET", pull, &bob, 200, "", None),
        ("GET", pull, &narrow, 200, "", None),
        ("GET", "/v2/public/app/manifests/v1", "", 200, "", None),
        ("GET", "/", "", 200, "", None),
    ];
    for (method, target, authorization, status, code, challenged) in cases {
        let answer = ask(&node, method, target, authorization).await;
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{method} {target}: {}", answer.text());
        match challenged {
            Some(more) => assert_eq!(answer.header("www-authenticate"), challenge(&node, more), "{method} {target}"),
            None if *status == 403 => assert_eq!(answer.header("www-authenticate"), "", "{method} {target}"),
            None => {}
        }
    }
}

#[tokio::test]
async fn a_refusal_says_who_may_not_do_what_and_names_nothing_else() {
    let node = node().await;
    let present = ask(&node, "GET", "/v2/team-a/app/tags/list", &basic("alice")).await;
    assert_eq!(present.status, 200, "{}", present.text());
    let denied = ask(&node, "POST", "/v2/team-a/app/blobs/uploads/", &basic("bob")).await;
    assert_eq!(denied.json()["errors"][0]["message"], "bob may not push to team-a/app");
    let [denied, missing] = ["team-b/there", "team-b/gone"].map(|name| format!("/v2/{name}/tags/list"));
    let (denied, missing) =
        (ask(&node, "GET", &denied, &basic("bob")).await, ask(&node, "GET", &missing, &basic("bob")).await);
    assert_eq!(denied.text().replace("there", "gone"), missing.text());
}

#[tokio::test]
async fn the_token_service_takes_a_query_and_a_form() {
    let node = node().await;
    let answer =
        ask(&node, "GET", "/v2/_token?account=alice&offline_token=true&client_id=docker", &basic("alice")).await;
    let json = answer.json();
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{}", answer.text());
    assert_eq!(json["token"], json["access_token"]);
    assert_eq!(json["expires_in"], 300);
    assert!(json["issued_at"].as_str().unwrap().ends_with('Z') && json.get("refresh_token").is_none(), "{json}");

    let form = |text: &'static str| {
        node.ask("POST", "/v2/_token", &[("content-type", "application/x-www-form-urlencoded")], text)
    };
    let scopes = "scope=repository%3Ateam-a%2Fapp%3Apull+repository%3Ateam-a%2Fapp%3Apull%2Cpush";
    let text = format!("grant_type=password&username=alice&password=alice-password&service=x&{scopes}").leak();
    let answer = form(text).await;
    let bearer = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
    assert_eq!(ask(&node, "POST", "/v2/team-a/app/blobs/uploads/", &bearer).await.status, 202);
    for (text, status, error) in [
        ("grant_type=refresh_token&refresh_token=x", 400, "unsupported_grant_type"),
        ("username=alice", 400, "invalid_request"),
        ("grant_type=password&username=alice&password=wrong", 401, ""),
    ] {
        let answer = form(text).await;
        assert_eq!(answer.status, status, "{text}");
        assert_eq!(answer.json()["error"].as_str().unwrap_or_default(), error, "{text}");
    }
    assert_eq!(ask(&node, "GET", "/v2/_token", &basic("mallory")).await.status, 401);
    assert_eq!(ask(&node, "GET", "/v2/_token", "Basic Og==").await.status, 200);
    let large = format!("grant_type=password&username={}", "x".repeat(70_000)).leak();
    assert_eq!(form(large).await.status, 413);
}

#[tokio::test]
async fn a_registry_without_access_control_has_no_token_service() {
    let node = Node::start(&memory(), Setup::default()).await;
    assert_eq!(node.get("/v2/_token").await.status, 404);
    assert_eq!(node.get("/v2/").await.status, 200);
    // A client that is logged in elsewhere sends its credentials here too.
    assert_eq!(ask(&node, "GET", "/v2/", &basic("alice")).await.status, 200);
}

#[tokio::test]
async fn a_mount_from_a_repository_that_may_not_be_pulled_opens_a_session() {
    let node = node().await;
    let digest = sha256(BLOB);
    let mount = |from: &str| format!("/v2/public/other/blobs/uploads/?mount={digest}&from={from}");
    assert_eq!(ask(&node, "POST", &mount("team-a%2Fapp"), &basic("alice")).await.status, 201);
    assert_eq!(ask(&node, "POST", &mount("team-b%2Fapp"), &basic("alice")).await.status, 202);
    let narrow = token(&node, &basic("alice"), &["repository:public/third:pull,push"]).await;
    let target = format!("/v2/public/third/blobs/uploads/?mount={digest}&from=team-a%2Fapp");
    // The token is too narrow, and Alice has the right: another token makes it a mount.
    let refused = ask(&node, "POST", &target, &narrow).await;
    let scopes = "repository:public/third:pull,push repository:team-a/app:pull";
    let more = format!(",scope=\"{scopes}\",error=\"insufficient_scope\"");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, challenge(&node, &more).as_str()));
    let wide = token(&node, &basic("alice"), &[&scopes.replace(' ', "+")]).await;
    assert_eq!(ask(&node, "POST", &target, &wide).await.status, 201);
}

#[tokio::test]
async fn content_of_a_registry_with_access_control_is_kept_by_no_shared_cache() {
    let node = node().await;
    let target = format!("/v2/public/app/blobs/{}", sha256(BLOB));
    let answer = ask(&node, "GET", &target, "").await;
    assert_eq!(answer.header("cache-control"), "private, max-age=31536000");
    assert_eq!(answer.header("vary"), "Authorization");
}

#[tokio::test]
async fn the_catalog_lists_what_the_caller_may_pull() {
    let node = node().await;
    let list = async |authorization: &str| {
        let answer = ask(&node, "GET", "/v2/_catalog", authorization).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["repositories"].clone()
    };
    assert_eq!(list(&basic("alice")).await, serde_json::json!(["public/app", "team-a/app"]));
    assert_eq!(list(&basic("bob")).await, serde_json::json!(["public/app", "team-a/app"]));
    assert_eq!(list(&token(&node, "", &["registry:catalog:*"]).await).await, serde_json::json!(["public/app"]));
}
