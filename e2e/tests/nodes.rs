//! Nodes as processes: two that share a bucket, and the one of `examples/folder`.

use anyhow::Result;
use bytes::Bytes;
use entrepot_config::{Duration as Span, NodeConfig, NodeName, PeerAddress, Peers, ReplicationMode};
use entrepot_e2e::client::{Reply, empty, location, streamed, with_digest};
use entrepot_e2e::node::Plan;
use entrepot_e2e::node_binary::Variant;
use entrepot_e2e::proxy::{Fault, Proxy, Rule};
use entrepot_e2e::push::{IMAGE, Image};
use entrepot_e2e::servers::{Versitygw, free_port};
use entrepot_e2e::{Content, Node, s3, wait};
use futures::channel::mpsc;
use http::Method;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Two nodes that can reach each other.
struct Pair {
    a: Node,
    b: Node,
    server: Versitygw,
    keys: TempDir,
}

impl Pair {
    async fn new() -> Pair {
        Pair::with(|_| {}).await
    }

    async fn with(change: impl Fn(&mut NodeConfig)) -> Pair {
        let (server, keys) = (Versitygw::start().await.unwrap(), TempDir::new().unwrap());
        let port = free_port().unwrap();
        // Loopback has many addresses, of which these nodes and others that are not there have one each.
        let peers: BTreeMap<_, PeerAddress> = (11..=13)
            .map(|last| (format!("node-{last}"), format!("http://127.0.0.{last}:{port}").parse().unwrap()))
            .collect();
        let node = |last: u8| {
            let plan = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path()).unwrap()).with(|config| {
                config.node.name = NodeName::parse(&format!("node-{last}")).unwrap();
                config.node.peers = Some(Peers::Listed(peers.clone()));
                config.http.listen = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
                change(config);
            });
            plan.start()
        };
        let (a, b) = (node(11).await.unwrap(), node(12).await.unwrap());
        Pair { a, b, server, keys }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_one_node_opened_continues_at_another() {
    let pair = Pair::new().await;
    let (a, b) = (&pair.a.registry, &pair.b.registry);
    let blob = Content::fresh(30 << 20);
    let session = a.open_session("nodes/app").await.unwrap();
    let cut = [0, 10 << 20, 20 << 20, 25 << 20];
    let first = b.append(&session, &blob, cut[0], cut[1]).await.unwrap().expect(202).unwrap();
    assert_eq!(first.header("range"), Some(format!("0-{}", cut[1] - 1).as_str()));
    let second = a.append(&location(&first).unwrap(), &blob, cut[1], cut[2]).await.unwrap().expect(202).unwrap();
    let session = location(&second).unwrap();
    for node in [a, b] {
        let status = node.get(&session).await.unwrap().expect(204).unwrap();
        assert_eq!(status.header("range"), Some(format!("0-{}", cut[2] - 1).as_str()));
    }
    let out_of_order = b.append(&session, &blob, cut[3], blob.size).await.unwrap();
    assert_eq!(out_of_order.status, 416, "{out_of_order:?}");
    // The last part is sent with the PUT, through the other node.
    let range = format!("{}-{}", cut[2], blob.size - 1);
    let length = (blob.size - cut[2]).to_string();
    let headers = [("content-range", range.as_str()), ("content-length", length.as_str())];
    let body = streamed(blob.stream(cut[2]..blob.size));
    b.send(Method::PUT, &with_digest(&session, &blob.digest), &headers, body).await.unwrap().expect(201).unwrap();
    for node in [a, b] {
        node.pull("nodes/app", &blob.digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_node_is_down_is_unknown() {
    let mut pair = Pair::new().await;
    let session = pair.a.registry.open_session("nodes/app").await.unwrap();
    pair.b.registry.get(&session).await.unwrap().expect(204).unwrap();
    pair.a.kill().unwrap();
    let blob = Content::fresh(1000);
    for reply in [
        pair.b.registry.get(&session).await.unwrap(),
        pair.b.registry.append(&session, &blob, 0, 1000).await.unwrap(),
        pair.b.registry.finish(&session, &blob.digest).await.unwrap(),
    ] {
        assert_eq!((reply.status, reply.code().as_deref()), (404, Some("BLOB_UPLOAD_UNKNOWN")), "{reply:?}");
    }
    // The client starts again.
    pair.b.registry.push("nodes/app", &blob).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_stopped_does_not_hold_the_requests_of_others() {
    let pair = Pair::with(|config| config.upload.answer_within = Span::from_secs(1)).await;
    let session = pair.a.registry.open_session("nodes/app").await.unwrap();
    pair.a.signal(Signal::STOP).unwrap();
    let blob = Content::fresh(1000);
    let (status, chunk) =
        tokio::join!(pair.b.registry.get(&session), pair.b.registry.append(&session, &blob, 0, blob.size));
    for reply in [status.unwrap(), chunk.unwrap()] {
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    }
    let none = || async { pair.b.metrics().await.unwrap().sum("http_requests_running", &[]) == 0.0 };
    wait::until("the other node has no request in progress", Duration::from_secs(10), none).await.unwrap();
    pair.a.signal(Signal::CONT).unwrap();
    pair.b.registry.get(&session).await.unwrap().expect(204).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_node_that_never_existed_is_unknown() {
    let pair = Pair::new().await;
    for owner in ["node-13", "13", "99", "elsewhere"] {
        let id = format!("{owner}.0f8fad5b-d9cb-469f-a165-70867728950e");
        let reply = pair.a.registry.get(&format!("/v2/nodes/app/blobs/uploads/{id}")).await.unwrap();
        assert_eq!((reply.status, reply.code().as_deref()), (404, Some("BLOB_UPLOAD_UNKNOWN")), "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_restart_of_its_node() {
    let mut pair = Pair::new().await;
    let blob = Content::fresh(20 << 20);
    let session = pair.a.registry.open_session("nodes/app").await.unwrap();
    pair.a.registry.append(&session, &blob, 0, 8 << 20).await.unwrap().expect(202).unwrap();
    pair.a.kill().unwrap();
    pair.a.start_again().await.unwrap();
    let status = pair.a.registry.get(&session).await.unwrap().expect(204).unwrap();
    // After kill -9 the session may have fewer bytes than were acknowledged, but never other bytes.
    let end = status.header("range").and_then(|range| range.split_once('-')?.1.parse::<u64>().ok()).unwrap();
    let at = if end == 0 { 0 } else { end + 1 };
    assert!(at <= 8 << 20, "{status:?}");
    pair.a.registry.append(&session, &blob, at, blob.size).await.unwrap().expect(202).unwrap();
    pair.a.registry.finish(&session, &blob.digest).await.unwrap().expect(201).unwrap();
    pair.b.registry.pull("nodes/app", &blob.digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_concurrent_pushes_of_a_tag_wins() {
    let pair = Pair::new().await;
    let (a, b) = (&pair.a.registry, &pair.b.registry);
    let images = [Image::fresh(&[1000]), Image::fresh(&[2000])];
    a.push_image("nodes/race", "first", &images[0]).await.unwrap();
    b.push_image("nodes/race", "second", &images[1]).await.unwrap();
    let mut winners = [0, 0];
    for round in 0..40 {
        let put = |node: usize| {
            let registry = [a, b][node];
            registry.put_manifest("nodes/race", "latest", IMAGE, &images[node].manifest)
        };
        let (one, other) = tokio::join!(put(0), put(1));
        for reply in [one.unwrap(), other.unwrap()] {
            assert_eq!(reply.status, 201, "round {round}: {reply:?}");
        }
        let served = [a, b].map(|registry| registry.manifest("nodes/race", "latest"));
        let served: Vec<Reply> = futures::future::try_join_all(served).await.unwrap();
        assert_eq!(served[0].body, served[1].body, "round {round}: the nodes disagree");
        let winner = images.iter().position(|image| image.manifest == served[0].body);
        winners[winner.unwrap_or_else(|| panic!("round {round}: the tag has neither manifest: {:?}", served[0]))] += 1;
    }
    println!("40 races: one node won {}, the other {}", winners[0], winners[1]);
    for (registry, image) in [(a, &images[1]), (b, &images[0])] {
        registry.pull_image("nodes/race", &image.digest.to_string(), image).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_at_once_what_the_other_acknowledged() {
    let pair = Pair::new().await;
    for round in 0..60 {
        let (writer, reader) = if round % 2 == 0 { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        let image = Image::fresh(&[500, 70_000]);
        // The same tag is moved each time, so that a stale read would be noticed.
        writer.registry.push_image("nodes/now", "latest", &image).await.unwrap();
        let pulled = reader.registry.pull_image("nodes/now", "latest", &image).await;
        pulled.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_finishes_what_is_in_flight() {
    let mut pair = Pair::new().await;
    let blob = Content::fresh(8 << 20);
    let session = pair.a.registry.open_session("nodes/drain").await.unwrap();
    let (mut sender, receiver) = mpsc::channel::<Bytes>(1);
    let registry = pair.a.registry.clone();
    let target = with_digest(&session, &blob.digest);
    let length = blob.size.to_string();
    let push = tokio::spawn(async move {
        registry.send(Method::PUT, &target, &[("content-length", length.as_str())], streamed(receiver)).await
    });
    use futures::SinkExt;
    let mut pieces = blob.pieces(0..blob.size);
    for piece in pieces.by_ref().take(4) {
        sender.send(piece).await.unwrap();
    }
    pair.a.signal(Signal::TERM).unwrap();
    let operations = pair.a.operations().clone();
    let not_ready = || async { operations.get("/readyz").await.map_or(true, |reply| reply.status != 200) };
    wait::until("the node is not ready", Duration::from_secs(10), not_ready).await.unwrap();
    for piece in pieces {
        sender.send(piece).await.unwrap();
    }
    drop(sender);
    let reply = push.await.unwrap().unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
    let status = pair.a.wait(Duration::from_secs(30)).await.unwrap();
    assert!(status.success(), "{status}");
    pair.b.registry.pull("nodes/drain", &blob.digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_asks_its_clients_to_leave() {
    let folder = TempDir::new().unwrap();
    let plan = Plan::over_folder(&folder.path().join("bucket"));
    let plan = plan.with(|config| config.shutdown.drain_delay = entrepot_config::Duration::from_secs(20));
    let node = plan.start().await.unwrap();
    let connection = async || {
        let reply = node.registry.get("/v2/").await.unwrap().expect(200).unwrap();
        reply.header("connection").map(str::to_owned)
    };
    assert_eq!(connection().await, None);
    node.signal(Signal::TERM).unwrap();
    let not_ready = || async { node.operations().get("/readyz").await.is_ok_and(|reply| reply.status != 200) };
    wait::until("the node is not ready", Duration::from_secs(10), not_ready).await.unwrap();
    assert_eq!(connection().await.as_deref(), Some("close"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_uploads_pending_blobs() {
    let pair = Pair::new().await;
    let proxy = Proxy::start(&pair.server.s3.endpoint).await.unwrap();
    let bucket = s3::node_bucket(&proxy.url, pair.keys.path()).unwrap();
    let plan = Plan::over(bucket).with(|config| config.replication.mode = ReplicationMode::WriteBack);
    let mut node = plan.start().await.unwrap();
    proxy.fail(Rule::always("/blobs/", Fault::Delay(Duration::from_secs(2))).of(Method::PUT));
    let blobs: Vec<_> = (0..4).map(|_| Content::fresh(100_000)).collect();
    for blob in &blobs {
        node.registry.push("nodes/back", blob).await.unwrap();
    }
    let pending = node.metrics().await.unwrap().sum("pending_blobs", &[]);
    assert!(pending > 0.0, "no acknowledged blob was pending");
    let status = node.stop().await.unwrap();
    assert!(status.success(), "{status}");
    for blob in &blobs {
        pair.b.registry.pull("nodes/back", &blob.digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_acknowledged_only_after_its_blobs_are_in_the_bucket() {
    let pair = Pair::new().await;
    let proxy = Proxy::start(&pair.server.s3.endpoint).await.unwrap();
    let bucket = s3::node_bucket(&proxy.url, pair.keys.path()).unwrap();
    let plan = Plan::over(bucket).with(|config| config.replication.mode = ReplicationMode::WriteBack);
    let mut node = plan.start().await.unwrap();
    proxy.fail(Rule::always("/blobs/", Fault::Delay(Duration::from_secs(1))).of(Method::PUT));
    let image = Image::fresh(&[100_000, 200_000]);
    node.registry.push_image("nodes/barrier", "v1", &image).await.unwrap();
    // Without its store, the image is still available.
    node.kill().unwrap();
    pair.b.registry.pull_image("nodes/barrier", "v1", &image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_session_is_unknown_at_every_node() -> Result<()> {
    let pair = Pair::new().await;
    let session = pair.a.registry.open_session("nodes/app").await?;
    pair.b.registry.send(Method::DELETE, &session, &[], empty()).await?.expect(204)?;
    for node in [&pair.a, &pair.b] {
        node.registry.get(&session).await?.expect(404)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_with_a_directory_as_the_bucket_works() -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/folder/node.yaml");
    let elsewhere = TempDir::new()?;
    let check = Command::new(Variant::Release.path()?)
        .args(["--check-config", "--config"])
        .arg(&example)
        .current_dir(&elsewhere)
        .output()?;
    assert!(check.status.success(), "{check:?}");

    let config = NodeConfig::from_yaml(&std::fs::read_to_string(&example)?)?;
    let mut plan = Plan { config, variant: Variant::Release, environment: Vec::new() };
    // Port 5000 may be in use on this machine.
    plan.config.http.listen.set_port(0);
    plan.config.operations.listen.set_port(0);
    let mut node = plan.start().await?;
    node.operations().get("/readyz").await?.expect(200)?;
    let image = Image::fresh(&[300_000, 2_000_000]);
    node.registry.push_image("team/app", "1", &image).await?;
    node.registry.pull_image("team/app", "1", &image).await?;
    // The README calls the store a cache.
    node.stop().await?;
    std::fs::remove_dir_all(node.store())?;
    node.start_again().await?;
    node.registry.pull_image("team/app", "1", &image).await
}
