//! Three nodes behind a load balancer. All clients push and pull while the nodes restart one after
//! the other, and while the key of tokens is replaced.

use crate::clients::{Client, Program, Who};
use crate::fixture::{Files, basic, image, plan};
use anyhow::{Context, Result};
use entrepot_config::{Duration as Span, NodeName, PeerAddress, Peers};
use entrepot_e2e::client::{empty, location};
use entrepot_e2e::node::Plan;
use entrepot_e2e::servers::{Nginx, Versitygw, free_port};
use entrepot_e2e::{Node, s3, wait};
use futures::future::try_join_all;
use http::Method;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The number of the last key. The key is replaced several times, because nodes do not read the file
/// at the same moment: without the first step of [`Cluster::replace_key`], clients bring tokens of a
/// new key to nodes that have not read it yet.
const KEYS: u8 = 3;
/// Number of nodes.
const NODES: usize = 3;
/// Time in which clients finish the upload sessions that they have at a node that stops.
const DRAIN: Duration = Duration::from_secs(6);
/// Nothing here takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);
/// Size of a layer in bytes. Clients that can be slowed down need two seconds for it, so that their
/// pushes overlap with the changes.
const LAYER: u64 = 100_000;

/// Three nodes over one bucket, with one key file.
struct Cluster {
    nodes: Vec<Node>,
    nginx: Nginx,
    files: Files,
    _server: Versitygw,
    _keys: TempDir,
}

impl Cluster {
    async fn start() -> Result<Cluster> {
        let (server, keys, files) = (Versitygw::start().await?, TempDir::new()?, Files::new()?);
        let ports: Vec<u16> = (0..NODES).map(|_| free_port()).collect::<Result<_>>()?;
        let peers = ports.iter().enumerate();
        let peers = peers.map(|(number, port)| Ok((name(number), format!("http://127.0.0.1:{port}").parse()?)));
        let peers = peers.collect::<Result<BTreeMap<String, PeerAddress>>>()?;
        let mut nodes = Vec::new();
        for (number, port) in ports.into_iter().enumerate() {
            let over = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path())?);
            let plan = plan(over, files.auth()).with(|config| {
                config.node.name = NodeName::parse(&name(number)).unwrap();
                config.node.peers = Some(Peers::Listed(peers.clone()));
                config.http.listen.set_port(port);
                config.shutdown.drain_delay = Span::from_secs(DRAIN.as_secs());
            });
            nodes.push(plan.start().await?);
        }
        let urls: Vec<&str> = nodes.iter().map(|node| node.registry.url()).collect();
        let nginx = Nginx::balancing_all(&urls).await?;
        Ok(Cluster { nodes, nginx, files, _server: server, _keys: keys })
    }

    fn host(&self) -> String {
        self.nginx.url.trim_start_matches("http://").to_owned()
    }

    /// Restarts the nodes one after the other, as a StatefulSet does.
    async fn restart_all(&mut self) -> Result<()> {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            node.signal(Signal::TERM)?;
            let operations = node.operations().clone();
            let unready = || async { operations.get("/readyz").await.is_ok_and(|reply| reply.status == 503) };
            wait::until("the node is not ready", DEADLINE, unready).await?;
            self.nginx.leave_out(number)?;
            node.wait(DEADLINE).await?;
            node.start_again().await?;
            self.nginx.take_in(number)?;
        }
        Ok(())
    }

    /// Makes a key sign, as the documentation says: it verifies at every node before it signs at one
    /// of them. Older keys go on to verify.
    async fn replace_key(&self, newest: u8) -> Result<()> {
        let older: Vec<u8> = (1..newest).rev().collect();
        self.rotate(&[&older[..], &[newest]].concat()).await?;
        self.rotate(&[&[newest], &older[..]].concat()).await
    }

    /// Writes the key file, and waits until every node has read it.
    async fn rotate(&self, keys: &[u8]) -> Result<()> {
        let applied = |node: &Node| node.log().matches("applied access control").count();
        let before: Vec<usize> = self.nodes.iter().map(applied).collect();
        self.files.rotate(keys)?;
        let all = || async { self.nodes.iter().zip(&before).all(|(node, before)| applied(node) > *before) };
        wait::until("every node has read the keys", DEADLINE, all).await
    }

    /// Checks the logs of all nodes.
    fn no_secret_in_its_logs(&self) {
        for node in &self.nodes {
            self.files.no_secret_in(&node.log());
        }
    }

    /// Runs every client in a loop until the changes are complete. Returns how often each client has
    /// pushed and pulled.
    async fn busy(&mut self, changes: impl AsyncFnOnce(&mut Cluster) -> Result<()>) -> Result<Vec<usize>> {
        let host = self.host();
        let complete = AtomicUsize::new(0);
        let clients = try_join_all(Program::ALL.map(|program| push_and_pull(program, &host, &complete)));
        let changes = async {
            let changed = changes(self).await;
            complete.store(1, Ordering::SeqCst);
            changed
        };
        let (rounds, changed) = tokio::join!(clients, changes);
        changed?;
        rounds
    }
}

fn name(number: usize) -> String {
    format!("node-{number}-of-three")
}

/// Logs in, pushes a new image and pulls it, again and again.
async fn push_and_pull(program: Program, host: &str, complete: &AtomicUsize) -> Result<usize> {
    let mut rounds = 0;
    while complete.load(Ordering::SeqCst) == 0 || rounds == 0 {
        let client = Client::logged_in(program, Who::User("alice"), host).await;
        let client = client.with_context(|| format!("{program:?}, round {rounds}"))?.at_rate(LAYER / 2);
        let repository = format!("team-a/{program:?}-{rounds}").to_lowercase();
        let done = async {
            client.push(image(LAYER)?.path(), &repository).await?;
            client.pull(&repository).await
        };
        done.await.with_context(|| format!("{program:?}, round {rounds}"))?;
        rounds += 1;
    }
    Ok(rounds)
}

/// The node that forwards a request and the owner of the session are reached under different hosts;
/// the token is for the one that the client knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_continues_at_another_node_with_the_token_of_the_first() {
    let cluster = Cluster::start().await.unwrap();
    let [first, second] = [0, 1].map(|number| &cluster.nodes[number].registry);
    let host = ("host", "images.localhost");
    let scope = "/v2/_token?scope=repository:team-a/app:pull,push";
    let authorization = basic("alice");
    let issued = first.send(Method::GET, scope, &[host, ("authorization", &authorization)], empty()).await.unwrap();
    let bearer = format!("Bearer {}", issued.json().unwrap()["token"].as_str().unwrap());
    let headers = [host, ("authorization", bearer.as_str())];
    let opened = first.send(Method::POST, "/v2/team-a/app/blobs/uploads/", &headers, empty()).await.unwrap();
    let session = location(&opened.expect(202).unwrap()).unwrap();
    second.send(Method::GET, &session, &headers, empty()).await.unwrap().expect(204).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_push_and_no_pull_fails_while_nodes_restart_and_the_key_is_replaced() {
    let mut cluster = Cluster::start().await.unwrap();
    let rounds = cluster
        .busy(async |cluster: &mut Cluster| {
            for newest in 2..=KEYS {
                cluster.replace_key(newest).await?;
            }
            cluster.restart_all().await
        })
        .await
        .unwrap();
    println!("pushes and pulls of each client: {rounds:?}");
    cluster.no_secret_in_its_logs();
}
