//! Access control with real clients: who may pull, push, list and mount; what changes while the node
//! runs; several nodes; and the tutorial.

#[path = "access_control/changes.rs"]
mod changes;
#[path = "access_control/clients.rs"]
mod clients;
#[path = "access_control/fixture.rs"]
mod fixture;
#[path = "access_control/mixed.rs"]
mod mixed;
#[path = "access_control/rolling.rs"]
mod rolling;
#[path = "access_control/tutorial.rs"]
mod tutorial;

use anyhow::{Context, Result, ensure};
use clients::{Client, Program, Who};
use entrepot_config::Duration;
use entrepot_e2e::client::empty;
use entrepot_e2e::wait;
use fixture::{Registry, basic, image, refused};
use http::Method;
use std::time::Instant;

/// What programs print for 401.
const UNAUTHORIZED: [&str; 5] =
    ["unauthorized", "401", "authentication required", "credential", "invalid username/password"];
/// What programs print for 403.
const DENIED: [&str; 3] = ["denied", "403", "forbidden"];

/// What a program prints if it has no credentials, and its anonymous token is not good for a request:
/// 401 with `error="insufficient_scope"`.
fn unauthorized(program: Program) -> &'static [&'static str] {
    match program {
        // Its registry client makes DENIED of insufficient_scope (distribution 2.8.3,
        // registry/client/errors.go).
        Program::Docker => &["requested access to the resource is denied"],
        Program::Containerd => &["insufficient_scope: authorization failed", "401"],
        _ => &UNAUTHORIZED,
    }
}

/// The operations of one client: as nobody, as a user with rights, as one with few, and with a wrong
/// password.
async fn operations(registry: &Registry, program: Program) -> Result<()> {
    let layout = registry.image.path();
    // Clients do not push what the registry already has.
    let other = image(1000)?;
    let name = format!("{program:?}").to_lowercase();
    let (public, private) = (format!("public/{name}"), format!("team-a/{name}"));
    let alice = registry.client(program, Who::User("alice")).await?;
    alice.push(layout, &public).await?;
    alice.push(layout, &private).await?;
    alice.pull(&private).await?;

    let nobody = registry.client(program, Who::Nobody).await?;
    nobody.pull(&public).await?;
    refused("an anonymous pull", nobody.pull(&private).await, unauthorized(program))?;
    refused("an anonymous push", nobody.push(other.path(), &private).await, unauthorized(program))?;
    refused("an anonymous push to public/", nobody.push(other.path(), &public).await, unauthorized(program))?;

    let bob = registry.client(program, Who::User("bob")).await?;
    bob.pull(&public).await?;
    bob.pull(&private).await?;
    refused("a push without the right", bob.push(other.path(), &private).await, &DENIED)?;

    let mallory = Client::new(program, Who::WrongPassword, registry.host())?;
    // containerd has no login, and crane's only stores the password.
    if matches!(program, Program::Containerd | Program::Crane) {
        mallory.login().await?;
        refused("a pull with a wrong password", mallory.pull(&private).await, &UNAUTHORIZED)?;
    } else {
        refused("a login with a wrong password", mallory.login().await, &UNAUTHORIZED)?;
    }

    for (client, expected) in [(&alice, true), (&bob, true), (&nobody, false)] {
        if let Some(listed) = client.catalog().await {
            let listed = listed?;
            ensure!(listed.contains(&public) && listed.contains(&private) == expected, "the catalog is {listed}");
        }
    }
    if let Some(copied) = alice.copy(&private, &format!("{public}-copy")).await {
        copied?;
    }
    if let Some(copied) = bob.copy(&private, &format!("{public}-other")).await {
        refused("a copy without the right to push", copied, &DENIED)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_may_do_what_the_rules_allow_and_nothing_else() {
    let registry = Registry::start().await.unwrap();
    let mut failed = Vec::new();
    for program in Program::ALL {
        match operations(&registry, program).await {
            Ok(()) => println!("{program:?}: as expected"),
            Err(error) => failed.push(format!("{program:?}: {error:#}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    registry.no_secret_in_its_log();
}

/// The shortest lifetime of a token, in seconds.
const LIFETIME: u64 = 60;
/// Seconds for which a token is valid beyond its lifetime.
const LEEWAY: u64 = 60;

/// How long a token of Alice is accepted.
async fn accepted_for(registry: &Registry) -> Result<std::time::Duration> {
    let (registry, authorization) = (&registry.node.registry, basic("alice"));
    let headers = [("authorization", authorization.as_str())];
    let issued = registry.send(Method::GET, "/v2/_token", &headers, empty()).await?.json()?;
    ensure!(issued["expires_in"] == LIFETIME, "{}", issued["expires_in"]);
    let bearer = format!("Bearer {}", issued["token"].as_str().context("the answer has no token")?);
    let start = Instant::now();
    let refused = || async {
        let reply = registry.send(Method::GET, "/v2/", &[("authorization", &bearer)], empty()).await;
        reply.is_ok_and(|reply| reply.status == 401)
    };
    wait::until("the token is refused", std::time::Duration::from_secs(2 * (LIFETIME + LEEWAY)), refused).await?;
    Ok(start.elapsed())
}

/// A push of a layer takes longer than its token is valid, including the leeway of a minute. It is
/// completed, because a token is checked at the start of a request only. No token is refused before
/// the time that its client was told, and a clock may be late by the leeway.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_takes_longer_than_its_token_succeeds() {
    let registry = Registry::with(|auth| auth.tokens.lifetime = Duration::from_secs(LIFETIME)).await.unwrap();
    let rate = 100_000;
    let image = image(rate * (LIFETIME + LEEWAY + 3)).unwrap();
    let push = async |program| {
        let client = registry.client(program, Who::User("alice")).await?.at_rate(rate);
        client.push(image.path(), &format!("team-a/{program:?}").to_lowercase()).await
    };
    let pushes = (push(Program::Docker), push(Program::Containerd));
    let (docker, containerd, accepted) = tokio::join!(pushes.0, pushes.1, accepted_for(&registry));
    // The time of issue is in whole seconds.
    let accepted = accepted.unwrap().as_secs() + 1;
    assert!((LIFETIME + LEEWAY..LIFETIME + LEEWAY + 10).contains(&accepted), "accepted for {accepted} s");
    docker.unwrap();
    containerd.unwrap();
    registry.no_secret_in_its_log();
}
