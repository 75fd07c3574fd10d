//! Clients that are slow, stall or disconnect: each is cut off in time and leaves nothing running.

use super::{Setting, TIMEOUT, is_refused, read, status};
use entrepot_e2e::{Content, wait};
use std::time::Instant;
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_finish_its_headers_is_cut_off() {
    let mut setting = Setting::new().await;
    for head in ["", "G", "GET /v2/ HTTP/1.1\r\n", "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut stream = setting.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let start = Instant::now();
        let said = read(&mut stream).await;
        assert!(is_refused(status(&said)), "{said}");
        assert!(start.elapsed() < TIMEOUT, "{head:?}: still connected after {:?}", start.elapsed());
    }
    setting.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_in_its_body_is_cut_off_and_can_resume() {
    let mut setting = Setting::new().await;
    let session = setting.node.registry.open_session("a").await.unwrap();
    let blob = Content::fresh(1000);
    let mut stream = setting.connect().await;
    let head = format!("PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&blob.bytes()[..100]).await.unwrap();
    let start = Instant::now();
    let said = read(&mut stream).await;
    assert!(is_refused(status(&said)), "{said}");
    assert!(start.elapsed() < TIMEOUT, "still connected after {:?}", start.elapsed());
    let reply = setting.node.registry.get(&session).await.unwrap().expect(204).unwrap();
    assert_eq!(reply.header("range"), Some("0-99"), "the received bytes are kept");
    setting.node.registry.append(&session, &blob, 100, 1000).await.unwrap().expect(202).unwrap();
    setting.node.registry.finish(&session, &blob.digest).await.unwrap().expect(201).unwrap();
    setting.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_the_response_is_cut_off() {
    let mut setting = Setting::new().await;
    let blob = Content::fresh(256 << 20);
    setting.node.registry.push("a", &blob).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = setting.connect().await;
        let head = format!("GET /v2/a/blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n", blob.digest);
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let running = |count: f64| {
        let node = &setting.node;
        move || async move { node.metrics().await.is_ok_and(|metrics| metrics.sum("http_requests_running", &[]) == count) }
    };
    wait::until("all responses have started", TIMEOUT, running(8.0)).await.unwrap();
    wait::until("all are cut off", TIMEOUT, running(0.0)).await.unwrap();
    setting.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_leaves_nothing_running() {
    let mut setting = Setting::new().await;
    let blob = Content::fresh(64 << 20);
    setting.node.registry.push("a", &blob).await.unwrap();
    for _ in 0..50 {
        let session = setting.node.registry.open_session("a").await.unwrap();
        let mut push = setting.connect().await;
        let head = format!("PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc");
        push.write_all(head.as_bytes()).await.unwrap();
        let mut pull = setting.connect().await;
        let head = format!("GET /v2/a/blobs/{} HTTP/1.1\r\nHost: x\r\n\r\n", blob.digest);
        pull.write_all(head.as_bytes()).await.unwrap();
    }
    let node = &setting.node;
    let idle = || async { node.metrics().await.is_ok_and(|m| m.sum("http_requests_running", &[]) == 0.0) };
    wait::until("no request is running", TIMEOUT, idle).await.unwrap();
    setting.assert_unharmed().await;
}
