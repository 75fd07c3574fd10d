//! Requests that no well-behaved client sends, written byte by byte. The node rejects each with a
//! 4xx response or closes the connection. It never fails with a 5xx response, never panics, and
//! serves the next request.

#[path = "bad_input/mixture.rs"]
mod mixture;
#[path = "bad_input/slow.rs"]
mod slow;

use entrepot_config::{Duration as Span, NodeConfig};
use entrepot_e2e::client::{empty, full};
use entrepot_e2e::node::Plan;
use entrepot_e2e::push::IMAGE;
use entrepot_e2e::{Content, Node};
use http::Method;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MEBIBYTE: usize = 1 << 20;
/// Timeouts of the node for slow clients.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);
const STALL_TIMEOUT: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);

struct Setting {
    node: Node,
    bucket: TempDir,
}

impl Setting {
    async fn new() -> Setting {
        Setting::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut NodeConfig)) -> Setting {
        let bucket = TempDir::new().unwrap();
        let plan = Plan::over_folder(bucket.path()).with(|config| {
            config.http.header_timeout = Span::from_secs(HEADER_TIMEOUT.as_secs());
            config.http.stall_timeout = Span::from_secs(STALL_TIMEOUT.as_secs());
            change(config);
        });
        Setting { node: plan.start().await.unwrap(), bucket }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.node.registry.host()).await.unwrap()
    }

    /// Writes these bytes and reads until the node closes the connection or sends nothing for a
    /// while.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The node may reject the request before it has read all bytes.
        let _ = stream.write_all(bytes).await;
        read(&mut stream).await
    }

    /// Sends a request without a body; returns the status of the response.
    async fn request(&self, method: &str, target: &str) -> Option<u16> {
        status(
            &self.say(format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await,
        )
    }

    /// Checks that the node still serves, has sent no 5xx response, and has not panicked.
    async fn assert_unharmed(&mut self) {
        assert!(!self.node.has_ended().unwrap(), "the node has exited");
        let reply = self.node.registry.get("/v2/").await.expect("the node does not respond");
        assert_eq!(reply.status, 200, "{reply:?}");
        let log = self.node.log();
        assert!(!log.contains("panicked"), "{log}");
        let failures = self.node.metrics().await.unwrap().sum("http_requests_total", &["status=\"5"]);
        assert_eq!(failures, 0.0, "requests got 5xx responses:\n{log}");
        // No path left its folder.
        let outside: Vec<_> = std::fs::read_dir(self.bucket.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(outside.iter().all(|name| name == "docker" || name.to_string_lossy().starts_with('.')), "{outside:?}");
    }
}

async fn read(stream: &mut TcpStream) -> String {
    let (mut said, mut buffer) = (Vec::new(), vec![0; 65536]);
    while let Ok(Ok(read)) = tokio::time::timeout(TIMEOUT, stream.read(&mut buffer)).await {
        if read == 0 || said.len() > MEBIBYTE {
            break;
        }
        said.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// The status of the first response; `None` if the connection was closed without one.
fn status(said: &str) -> Option<u16> {
    said.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn is_refused(status: Option<u16>) -> bool {
    status.is_none_or(|status| (400..500).contains(&status))
}

/// Path segments that could lead out of a folder, or that have another meaning in the layout.
const ESCAPING_SEGMENTS: [&str; 26] = [
    "..",
    "../..",
    "../../../../etc/passwd",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fetc",
    "..%2f..",
    "%252e%252e",
    ".",
    "",
    "a/../../b",
    "..\\..",
    "%5c..%5c",
    "%00",
    "a%00b",
    "_layers",
    "a/_manifests",
    "a/_uploads",
    "A",
    "a//b",
    "-a",
    "%c0%ae%c0%ae",
    "%ff",
    "a%20b",
    "a;b",
    "~",
    "$(id)",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leaves_its_folder() {
    let mut setting = Setting::new().await;
    let digest = Content::new(1, 1).digest;
    for way in ESCAPING_SEGMENTS {
        let targets = [
            format!("/v2/{way}/blobs/{digest}"),
            format!("/v2/{way}/manifests/latest"),
            format!("/v2/{way}/tags/list"),
            format!("/v2/{way}/referrers/{digest}"),
            format!("/v2/{way}/blobs/uploads/"),
            format!("/v2/a/{way}/manifests/latest"),
            format!("/v2/a/blobs/{way}"),
            format!("/v2/a/blobs/sha256:{way}"),
            format!("/v2/a/manifests/{way}"),
            format!("/v2/a/blobs/uploads/{way}"),
            format!("/v2/a/blobs/uploads/local.{way}"),
            format!("/v2/a/blobs/uploads/{way}.0f8fad5b-d9cb-469f-a165-70867728950e"),
            format!("/v2/a/referrers/{way}"),
            format!("/{way}"),
        ];
        for target in targets {
            for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"] {
                let answered = setting.request(method, &target).await;
                // With an empty name, the path is that of the repository before it, in which a
                // session is opened.
                let opened = method == "POST" && answered == Some(202) && way.is_empty();
                // The root of the listener responds with a short description.
                let harmless = opened || (target == "/" && answered == Some(200));
                assert!(is_refused(answered) || harmless, "{method} {target}: {answered:?}");
            }
        }
        let mount = format!("/v2/a/blobs/uploads/?mount={digest}&from={way}");
        let answered = setting.request("POST", &mount).await;
        assert!(is_refused(answered) || answered == Some(202), "{mount}: {answered:?}");
    }
    setting.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_requests_are_rejected_before_they_are_kept() {
    let mut setting = Setting::new().await;
    let long = "a".repeat(MEBIBYTE);
    for target in [
        format!("/{long}"),
        format!("/v2/{long}/tags/list"),
        format!("/v2/a/manifests/{long}"),
        format!("/v2/a/tags/list?last={long}"),
        format!("/v2/a/blobs/uploads/?digest={long}"),
        format!("/v2/{}/tags/list", "a/".repeat(3000)),
    ] {
        let answered = setting.request("GET", &target).await;
        assert!(is_refused(answered), "{}…: {answered:?}", &target[..40]);
    }
    let one_header = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n");
    let many_headers = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(20_000));
    for request in [one_header, many_headers] {
        let answered = status(&setting.say(request.as_bytes()).await);
        assert!(is_refused(answered), "{answered:?}");
    }
    let before = setting.node.memory().unwrap();
    for manifest in [vec![b' '; 4 * MEBIBYTE + 1], vec![b'['; 64 * MEBIBYTE]] {
        let reply = setting.node.registry.put_manifest("a", "latest", IMAGE, &manifest).await;
        // The node need not read the whole body; then the connection ends while the client still
        // sends.
        assert!(reply.as_ref().map_or(true, |reply| reply.status == 413), "{reply:?}");
    }
    assert!(setting.node.memory().unwrap() < before + (64 << 20), "an oversized manifest was kept");
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    setting.node.registry.put_manifest("a", "latest", IMAGE, &deep).await.unwrap().expect(400).unwrap();
    setting.assert_unharmed().await;
}

/// `Range` headers that are invalid, or cannot be satisfied for 1000 bytes.
const INVALID_RANGES: [&str; 16] = [
    "bytes=1000-",
    "bytes=-0",
    "bytes=5-1",
    "bytes=-",
    "bytes=--1",
    "bytes=-1-",
    "bytes=0--1",
    "bytes=a-b",
    "0-1",
    "bytes=99999999999999999999-",
    "bytes=0-99999999999999999999",
    "bytes=18446744073709551615-18446744073709551615",
    "bytes=0-0,5-9",
    "bytes=",
    "lines=0-1",
    "bytes=0-0\u{e9}",
];

/// `Content-Range` headers that do not fit the first ten bytes of an upload.
const INVALID_CONTENT_RANGES: [&str; 15] = [
    "",
    "-",
    "5",
    "1-0",
    "-5",
    "5-",
    "0--1",
    "a-b",
    "bytes 0-9/10",
    "0-99999999999999999999",
    "18446744073709551615-18446744073709551615",
    "0-18446744073709551615",
    "1000-1009",
    "0-8",
    "0-10",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_range_is_rejected_or_ignored() {
    let mut setting = Setting::new().await;
    let registry = setting.node.registry.clone();
    let blob = Content::fresh(1000);
    registry.push("a", &blob).await.unwrap();
    for range in INVALID_RANGES {
        let path = format!("/v2/a/blobs/{}", blob.digest);
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: {range}\r\nConnection: close\r\n\r\n");
        let answered = status(&setting.say(head.as_bytes()).await);
        assert!(matches!(answered, Some(200 | 206 | 400 | 416)), "{range}: {answered:?}");
    }
    for range in INVALID_CONTENT_RANGES {
        let session = registry.open_session("a").await.unwrap();
        let headers = [("content-range", range), ("content-length", "10")];
        let reply = registry.send(Method::PATCH, &session, &headers, full(vec![0; 10])).await.unwrap();
        assert!(matches!(reply.status, 400 | 416), "{range}: {reply:?}");
    }
    setting.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_does_not_match_its_digest_is_rejected() {
    let mut setting = Setting::new().await;
    let registry = setting.node.registry.clone();
    let (blob, other) = (Content::fresh(1000), Content::fresh(1000));
    let session = registry.open_session("a").await.unwrap();
    registry.append(&session, &blob, 0, 1000).await.unwrap().expect(202).unwrap();
    let reply = registry.finish(&session, &other.digest).await.unwrap();
    assert_eq!((reply.status, reply.code().as_deref()), (400, Some("DIGEST_INVALID")), "{reply:?}");
    for digest in ["", "sha256:", "sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:zz", "x", "%00", ":"] {
        let session = registry.open_session("a").await.unwrap();
        let path = format!("{session}&digest={digest}");
        let reply = registry.send(Method::PUT, &path, &[("content-length", "0")], empty()).await.unwrap();
        assert_eq!(reply.status, 400, "{digest}: {reply:?}");
    }
    assert!(!registry.has_blob("a", &other.digest).await.unwrap());
    for manifest in [
        "",
        "{}",
        "[]",
        "null",
        "\u{0}",
        "{\"schemaVersion\":1}",
        "{\"schemaVersion\":2}",
        "{\"schemaVersion\":-2}",
        "{\"schemaVersion\":2,\"layers\":[],\"manifests\":[]}",
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:../..\",\"size\":1},\"layers\":[]}",
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:00\",\"size\":-1},\"layers\":[]}",
    ] {
        for kind in [IMAGE, "application/json", "text/html", "x", ""] {
            let reply = registry.put_manifest("a", "latest", kind, manifest.as_bytes()).await.unwrap();
            assert_eq!(reply.status, 400, "{kind} {manifest}: {reply:?}");
        }
    }
    setting.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_http_end_the_connection() {
    let mut setting = Setting::new().await;
    let good = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let requests: Vec<Vec<u8>> = vec![
        b"\0\0\0\0".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0xff; 100_000],
        format!("{good}garbage garbage garbage\r\n\r\n{good}").into_bytes(),
        b"GET /v2/ HTTP/9.9\r\nHost: x\r\n\r\n".to_vec(),
        b"GET  /v2/  HTTP/1.1\r\n\r\n".to_vec(),
        b"GET /v2/ HTTP/1.1\nHost: x\n\n".to_vec(),
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec(),
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n".to_vec(),
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
            .to_vec(),
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"GET /v2/?n=%zz&last=%ff HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04".to_vec(),
    ];
    for request in requests {
        let said = setting.say(&request).await;
        let answered = status(&said);
        assert!(answered.is_none_or(|status| status < 500), "{request:?}: {said}");
    }
    setting.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_rejected_unread_gets_a_response_and_its_connection_stays_usable() {
    for (method, target, read_only) in [
        ("PUT", "/v2/_catalog", false),
        ("POST", "/v2/A/blobs/uploads/", false),
        ("POST", "/v2/a/blobs/uploads/", true),
    ] {
        let mut setting = Setting::with(|config| config.read_only = read_only).await;
        let body = vec![0; 4 * MEBIBYTE];
        let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let next = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let said = setting.say(&[head.as_bytes(), &body, next].concat()).await;
        assert!(status(&said).is_some_and(|status| (400..500).contains(&status)), "{method} {target}: {said:?}");
        assert!(said.contains("HTTP/1.1 200"), "{method} {target}: the request after it got no response: {said:?}");
        setting.assert_unharmed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_queries_are_rejected_or_ignored() {
    let mut setting = Setting::new().await;
    let registry = setting.node.registry.clone();
    registry.push("a", &Content::fresh(10)).await.unwrap();
    for query in [
        "n=-1",
        "n=0",
        "n=99999999999999999999",
        "n=a",
        "n=",
        "n",
        "last=",
        "last=../..",
        "last=%00",
        "n=1&n=2",
        "&&&",
        "=",
        "%",
        "artifactType=%ff",
        "n=1.5",
        "last=\u{65}&n=3",
    ] {
        for path in ["/v2/a/tags/list", "/v2/_catalog", "/v2/a/referrers/sha256:00"] {
            let answered = setting.request("GET", &format!("{path}?{query}")).await;
            assert!(answered.is_some_and(|status| status < 500), "{path}?{query}: {answered:?}");
        }
    }
    setting.assert_unharmed().await;
}
