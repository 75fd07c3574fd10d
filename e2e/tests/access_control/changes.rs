//! Users, groups, rules and access control itself change while the node runs.

use crate::clients::{Client, Program, Who};
use crate::fixture::{Registry, basic, image};
use anyhow::{Result, ensure};
use entrepot_config::{Auth, NodeConfig};
use entrepot_e2e::client::empty;
use entrepot_e2e::wait;
use http::Method;
use serde_json::Value;
use std::time::Duration;

/// A node reads its files every two seconds. A change of the configuration is read first.
const IN_FORCE: Duration = Duration::from_secs(5);

/// Bytes per second of a push that goes on while something changes.
const RATE: u64 = 50_000;
/// Duration of that push in seconds.
const PUSH: u64 = 10;

/// The status of a request of a user; nobody if the name is empty.
async fn status(registry: &Registry, user: &str, method: Method, path: &str) -> u16 {
    let authorization = basic(user);
    let headers = [("authorization", authorization.as_str())];
    let sent = usize::from(!user.is_empty());
    registry.node.registry.send(method, path, &headers[..sent], empty()).await.unwrap().status
}

/// Waits until a pull of `team-a/app` by the user has this status.
async fn until_pulls(registry: &Registry, user: &str, expected: u16) -> Result<()> {
    let has_status = || async { status(registry, user, Method::GET, "/v2/team-a/app/manifests/v1").await == expected };
    wait::until(&format!("{user} gets {expected}"), IN_FORCE, has_status).await
}

/// Waits until the start of an upload by the user has this status.
async fn until_pushes(registry: &Registry, user: &str, expected: u16) -> Result<()> {
    let path = "/v2/team-a/app/blobs/uploads/";
    let has_status = || async { status(registry, user, Method::POST, path).await == expected };
    wait::until(&format!("{user} gets {expected}"), IN_FORCE, has_status).await
}

/// A registry with the image `team-a/app:v1`.
async fn with_image() -> Registry {
    let registry = Registry::start().await.unwrap();
    let alice = registry.client(Program::Crane, Who::User("alice")).await.unwrap();
    alice.push(registry.image.path(), "team-a/app").await.unwrap();
    registry
}

/// Access control with these groups and these rules after the others.
fn with_more(auth: &Auth, more: &str) -> Auth {
    let more = NodeConfig::from_yaml(more).unwrap().auth.unwrap();
    let mut auth = auth.clone();
    auth.groups = more.groups;
    auth.rules.extend(more.rules);
    auth
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_a_user_and_a_group_change_without_a_restart() {
    let mut registry = with_image().await;
    let auth = registry.files.auth();
    let reads = "auth: {rules: [{who: ['user:carol'], may: [pull], in: ['team-a/**']}]}";
    let group = "auth: {groups: {writers: [bob]}, rules: [{who: ['group:writers'], may: [push], in: ['team-a/**']}]}";

    until_pulls(&registry, "carol", 401).await.unwrap();
    registry.files.set_users(&["alice", "bob", "carol"]).unwrap();
    until_pulls(&registry, "carol", 403).await.unwrap();
    registry.node.reconfigure(|config| config.auth = Some(with_more(&auth, reads))).unwrap();
    until_pulls(&registry, "carol", 200).await.unwrap();

    until_pushes(&registry, "bob", 403).await.unwrap();
    registry.node.reconfigure(|config| config.auth = Some(with_more(&auth, group))).unwrap();
    until_pushes(&registry, "bob", 202).await.unwrap();
    // The rule of the same configuration before is gone.
    until_pulls(&registry, "carol", 403).await.unwrap();
    registry.node.reconfigure(|config| config.auth = Some(auth)).unwrap();
    until_pushes(&registry, "bob", 403).await.unwrap();

    registry.files.set_users(&["alice", "bob"]).unwrap();
    until_pulls(&registry, "carol", 401).await.unwrap();
    registry.no_secret_in_its_log();
}

/// `auth` in the node's status, and its metric.
async fn report(registry: &Registry) -> (Value, f64) {
    let status = registry.node.operations().get("/status").await.unwrap().json().unwrap();
    (status["auth"].clone(), registry.node.metrics().await.unwrap().sum("access_refused", &[]))
}

/// A push by Docker Engine's code that takes [`PUSH`] seconds.
async fn slow_push(registry: &Registry) -> Result<()> {
    let alice = registry.client(Program::Docker, Who::User("alice")).await?.at_rate(RATE);
    alice.push(image(RATE * PUSH)?.path(), "team-a/slow").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_users_file_changes_nothing_and_is_reported() {
    let registry = with_image().await;
    let (before, refused) = report(&registry).await;
    assert!(before["policy"].is_string() && before["refused"].is_null() && refused == 0.0, "{before}");
    let broken = async {
        registry.files.write_users("alice:$apr1$salt$MD5-of-a-secret\n").unwrap();
        let told = || async { report(&registry).await.1 == 1.0 };
        wait::until("the node reports the broken file", IN_FORCE, told).await.unwrap();
        let (now, _) = report(&registry).await;
        let reason = now["refused"].as_str().unwrap();
        assert!(reason.starts_with("auth.users.file: ") && reason.contains('1'), "{reason}");
        assert!(!reason.contains("MD5-of-a-secret") && now["policy"] == before["policy"], "{now}");
        // The users before can still log in, also with a client that was not there before.
        let bob = registry.client(Program::Oras, Who::User("bob")).await.unwrap();
        bob.pull("team-a/app").await.unwrap();
    };
    let (pushed, ()) = tokio::join!(slow_push(&registry), broken);
    pushed.unwrap();
    assert_eq!(registry.node.log().matches("keeping the previous policy").count(), 1, "one line for one problem");
    assert!(!registry.node.log().contains("MD5-of-a-secret"));

    registry.files.set_users(&["alice", "bob"]).unwrap();
    let repaired = || async { report(&registry).await == (before.clone(), 0.0) };
    wait::until("the node takes the repaired file", IN_FORCE, repaired).await.unwrap();
    registry.no_secret_in_its_log();
}

#[tokio::test(flavor = "multi_thread")]
async fn access_control_is_turned_off_and_on_while_clients_push() {
    let mut registry = with_image().await;
    let nobody = Client::new(Program::Crane, Who::Nobody, registry.host()).unwrap();
    let (host, layout) = (registry.host().to_owned(), image(RATE * PUSH).unwrap());
    let push = async {
        let alice = Client::logged_in(Program::Docker, Who::User("alice"), &host).await?.at_rate(RATE);
        alice.push(layout.path(), "team-a/slow").await
    };
    let changes = async {
        until_pushes(&registry, "", 401).await?;
        let auth = registry.node.plan.config.auth.clone();
        registry.node.reconfigure(|config| config.auth = None)?;
        until_pushes(&registry, "", 202).await?;
        ensure!(report(&registry).await.0["policy"].is_null(), "the node reports a policy");
        nobody.push(image(1000)?.path(), "team-a/open").await?;
        registry.node.reconfigure(|config| config.auth = auth)?;
        until_pushes(&registry, "", 401).await?;
        ensure!(report(&registry).await.0["policy"].is_string(), "the node reports no policy");
        until_pushes(&registry, "bob", 403).await
    };
    let (pushed, changed) = tokio::join!(push, changes);
    changed.unwrap();
    pushed.unwrap();
    registry.no_secret_in_its_log();
}
