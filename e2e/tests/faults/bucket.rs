//! Faults of the bucket: slow, rejecting, breaking off, returning wrong bytes, unreachable.

use entrepot_config::Duration as Span;
use entrepot_e2e::client::Reply;
use entrepot_e2e::node::Plan;
use entrepot_e2e::proxy::{Fault, Proxy, Rule};
use entrepot_e2e::push::{IMAGE, Image};
use entrepot_e2e::servers::Versitygw;
use entrepot_e2e::{Content, Node, s3, wait};
use http::Method;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A node with a faulty connection to the bucket, and one with a good connection.
struct Setting {
    node: Node,
    healthy: Node,
    proxy: Proxy,
    server: Versitygw,
    _keys: TempDir,
}

/// The retry budget of a request, and the timeout of one attempt.
const BUDGET: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(1);

impl Setting {
    async fn new() -> Setting {
        let (server, keys) = (Versitygw::start().await.unwrap(), TempDir::new().unwrap());
        let proxy = Proxy::start(&server.s3.endpoint).await.unwrap();
        let healthy = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path()).unwrap()).start().await.unwrap();
        let plan = Plan::over(s3::node_bucket(&proxy.url, keys.path()).unwrap()).with(|config| {
            config.bucket.request_timeout = Span::from_secs(TIMEOUT.as_secs());
            config.bucket.retry_budget = Span::from_secs(BUDGET.as_secs());
        });
        let node = plan.start().await.unwrap();
        Setting { node, healthy, proxy, server, _keys: keys }
    }

    /// A blob that is in the bucket and not in the node's store.
    async fn missing(&self, size: u64) -> Content {
        let blob = Content::fresh(size);
        self.healthy.registry.push("faults/app", &blob).await.unwrap();
        blob
    }

    async fn get(&self, blob: &Content) -> anyhow::Result<Reply> {
        self.node.registry.get(&format!("/v2/faults/app/blobs/{}", blob.digest)).await
    }

    /// Whether the blob is in the node's store.
    fn stores(&self, blob: &Content) -> bool {
        let hex = blob.digest.hex();
        self.node.store().join("blobs/sha256").join(&hex[..2]).join(hex).exists()
    }

    async fn mismatches(&self) -> f64 {
        self.node.metrics().await.unwrap().sum("digest_mismatches_total", &["place=\"bucket\""])
    }
}

/// Whether the response tells the client that the bucket is unavailable.
fn is_unavailable(reply: &Reply) -> bool {
    reply.status == 503 && reply.header("retry-after").is_some() && reply.code().as_deref() == Some("UNAVAILABLE")
}

