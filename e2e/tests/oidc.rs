//! Tokens of a real issuer of OpenID Connect: what they may do, what happens when its key changes, and
//! what while it is away.

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use entrepot_config::{Auth, NodeConfig, OidcIssuer};
use entrepot_e2e::client::empty;
use entrepot_e2e::images::Layout;
use entrepot_e2e::node::Plan;
use entrepot_e2e::servers::{OidcProvider, free_port};
use entrepot_e2e::tools::Tool;
use entrepot_e2e::{Node, commands, wait};
use http::Method;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// An unknown key causes a fetch after 30 seconds at the latest.
const DEADLINE: Duration = Duration::from_secs(90);

/// CI of a repository pushes below its name.
const RULES: &str = "auth:
  service: registry
  rules:
    - {who: ['oidc:ci'], may: [push], in: ['{repository}/**']}
    - {who: ['group:builders'], may: [pull], in: ['shared/**']}";

/// A node that accepts the tokens of this issuer, over a bucket in this folder.
async fn node(issuer: &str, bucket: &TempDir) -> Node {
    let issuer = OidcIssuer {
        name: "ci".to_owned(),
        issuer: issuer.to_owned(),
        audiences: vec!["registry".to_owned()],
        groups: Some("teams".to_owned()),
        ..OidcIssuer::default()
    };
    let auth = Auth { oidc: vec![issuer], ..NodeConfig::from_yaml(RULES).unwrap().auth.unwrap() };
    Plan::over_folder(bucket.path()).with(|config| config.auth = Some(auth)).start().await.unwrap()
}

/// The status of a request with this token as the password of any user.
async fn status(node: &Node, token: &str, method: Method, path: &str) -> u16 {
    let credentials = format!("Basic {}", STANDARD.encode(format!("any:{token}")));
    let headers = [("authorization", credentials.as_str())];
    node.registry.send(method, path, &headers, empty()).await.unwrap().status
}

async fn login(node: &Node, token: &str) -> u16 {
    status(node, token, Method::GET, "/v2/_token?service=registry").await
}

/// Logs in with crane, and pushes an image to this repository.
async fn push(node: &Node, token: &str, repository: &str) -> Result<String> {
    let (mut image, home) = (Layout::new()?, TempDir::new()?);
    let named = image.image("amd64", &[image.layer("a", 1000)?])?;
    image.tag(&named, "v1")?;
    let host = node.registry.host();
    let crane = || -> Result<Command> {
        let mut command = Command::new(Tool::Crane.path()?);
        command.env("DOCKER_CONFIG", home.path());
        Ok(command)
    };
    commands::run(crane()?.args(["auth", "login", host, "-u", "any", "-p", token])).await?;
    let target = format!("{host}/{repository}:v1");
    commands::run(crane()?.arg("push").arg(image.path()).arg(&target).arg("--insecure")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_pushes_what_the_claims_of_its_token_allow() {
    let (issuer, bucket) = (OidcProvider::start(free_port().unwrap()).await.unwrap(), TempDir::new().unwrap());
    let node = node(&issuer.url, &bucket).await;
    let token = issuer.token("registry").await.unwrap();
    push(&node, &token, "team-a/app/web").await.unwrap();
    let denied = push(&node, &token, "team-b/app").await.unwrap_err();
    let denied = format!("{denied:#}").to_lowercase();
    assert!(["denied", "403", "forbidden"].iter().any(|text| denied.contains(text)), "{denied}");
    assert_eq!(status(&node, &token, Method::GET, "/v2/shared/base/tags/list").await, 404);
    assert_eq!(status(&node, &token, Method::POST, "/v2/shared/base/blobs/uploads/").await, 403);
    let other = issuer.token("other").await.unwrap();
    assert_eq!(login(&node, &other).await, 401);
    assert_eq!(login(&node, &format!("{token}x")).await, 401);
    for secret in [&token, &other] {
        assert!(!node.log().contains(secret.as_str()), "the log contains a token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_replaced_while_the_issuer_is_away_is_taken_over() -> Result<()> {
    let (port, bucket, other) = (free_port()?, TempDir::new()?, TempDir::new()?);
    let issuer = OidcProvider::start(port).await?;
    let node_with_keys = node(&issuer.url, &bucket).await;
    let old = issuer.token("registry").await?;
    ensure!(login(&node_with_keys, &old).await == 200);
    let url = issuer.url.clone();
    drop(issuer);

    let node_without = node(&url, &other).await;
    ensure!(login(&node_with_keys, &old).await == 200, "known keys serve while the issuer is away");
    ensure!(login(&node_without, &old).await == 503, "without keys a token is not refused");

    let issuer = OidcProvider::start(port).await?;
    let new = issuer.token("registry").await?;
    for node in [&node_with_keys, &node_without] {
        wait::until("the new key is known", DEADLINE, || async { login(node, &new).await == 200 }).await?;
        ensure!(login(node, &old).await == 401, "the old key is withdrawn");
    }
    let metrics = node_with_keys.metrics().await?;
    let fetches = metrics.sum("auth_issuer_fetches_total", &["issuer=\"ci\"", "result=\"ok\""]);
    ensure!((fetches - 2.0).abs() < f64::EPSILON, "{fetches} fetches");
    Ok(())
}
