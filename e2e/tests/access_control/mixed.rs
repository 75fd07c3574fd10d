//! One registry with public and private repositories, and one client configuration. Registries that
//! answer 200 to `/v2/` where something is public fail here: docker and podman then never send their
//! credentials (zot issues 1917, 2928, 3538, 3991 and 4173).

use crate::clients::{Client, Program, Who};
use crate::fixture::{Registry, refused};
use crate::{UNAUTHORIZED, unauthorized};
use entrepot_e2e::client::empty;
use http::Method;

/// The clients whose first request is `GET /v2/`, and one that reads the same file.
const PROGRAMS: [Program; 4] = [Program::Docker, Program::Podman, Program::Skopeo, Program::Oras];

#[tokio::test(flavor = "multi_thread")]
async fn one_client_configuration_serves_public_and_private_repositories() {
    let registry = Registry::start().await.unwrap();
    let alice = registry.client(Program::Crane, Who::User("alice")).await.unwrap();
    for repository in ["public/app", "team-a/app"] {
        alice.push(registry.image.path(), repository).await.unwrap();
    }
    let logged_in = registry.client(Program::Crane, Who::User("bob")).await.unwrap();
    for program in PROGRAMS {
        let nobody = Client::new(program, Who::Nobody, registry.host()).unwrap();
        nobody.pull("public/app").await.unwrap();
        refused("an anonymous pull", nobody.pull("team-a/app").await, unauthorized(program)).unwrap();
        let bob = Client::new(program, Who::User("bob"), registry.host()).unwrap().with_config_of(&logged_in).unwrap();
        bob.pull("public/app").await.unwrap();
        bob.pull("team-a/app").await.unwrap();
        // A right of everybody is not lost by a login.
        bob.pull("public/app").await.unwrap();
        let wrong = Client::new(program, Who::WrongPassword, registry.host()).unwrap();
        refused("a login with a wrong password", wrong.login().await, &UNAUTHORIZED).unwrap();
    }
    registry.no_secret_in_its_log();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_program_is_asked_for_a_token_at_the_version_endpoint() {
    let registry = Registry::start().await.unwrap();
    // zot selects its answer by the program's name.
    let programs =
        ["docker/28.5 go/go1.26", "docker-compose/2.40", "containers/5.36 (github.com/containers/image)", ""];
    for program in programs {
        let headers = [("user-agent", program)];
        let reply = registry.node.registry.send(Method::GET, "/v2/", &headers, empty()).await.unwrap();
        let challenges: Vec<_> = reply.headers.get_all("www-authenticate").iter().collect();
        assert_eq!((reply.status, challenges.len()), (401, 1), "{program}: {reply:?}");
        let expected = format!("Bearer realm=\"http://{0}/v2/_token\",service=\"{0}\"", registry.host());
        assert_eq!(challenges[0], &expected, "{program}");
    }
}
