//! The bucket needs longer for a blob than the load balancer in front of the node allows a request
//! to be silent. Clients push through it, and retry in their own ways.
//!
//! The times are scaled down, because real ones take minutes. With `ENTREPOT_PROXY_SECONDS=60` they
//! are those of nginx and of most clouds' load balancers.

#[path = "clients/programs.rs"]
#[expect(dead_code, reason = "only crane pushes here; the other clients have tests of their own")]
mod programs;

use anyhow::{Context, Result, ensure};
use entrepot_config::Duration as Span;
use entrepot_e2e::client::location;
use entrepot_e2e::images::Layout;
use entrepot_e2e::node::Plan;
use entrepot_e2e::podman::Podman;
use entrepot_e2e::proxy::{Line, Proxy};
use entrepot_e2e::servers::{LoggedRequest, Nginx, Versitygw};
use entrepot_e2e::tools::Tool;
use entrepot_e2e::{Content, Node, Registry, commands, s3, wait};
use entrepot_oci::Digest;
use programs::{Client, Crane};
use std::future::Future;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::Command;

/// Size of the layer in bytes. Many times [`AT_ONCE`], so that the bucket receives it at an even
/// rate.
const LAYER: u64 = 8_000_000;

/// Bytes that the proxy in front of the bucket reads at once (hyper: 8 KiB and 100 pages). It
/// forwards the last of them without a pause.
const AT_ONCE: u64 = 417_792;

/// Number of retries of `podman push` by default.
const PODMAN_RETRIES: u32 = 3;

/// Durations of the participants.
#[derive(Clone, Copy)]
struct Times {
    /// The load balancer cuts off a request after this time of silence.
    cut: Duration,
    /// `upload.answerWithin`.
    answer: Duration,
    /// The bucket needs at least this time for the layer.
    bucket: Duration,
}

impl Times {
    fn new() -> Times {
        let seconds = std::env::var("ENTREPOT_PROXY_SECONDS").map_or(6, |text| text.parse().unwrap());
        let cut = Duration::from_secs(seconds);
        Times { cut, answer: cut * 5 / 6, bucket: cut * 5 / 2 }
    }
}

/// A load balancer, a node, and a slow bucket.
struct Way {
    times: Times,
    nginx: Nginx,
    /// The registry to which clients push.
    registry: Registry,
    /// A node with an empty store and a fast connection to the bucket; it serves only what the
    /// bucket has.
    other: Node,
    _node: Node,
    _slow: Proxy,
    _server: Versitygw,
    _keys: TempDir,
}