/// Transient faults, after which a retry may succeed, with their names.
fn passing() -> Vec<(&'static str, Fault)> {
    vec![
        ("no response in time", Fault::Hang),
        ("500", Fault::Status(500, "InternalError")),
        ("503 SlowDown", Fault::Status(503, "SlowDown")),
        ("a connection closed", Fault::Drop),
        ("a late response", Fault::Delay(Duration::from_millis(500))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_survives_a_transient_failure() {
    let setting = Setting::new().await;
    let cut = [("a reset mid-body", Fault::Reset(700_000)), ("a body cut short", Fault::Truncate(700_000))];
    for (name, fault) in passing().into_iter().chain(cut) {
        let blob = setting.missing(2 << 20).await;
        setting.proxy.fail(Rule::always("/blobs/", fault).of(Method::GET).times(1));
        let pulled = setting.node.registry.pull("faults/app", &blob.digest).await;
        pulled.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(setting.proxy.take_requests().iter().any(|seen| seen.failed), "{name} did not happen");
        setting.proxy.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_pull_survives_failures_of_its_ranges() {
    let setting = Setting::new().await;
    let blob = setting.missing(100 << 20).await;
    let rule = |fault| Rule::always("/blobs/", fault).of(Method::GET);
    setting.proxy.fail(rule(Fault::Reset(5 << 20)).times(2));
    setting.proxy.fail(rule(Fault::Status(503, "SlowDown")).times(2));
    setting.proxy.fail(rule(Fault::Truncate(1 << 20)).times(2));
    setting.node.registry.pull("faults/app", &blob.digest).await.unwrap();
    assert_eq!(setting.mismatches().await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_of_content_that_is_not_stored_gets_503_while_the_bucket_fails() {
    let setting = Setting::new().await;
    let failing = [
        ("no response in time", Fault::Hang),
        ("500", Fault::Status(500, "InternalError")),
        ("503 SlowDown", Fault::Status(503, "SlowDown")),
        ("403", Fault::Status(403, "AccessDenied")),
    ];
    for (name, fault) in failing {
        let blob = setting.missing(100_000).await;
        setting.proxy.fail(Rule::always("", fault));
        let start = Instant::now();
        let reply = setting.get(&blob).await.unwrap();
        assert!(is_unavailable(&reply), "{name}: {reply:?}");
        // All attempts share one budget, and the last one may use its whole timeout.
        let bound = BUDGET + TIMEOUT + Duration::from_secs(3);
        assert!(start.elapsed() < bound, "{name}: response after {:?}", start.elapsed());
        assert!(!setting.stores(&blob), "{name}");
        setting.proxy.clear_faults();
        setting.node.registry.pull("faults/app", &blob.digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_access_is_not_retried() {
    let setting = Setting::new().await;
    let blob = setting.missing(1000).await;
    setting.proxy.fail(Rule::always("", Fault::Status(403, "AccessDenied")));
    setting.proxy.take_requests();
    let reply = setting.get(&blob).await.unwrap();
    assert!(is_unavailable(&reply), "{reply:?}");
    let seen = setting.proxy.take_requests();
    assert!(seen.len() <= 2, "{} requests", seen.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_stored_and_end_the_pull_early() {
    let setting = Setting::new().await;
    for size in [1000, 2 << 20, 40 << 20] {
        let blob = setting.missing(size).await;
        let before = setting.mismatches().await;
        setting.proxy.fail(Rule::always("/blobs/", Fault::Corrupt(size / 50)).of(Method::GET));
        match setting.node.registry.pull("faults/app", &blob.digest).await {
            Ok(pulled) => panic!("{size}: {pulled:?} of wrong bytes"),
            Err(error) => {
                // The response is short or missing: a client never gets as many wrong bytes as it
                // expects in total.
                let said = format!("{error:#}");
                assert!(!said.contains("digest mismatch"), "{size}: a complete response of wrong bytes: {said}");
            }
        }
        assert!(!setting.stores(&blob), "{size}: wrong bytes are stored");
        assert_eq!(setting.mismatches().await, before + 1.0, "{size}");
        assert!(setting.node.log().contains(&blob.digest.hex()), "{size}: the log does not name the key");
        setting.proxy.clear_faults();
        setting.node.registry.pull("faults/app", &blob.digest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_always_ends_early_is_never_stored() {
    let setting = Setting::new().await;
    let blob = setting.missing(4 << 20).await;
    // Cut before its first byte: a node that gets some bytes each time continues from there and
    // finishes one day.
    setting.proxy.fail(Rule::always("/blobs/", Fault::Truncate(0)).of(Method::GET));
    assert!(setting.node.registry.pull("faults/app", &blob.digest).await.is_err());
    assert!(!setting.stores(&blob));
    setting.proxy.clear_faults();
    setting.node.registry.pull("faults/app", &blob.digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_linked_and_missing_is_unknown_and_can_be_pushed_again() {
    let setting = Setting::new().await;
    let blob = setting.missing(1000).await;
    let key = s3::content_key(&blob.digest);
    setting.server.s3.delete(&key).await.unwrap();
    let reply = setting.get(&blob).await.unwrap();
    assert_eq!((reply.status, reply.code().as_deref()), (404, Some("BLOB_UNKNOWN")), "{reply:?}");
    setting.node.registry.push("faults/app", &blob).await.unwrap();
    assert_eq!(setting.server.s3.get(&key).await.unwrap(), blob.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_survives_a_transient_failure() {
    let setting = Setting::new().await;
    let cut = [("a request reset mid-body", Fault::ResetUpload(300_000))];
    for (name, fault) in passing().into_iter().chain(cut) {
        setting.proxy.fail(Rule::always("/blobs/", fault).of(Method::PUT).times(1));
        let blob = Content::fresh(1 << 20);
        let pushed = setting.node.registry.push("faults/app", &blob).await;
        pushed.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(setting.proxy.take_requests().iter().any(|seen| seen.failed), "{name} did not happen");
        setting.healthy.registry.pull("faults/app", &blob.digest).await.unwrap();
        setting.proxy.clear_faults();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_push_survives_failures_of_its_parts() {
    let setting = Setting::new().await;
    let rule = |fault| Rule::always("partNumber=", fault).of(Method::PUT);
    setting.proxy.fail(rule(Fault::Status(500, "InternalError")).times(2));
    setting.proxy.fail(rule(Fault::ResetUpload(1 << 20)).times(2));
    let blob = Content::fresh(150 << 20);
    setting.node.registry.push("faults/app", &blob).await.unwrap();
    assert_eq!(setting.proxy.take_requests().iter().filter(|seen| seen.failed).count(), 4);
    setting.healthy.registry.pull("faults/app", &blob.digest).await.unwrap();
    assert!(setting.server.s3.open_multiparts().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_gets_503_while_the_bucket_fails_and_succeeds_afterwards() {
    let setting = Setting::new().await;
    for (name, fault) in [
        ("no response in time", Fault::Hang),
        ("500", Fault::Status(500, "InternalError")),
        ("503 SlowDown", Fault::Status(503, "SlowDown")),
        ("403", Fault::Status(403, "AccessDenied")),
    ] {
        setting.proxy.fail(Rule::always("", fault).of(Method::PUT));
        let image = Image::fresh(&[1000]);
        let reply = setting.node.registry.try_push("faults/push", &image.layers[0]).await.unwrap();
        assert!(is_unavailable(&reply), "{name}: {reply:?}");
        let seen_elsewhere = setting.healthy.registry.has_blob("faults/push", &image.layers[0].digest).await.unwrap();
        assert!(!seen_elsewhere, "{name}: the rejected content is visible");
        setting.proxy.clear_faults();
        let retrying = setting.node.registry.retrying(Duration::from_secs(30));
        retrying.push_image("faults/push", "latest", &image).await.unwrap();
        setting.healthy.registry.pull_image("faults/push", "latest", &image).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_not_acknowledged_while_the_bucket_fails() {
    let setting = Setting::new().await;
    let image = Image::fresh(&[1000]);
    for blob in image.blobs() {
        setting.node.registry.push("faults/manifest", blob).await.unwrap();
    }
    for step in ["/blobs/", "/_manifests/revisions/", "/tags/v1/current/"] {
        setting.proxy.fail(Rule::always(step, Fault::Status(500, "InternalError")).of(Method::PUT));
        let push = setting.node.registry.put_manifest("faults/manifest", "v1", IMAGE, &image.manifest);
        let reply = push.await.unwrap();
        assert!(is_unavailable(&reply), "{step}: {reply:?}");
        let tag = setting.healthy.registry.manifest("faults/manifest", "v1").await.unwrap();
        assert_eq!(tag.status, 404, "{step}: {tag:?}");
        setting.proxy.clear_faults();
    }
    setting
        .node
        .registry
        .put_manifest("faults/manifest", "v1", IMAGE, &image.manifest)
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    setting.healthy.registry.pull_image("faults/manifest", "v1", &image).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_content_is_served_and_pushes_get_503_while_the_bucket_is_unreachable() {
    let setting = Setting::new().await;
    let registry = &setting.node.registry;
    let (image, unseen) = (Image::fresh(&[1000, 2 << 20]), setting.missing(1000).await);
    registry.push_image("faults/away", "v1", &image).await.unwrap();
    registry.pull_image("faults/away", "v1", &image).await.unwrap();
    setting.proxy.make_unreachable();

    let tag = registry.manifest("faults/away", "v1").await.unwrap().expect(200).unwrap();
    assert_eq!(tag.body, image.manifest);
    assert!(tag.header("warning").is_some(), "a stale tag has no Warning header: {:?}", tag.headers);
    registry.pull_image("faults/away", &image.digest.to_string(), &image).await.unwrap();
    let metrics = setting.node.metrics().await.unwrap();
    assert!(metrics.sum("stale_tags_total", &[]) >= 1.0);
    for reply in [
        setting.get(&unseen).await.unwrap(),
        registry.manifest("faults/away", "never-seen").await.unwrap(),
        registry.try_push("faults/away", &Content::fresh(1000)).await.unwrap(),
    ] {
        assert!(is_unavailable(&reply), "{reply:?}");
    }
    let ready = setting.node.operations().get("/readyz").await.unwrap();
    assert_eq!(ready.status, 200, "the node is not ready although it can serve its store: {ready:?}");

    setting.proxy.clear_faults();
    // For a moment the node remembers that the bucket failed, and sends it no request.
    let fresh = || async {
        registry
            .manifest("faults/away", "v1")
            .await
            .is_ok_and(|tag| tag.status == 200 && tag.header("warning").is_none())
    };
    wait::until("the tag is served without a warning", Duration::from_secs(15), fresh).await.unwrap();
    registry.pull("faults/app", &unseen.digest).await.unwrap();
    registry.retrying(Duration::from_secs(30)).push("faults/away", &Content::fresh(1000)).await.unwrap();
}