impl Way {
    async fn new() -> Result<Way> {
        let (times, server, keys) = (Times::new(), Versitygw::start().await?, TempDir::new()?);
        let rate = ((LAYER - AT_ONCE) as f64 / times.bucket.as_secs_f64()) as u64;
        let slow = Proxy::over(&server.s3.endpoint, Line { rate: Some(rate), ..Line::default() }).await?;
        let node = Plan::over(s3::node_bucket(&slow.url, keys.path())?).with(|config| {
            config.upload.answer_within = Span::from_secs(times.answer.as_secs());
            // A timeout for a slow bucket, not for a failing one.
            config.bucket.request_timeout = Span::from_secs(times.bucket.as_secs() * 2);
        });
        let node = node.start().await?;
        let other = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path())?).start().await?;
        let nginx = Nginx::balancing(node.registry.url(), times.cut).await?;
        let registry = Registry::new(&nginx.url);
        Ok(Way { times, nginx, registry, other, _node: node, _slow: slow, _server: server, _keys: keys })
    }

    /// Lets a client push a new image to a repository with the client's name, and compares the
    /// responses that it got with the content of the bucket.
    async fn pushed<F>(client: &str, push: impl FnOnce(Layout, String) -> F) -> Result<()>
    where
        F: Future<Output = Result<String>>,
    {
        let (way, start) = (Way::new().await?, Instant::now());
        let mut layout = Layout::new()?;
        let image = layout.image("amd64", &[layout.layer(client, LAYER)?])?;
        layout.tag(&image, "v1")?;
        let said = push(layout, format!("{}/{client}:v1", way.registry.host())).await;
        let took = start.elapsed();
        let word = if said.is_ok() { "succeeded" } else { "FAILED" };
        println!("{client} {word} after {took:.1?}; the bucket needs {:.1?} for the layer", way.times.bucket);
        let answered = way.answered()?;
        println!("{}", said.with_context(|| format!("{client} gave up"))?.trim());
        ensure!(answered.iter().all(|request| request.status != 504), "nginx cut a request that was silent");
        let late = answered.iter().filter(|request| request.method == "PUT" && request.status == 503).count();
        ensure!(late > 0, "the bucket was too fast to prove anything");
        way.pull(client).await
    }

    /// The requests to which nginx has responded; prints them as well.
    fn answered(&self) -> Result<Vec<LoggedRequest>> {
        let mut answered = self.nginx.logged_requests()?;
        answered.retain(|request| request.path.starts_with("/v2/"));
        answered.sort_by_key(|request| request.began);
        let first = answered.first().map(|request| request.began).unwrap_or_default();
        for request in &answered {
            let (at, took) = ((request.began - first).as_secs_f64(), request.took.as_secs_f64());
            println!("  at {at:6.1}s  {:<5} {} after {took:5.1}s  {}", request.method, request.status, request.path);
        }
        Ok(answered)
    }

    /// Pulls every byte from the bucket.
    async fn pull(&self, repository: &str) -> Result<()> {
        let manifest = self.other.registry.manifest(repository, "v1").await?.expect(200)?.json()?;
        let layer = Digest::parse(manifest["layers"][0]["digest"].as_str().context("the manifest has no layer")?)?;
        let pulled = self.other.registry.pull(repository, &layer).await?;
        ensure!(pulled.bytes >= LAYER, "the layer has {} bytes", pulled.bytes);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_repeats_the_layer_until_the_bucket_has_it() {
    let push = |layout: Layout, reference: String| async move {
        let mut command = Command::new(Tool::DockerPush.path()?);
        commands::run(command.arg(layout.path()).args(["v1", &reference])).await
    };
    Way::pushed("docker", push).await.unwrap();
}

/// Debian's podman 4.3 exits on a 503. Since 5.5 podman retries a push by itself (`--retry`); here
/// the test does.
#[tokio::test(flavor = "multi_thread")]
async fn podman_repeats_the_push_until_the_bucket_has_the_layer() {
    let push = |layout: Layout, reference: String| async move {
        let podman = Podman::new()?;
        for retry in 1..=PODMAN_RETRIES {
            match podman.push(layout.path(), "v1", &reference).await {
                Err(error) if format!("{error:#}").contains("503 Service Unavailable") => {
                    println!("podman got a 503; retry {retry}");
                }
                pushed => return pushed.map(|(_, digest)| digest),
            }
        }
        podman.push(layout.path(), "v1", &reference).await.map(|(_, digest)| digest)
    };
    Way::pushed("podman", push).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn crane_repeats_the_layer_until_the_bucket_has_it() {
    let push = |layout: Layout, reference: String| async move {
        Crane.push(layout.path(), "v1", &reference).await.map(|()| String::new())
    };
    Way::pushed("crane", push).await.unwrap();
}

/// What the specification allows any client: a client that repeats the `PUT` sends the layer only
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_put_and_a_head_find_an_upload_that_continued_without_its_client() {
    let (way, content) = (Way::new().await.unwrap(), Content::fresh(LAYER));
    let session = way.registry.open_session("plain").await.unwrap();
    let session = way.registry.append(&session, &content, 0, LAYER).await.unwrap().expect(202).unwrap();
    let session = location(&session).unwrap();
    let blob = format!("/v2/plain/blobs/{}", content.digest);

    let late = way.registry.finish(&session, &content.digest).await.unwrap().expect(503).unwrap();
    assert!(late.header("retry-after").is_some(), "{late:?}");
    // If the HEAD found it before the bucket has it, the client would push its manifest.
    way.registry.head(&blob).await.unwrap().expect(404).unwrap();
    let repeated = || async {
        let reply = way.registry.finish(&session, &content.digest).await.unwrap();
        (reply.status != 503).then_some(reply)
    };
    let reply = wait::value("the repeated PUT finds the blob", way.times.bucket, repeated).await.unwrap();
    reply.expect(201).unwrap();
    way.registry.head(&blob).await.unwrap().expect(200).unwrap();

    let answered = way.answered().unwrap();
    assert_eq!(answered.iter().filter(|request| request.method == "PATCH").count(), 1);
    way.other.registry.pull("plain", &content.digest).await.unwrap();
}
