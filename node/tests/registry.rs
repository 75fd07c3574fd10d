//! The endpoints of the distribution-spec over sockets, with all flows and a bucket in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use entrepot_bucket::fault::{Effect, Fault, Faults, Faulty};
use entrepot_bucket::{Bucket, Operation, PutBody, PutMode};
use entrepot_node::repository::Layout;
use entrepot_node::repository::layout::{LinkKind, link_content};
use entrepot_oci::{Algorithm, Digest, Repository, Tag};
use entrepot_runtime::testing::eventually;
use std::sync::Arc;
use support::{Answer, INDEX, MANIFEST, Node, Setup, manifest, memory, sha256};
use tokio::io::AsyncWriteExt;

const BLOB: &[u8] = b"0123456789";

/// A node with one image: `library/alpine:latest`, with the single blob [`BLOB`].
async fn with_image() -> (Node, String) {
    let node = Node::start(&memory(), Setup::default()).await;
    let text = push_image(&node).await;
    (node, text)
}

async fn push_image(node: &Node) -> String {
    let blob = node.push_blob("library/alpine", BLOB).await;
    let text = manifest(&blob, BLOB.len(), "");
    assert_eq!(node.push_manifest("library/alpine", "latest", &text).await.status, 201);
    text
}

/// A request and its expected response: the status, headers, and an error code (or nothing).
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test]
async fn every_read_has_the_expected_status_and_headers() {
    let (node, text) = with_image().await;
    let (blob, image) = (sha256(BLOB), sha256(text.as_bytes()));
    let (blob_path, image_path) =
        (format!("/v2/library/alpine/blobs/{blob}"), format!("/v2/library/alpine/manifests/{image}"));
    let missing = sha256(b"nothing");
    let missing_blob = format!("/v2/library/alpine/blobs/{missing}");
    let missing_manifest = format!("/v2/library/alpine/manifests/{missing}");
    let elsewhere = format!("/v2/other/blobs/{blob}");
    let (blob_tag, image_tag) = (format!("\"{blob}\""), format!("\"{image}\""));
    let (blob, image, length) = (blob.to_string(), image.to_string(), text.len().to_string());
    let whole: &[(&str, &str)] = &[
        ("docker-content-digest", &blob),
        ("etag", &blob_tag),
        ("content-type", "application/octet-stream"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        ("cache-control", "max-age=31536000"),
    ];
    let found: &[(&str, &str)] = &[
        ("docker-content-digest", &image),
        ("etag", &image_tag),
        ("content-type", MANIFEST),
        ("content-length", &length),
    ];
    let cases: &[Case<'_>] = &[
        ("GET", "/", &[], 200, &[("content-type", "text/plain; charset=utf-8")], ""),
        ("GET", "/v2/", &[], 200, &[("content-type", "application/json")], ""),
        ("GET", "/v3/", &[], 404, &[], "UNSUPPORTED"),
        ("POST", "/v2/", &[], 405, &[("allow", "GET, HEAD")], "UNSUPPORTED"),
        ("GET", &blob_path, &[], 200, whole, ""),
        ("HEAD", &blob_path, &[], 200, whole, ""),
        ("HEAD", &blob_path, &[("range", "bytes=0-1")], 200, whole, ""),
        ("GET", &blob_path, &[("if-none-match", &blob_tag)], 304, &[("etag", &blob_tag), ("content-length", "")], ""),
        ("HEAD", &blob_path, &[("if-none-match", &blob_tag)], 304, &[("content-length", "")], ""),
        ("GET", &blob_path, &[("range", "bytes=2-4")], 206, &[("content-range", "bytes 2-4/10")], ""),
        ("GET", &blob_path, &[("range", "bytes=-3")], 206, &[("content-range", "bytes 7-9/10")], ""),
        ("GET", &blob_path, &[("range", "bytes=10-")], 416, &[("content-range", "bytes */10")], "RANGE_INVALID"),
        ("GET", &blob_path, &[("range", "bytes=2-4"), ("if-range", "\"x\"")], 200, whole, ""),
        ("GET", &missing_blob, &[], 404, &[], "BLOB_UNKNOWN"),
        ("HEAD", &missing_blob, &[], 404, &[], ""),
        ("GET", &elsewhere, &[], 404, &[], "BLOB_UNKNOWN"),
        ("GET", &elsewhere, &[("if-none-match", &blob_tag)], 404, &[], "BLOB_UNKNOWN"),
        ("GET", "/v2/library/alpine/blobs/sha256:0", &[], 400, &[], "DIGEST_INVALID"),
        ("GET", "/v2/library/alpine/manifests/latest", &[], 200, found, ""),
        ("HEAD", "/v2/library/alpine/manifests/latest", &[], 200, found, ""),
        ("GET", "/v2/library/alpine/manifests/latest", &[("accept", "text/html")], 200, found, ""),
        (
            "GET",
            "/v2/library/alpine/manifests/latest",
            &[("if-none-match", &image_tag)],
            304,
            &[("content-length", "")],
            "",
        ),
        ("GET", &image_path, &[], 200, &[("cache-control", "max-age=31536000")], ""),
        ("GET", &missing_manifest, &[], 404, &[], "MANIFEST_UNKNOWN"),
        ("GET", "/v2/library/alpine/manifests/none", &[], 404, &[], "MANIFEST_UNKNOWN"),
        ("GET", "/v2/library/alpine/manifests/.INVALID", &[], 404, &[], "MANIFEST_UNKNOWN"),
        ("GET", "/v2/none/manifests/latest", &[], 404, &[], "MANIFEST_UNKNOWN"),
        ("GET", "/v2/Library/tags/list", &[], 400, &[], "NAME_INVALID"),
        ("GET", "/v2/none/tags/list", &[], 404, &[], "NAME_UNKNOWN"),
        ("GET", "/v2/library/alpine/tags/list?n=x", &[], 400, &[], "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/library/alpine/tags/list", &[], 200, &[("content-type", "application/json")], ""),
        ("HEAD", "/v2/library/alpine/tags/list", &[], 200, &[("content-length", "43")], ""),
        ("BREW", "/v2/library/alpine/tags/list", &[], 405, &[("allow", "GET, HEAD")], "UNSUPPORTED"),
    ];
    for (method, target, headers, status, expected, code) in cases {
        let answer = node.ask(method, target, headers, "").await;
        let asked = format!("{method} {target} {headers:?}: {answer:?}");
        assert_eq!(answer.status, *status, "{asked}");
        assert_eq!(answer.code(), *code, "{asked}");
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0", "{asked}");
        assert_eq!(answer.header("x-request-id").len(), 36, "{asked}");
        for (name, value) in *expected {
            assert_eq!(answer.header(name), *value, "{name}: {asked}");
        }
    }
    assert_eq!(node.get(&blob_path).await.body, BLOB);
    assert_eq!(node.ask("GET", &blob_path, &[("range", "bytes=2-4")], "").await.body, &BLOB[2..5]);
    assert_eq!(node.get("/v2/library/alpine/manifests/latest").await.text(), text);
}

/// The parts of a `multipart/byteranges` body: their positions and their bytes.
fn parts_of(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap().to_owned();
    let text = std::str::from_utf8(&answer.body).unwrap();
    let whole = format!("\r\n{text}");
    let mut pieces: Vec<&str> = whole.split(&format!("\r\n--{boundary}")).collect();
    assert_eq!((pieces.remove(0), pieces.pop()), ("", Some("--\r\n")), "{text}");
    let parts = pieces.into_iter().map(|piece| {
        let (head, content) = piece.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nContent-Type: application/octet-stream\r\n"), "{head}");
        (head.split_once("Content-Range: ").unwrap().1.to_owned(), content.as_bytes().to_vec())
    });
    parts.collect()
}

#[tokio::test]
async fn several_ranges_of_a_blob_are_returned_in_the_order_of_the_request() {
    let bucket = memory();
    let node = Node::start(&bucket, Setup::default()).await;
    let content: &'static [u8] = (0..3_000_000).map(|number| b'a' + (number % 23) as u8).collect::<Vec<_>>().leak();
    let path = format!("/v2/a/blobs/{}", node.push_blob("a", content).await);
    // The second node does not store the blob, and small and distant ranges are outside its first
    // piece.
    let other = Node::start(&bucket, Setup::default()).await;
    for at in [&other, &node, &other] {
        let ranges = [("range", "bytes=2999990-,0-99,100-100,2000000-2100000,-1,5000000-")];
        let answer = at.ask("GET", &path, &ranges, "").await;
        assert_eq!((answer.status, answer.header("content-range")), (206, ""));
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        let expected = [2_999_990..3_000_000, 0..100, 100..101, 2_000_000..2_100_001, 2_999_999..3_000_000];
        let expected: Vec<(String, Vec<u8>)> = expected
            .map(|range| (format!("bytes {}-{}/3000000", range.start, range.end - 1), content[range].to_vec()))
            .into();
        assert!(parts_of(&answer) == expected);
    }
    let get = |headers: &'static [(&'static str, &'static str)]| node.ask("GET", &path, headers, "");
    let one = get(&[("range", "bytes=0-1,9000000-")]).await;
    assert_eq!((one.status, one.header("content-range"), one.text()), (206, "bytes 0-1/3000000", "ab"));
    let none = get(&[("range", "bytes=9000000-,9000001-")]).await;
    assert_eq!((none.status, none.header("content-range")), (416, "bytes */3000000"));
    for whole in
        [get(&[("range", "bytes=0-,0-")]).await, get(&[("range", "bytes=0-1,3-4"), ("if-range", "\"other\"")]).await]
    {
        assert_eq!((whole.status, whole.body.len()), (200, content.len()));
    }
    let head = node.ask("HEAD", &path, &[("range", "bytes=0-1,3-4")], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, "3000000"));
}

#[tokio::test]
async fn content_of_another_registry_is_not_found_even_if_pushed_under_its_name() {
    let node = Node::start(&memory(), Setup { namespaces: &["registry.example.com"], ..Setup::default() }).await;
    let text = push_image(&node).await;
    let image = sha256(text.as_bytes());
    let targets = [
        ("/v2/library/alpine/manifests/latest".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("/v2/library/alpine/manifests/{image}"), "MANIFEST_UNKNOWN"),
        (format!("/v2/library/alpine/blobs/{}", sha256(BLOB)), "BLOB_UNKNOWN"),
        ("/v2/library/alpine/tags/list".into(), "NAME_UNKNOWN"),
        (format!("/v2/library/alpine/referrers/{image}"), "NAME_UNKNOWN"),
    ];
    let own = node.address.to_string();
    for (target, code) in &targets {
        let answer = node.get(&format!("{target}?ns=docker.io")).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, *code), "{target}");
        assert!(answer.text().contains("no upstream for the namespace \\\"docker.io\\\""), "{}", answer.text());
        assert_eq!(node.ask("HEAD", &format!("{target}?ns=docker.io"), &[], "").await.status, 404, "{target}");
        for namespace in [own.as_str(), "127.0.0.1", "registry.example.com", "Registry.Example.com", ""] {
            assert_eq!(node.get(&format!("{target}?ns={namespace}")).await.status, 200, "{target} {namespace}");
        }
        let named = node.ask("GET", &format!("{target}?ns=my.registry"), &[("host", "my.registry:5000")], "").await;
        assert_eq!(named.status, 200, "{target}");
    }
    assert_eq!(node.get("/v2/?ns=docker.io").await.status, 200);
}

#[tokio::test]
async fn only_pages_of_allowed_origins_may_read_responses() {
    const PAGE: (&str, &str) = ("origin", "https://ui.example.com");
    let allowed = |answer: &Answer| answer.header("access-control-allow-origin").to_owned();
    let setup = Setup { allowed_origins: &["https://ui.example.com"], ..Setup::default() };
    let node = Node::start(&memory(), setup).await;
    for target in ["/v2/", "/v2/a/manifests/none", "/nothing"] {
        let answer = node.ask("GET", target, &[PAGE], "").await;
        assert_eq!((allowed(&answer).as_str(), answer.header("vary")), (PAGE.1, "Origin"), "{target}");
        assert!(answer.header("access-control-expose-headers").contains("Docker-Content-Digest"));
        for other in ["https://evil.example.com", "https://ui.example.com.evil", "null", "https://UI.example.com"] {
            let answer = node.ask("GET", target, &[("origin", other)], "").await;
            assert_eq!((allowed(&answer).as_str(), answer.header("vary")), ("", "Origin"), "{other}");
        }
    }
    let asks = [PAGE, ("access-control-request-method", "PUT"), ("access-control-request-headers", "authorization")];
    let may = node.ask("OPTIONS", "/v2/a/manifests/latest", &asks, "").await;
    assert_eq!((may.status, may.header("access-control-allow-methods")), (204, "GET, HEAD, PUT, DELETE"));
    assert!(may.header("access-control-allow-headers").contains("Authorization"));
    assert_ne!(may.header("access-control-max-age"), "");
    assert_eq!((allowed(&may).as_str(), may.header("access-control-allow-credentials")), (PAGE.1, ""));
    let other = [("origin", "https://evil.example.com"), ("access-control-request-method", "PUT")];
    let may_not = node.ask("OPTIONS", "/v2/a/manifests/latest", &other, "").await;
    assert_eq!((may_not.status, allowed(&may_not).as_str()), (405, ""));
    assert_eq!(node.ask("OPTIONS", "/nothing", &asks, "").await.status, 404);

    let any = Node::start(&memory(), Setup { allowed_origins: &["*"], ..Setup::default() }).await;
    assert_eq!(allowed(&any.ask("GET", "/v2/", &[PAGE], "").await), "*");
    assert_eq!(any.ask("OPTIONS", "/v2/", &asks, "").await.status, 204);
    let off = Node::start(&memory(), Setup::default()).await;
    let answer = off.ask("GET", "/v2/", &[PAGE], "").await;
    assert_eq!((allowed(&answer).as_str(), answer.header("vary")), ("", ""));
    assert_eq!(off.ask("OPTIONS", "/v2/", &asks, "").await.status, 405);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_push_and_no_response_may_be_sniffed() {
    let node = Node::start(&memory(), Setup::default()).await;
    let target = format!("/v2/a/blobs/uploads/?digest={}", sha256(b"x"));
    for page in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
        let refused = node.ask("POST", &target, &[page, ("content-type", "text/plain")], "x").await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "DENIED"), "{page:?}");
        assert!(refused.text().contains("http.allowedOrigins"), "{}", refused.text());
    }
    assert_eq!(node.metrics.sessions.get(), 0);
    for target in ["/", "/v2/", "/nothing", "/v2/a/manifests/none"] {
        assert_eq!(node.get(target).await.header("x-content-type-options"), "nosniff", "{target}");
    }
}

#[tokio::test]
async fn a_manifest_pushed_by_digest_gets_the_tags_of_the_query() {
    let (node, text) = with_image().await;
    for digest in [sha256(text.as_bytes()), Digest::of(Algorithm::Sha512, text.as_bytes())] {
        let algorithm = digest.algorithm().name();
        let tags: Vec<String> = (0..10).map(|number| format!("{algorithm}-{number}")).collect();
        let reference = format!("{digest}?tag={}", tags.join("&tag="));
        let pushed = node.push_manifest("library/alpine", &reference, &text).await;
        assert_eq!((pushed.status, pushed.header("docker-content-digest")), (201, digest.to_string().as_str()));
        let named: Vec<_> = pushed.headers.get_all("oci-tag").iter().map(|tag| tag.to_str().unwrap()).collect();
        assert_eq!(named, tags);
        for tag in &tags {
            let pulled = node.get(&format!("/v2/library/alpine/manifests/{tag}")).await;
            assert_eq!((pulled.status, pulled.header("docker-content-digest")), (200, digest.to_string().as_str()));
        }
    }
    let image = sha256(text.as_bytes());
    let wrong = node.push_manifest("library/alpine", &format!("{image}?tag=good&tag=.bad"), &text).await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "MANIFEST_INVALID"));
    assert_eq!(node.get("/v2/library/alpine/manifests/good").await.status, 404);
    let by_tag = node.push_manifest("library/alpine", "one?tag=two", &text).await;
    assert_eq!((by_tag.status, by_tag.header("oci-tag")), (201, ""));
    assert_eq!(node.get("/v2/library/alpine/manifests/two").await.status, 404);
}

#[tokio::test]
async fn schema_1_of_another_registry_is_served_but_cannot_be_pushed() {
    const KIND: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let bucket = memory();
    let text = r#"{"schemaVersion":1,"name":"old","tag":"1","fsLayers":[],"history":[],"signatures":[{}]}"#;
    let (digest, layout) = (sha256(text.as_bytes()), Layout::new(""));
    let (name, tag) = (Repository::parse("old").unwrap(), Tag::parse("1").unwrap());
    for (key, content) in [
        (layout.data(&digest), text.to_owned()),
        (layout.link(&name, LinkKind::Revision, &digest), link_content(&digest)),
        (layout.tag_current(&name, &tag), link_content(&digest)),
    ] {
        bucket.put(&key, PutBody::Bytes(content.into()), PutMode::Overwrite).await.unwrap();
    }
    let node = Node::start(&bucket, Setup::default()).await;
    let pulled = node.get("/v2/old/manifests/1").await;
    assert_eq!((pulled.status, pulled.header("content-type"), pulled.text()), (200, KIND, text));
    let pushed = node.ask("PUT", "/v2/old/manifests/2", &[("content-type", KIND)], text).await;
    assert_eq!((pushed.status, pushed.code().as_str()), (400, "MANIFEST_INVALID"));
    assert!(pushed.text().contains("schema 1"), "{}", pushed.text());
}

#[tokio::test]
async fn a_docker_manifest_without_a_type_is_refused_and_a_null_index_is_accepted() {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let (node, text) = with_image().await;
    let untyped = text.replace(&format!(r#""mediaType":"{MANIFEST}","#), "");
    let put = |kind: &'static str, text: String| {
        let node = &node;
        async move { node.ask("PUT", "/v2/library/alpine/manifests/x", &[("content-type", kind)], text).await }
    };
    let refused = put(DOCKER, untyped.clone()).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "MANIFEST_INVALID"));
    assert!(refused.text().contains("mediaType"), "{}", refused.text());
    assert_eq!(put(MANIFEST, untyped).await.status, 201);
    let index = put(INDEX, r#"{"schemaVersion":2,"manifests":null}"#.into()).await;
    assert_eq!(index.status, 201, "{}", index.text());
    assert_eq!(node.get("/v2/library/alpine/manifests/x").await.header("content-type"), INDEX);
}

#[tokio::test]
async fn a_chunked_upload_reports_its_offset_at_each_step() {
    let node = Node::start(&memory(), Setup::default()).await;
    let opened = node.ask("POST", "/v2/a/blobs/uploads/", &[], "").await;
    let session = opened.header("location").to_owned();
    assert_eq!((opened.status, opened.header("range")), (202, "0-0"));
    let bare = format!("/v2/a/blobs/uploads/{}", opened.header("docker-upload-uuid"));
    let location = |offset: u64| format!("{bare}?offset={offset}");
    assert_eq!(session, location(0));

    let chunk = node.ask("PATCH", &session, &[("content-range", "0-3")], "0123").await;
    assert_eq!((chunk.status, chunk.header("range"), chunk.header("location")), (202, "0-3", location(4).as_str()));
    let early = node.ask("PATCH", &session, &[("content-range", "6-9")], "6789").await;
    assert_eq!((early.status, early.header("range"), early.header("location")), (416, "0-3", location(4).as_str()));
    let again = node.ask("PATCH", &session, &[], "0123").await;
    assert_eq!((again.status, again.header("range"), again.header("location")), (416, "0-3", location(4).as_str()));
    let wrong = node.ask("PATCH", &session, &[("content-range", "bytes 4-5/10")], "45").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "BLOB_UPLOAD_INVALID"));
    let long = node.ask("PATCH", &session, &[("content-range", "4-5")], "456").await;
    let message = "the request body is longer than its Content-Range";
    assert_eq!((long.status, long.json()["errors"][0]["message"].as_str()), (400, Some(message)));
    let status = node.get(&session).await;
    assert_eq!((status.status, status.header("range"), status.header("content-length")), (204, "0-3", ""));
    assert_eq!(status.header("location"), location(4));
    // A client that builds the URL itself appends its chunk.
    assert_eq!(node.ask("PATCH", &bare, &[], "45").await.header("range"), "0-5");

    let undigested = node.ask("PUT", &location(6), &[], "6789").await;
    assert_eq!((undigested.status, undigested.code().as_str()), (400, "DIGEST_INVALID"));
    let digest = sha256(BLOB);
    let last = format!("{session}&digest={digest}");
    for _ in 0..2 {
        let done = node.ask("PUT", &last, &[("content-range", "6-9")], "6789").await;
        assert_eq!((done.status, done.header("location")), (201, format!("/v2/a/blobs/{digest}").as_str()));
    }
    let done = node.ask("PUT", &last, &[], "").await;
    assert_eq!(done.header("docker-content-digest"), digest.to_string());
    assert_eq!(node.get(done.header("location")).await.body, BLOB);
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = node.ask(method, &session, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"), "{method}");
    }
}

#[tokio::test]
async fn an_upload_may_be_one_request_a_mount_or_cancelled() {
    let node = Node::start(&memory(), Setup { max_sessions: Some(1), ..Setup::default() }).await;
    let digest = sha256(BLOB);
    let post = |query: String| format!("/v2/a/blobs/uploads/{query}");
    let wrong = node.ask("POST", &post(format!("?digest={digest}")), &[], "other").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "DIGEST_INVALID"));
    let whole = node.ask("POST", &post(format!("?digest={digest}")), &[], BLOB).await;
    assert_eq!((whole.status, whole.header("location")), (201, format!("/v2/a/blobs/{digest}").as_str()));
    let empty = sha256(b"");
    assert_eq!(node.ask("POST", &post(format!("?digest={empty}")), &[], "").await.status, 201);
    assert_eq!(node.get(&format!("/v2/a/blobs/{empty}")).await.header("content-length"), "0");

    let mounted = node.ask("POST", &format!("/v2/b/blobs/uploads/?mount={digest}&from=a"), &[], "").await;
    assert_eq!((mounted.status, mounted.header("location")), (201, format!("/v2/b/blobs/{digest}").as_str()));
    assert_eq!(node.get(&format!("/v2/b/blobs/{digest}")).await.body, BLOB);
    for from in ["", "&from=none", "&from=../a"] {
        let session = node.ask("POST", &format!("/v2/c/blobs/uploads/?mount={digest}{from}"), &[], "").await;
        assert_eq!(session.status, 202, "{from}");
        assert_eq!(node.ask("PATCH", session.header("location"), &[], "0").await.status, 202);
        let full = node.ask("POST", "/v2/c/blobs/uploads/", &[], "").await;
        assert_eq!((full.status, full.code().as_str()), (429, "TOOMANYREQUESTS"));
        assert_ne!(full.header("retry-after"), "");
        assert_eq!(node.ask("DELETE", session.header("location"), &[], "").await.status, 204);
    }
}

#[tokio::test]
async fn a_session_continues_through_any_node_until_its_owner_is_gone() {
    let bucket = memory();
    let (one, other) = (Node::start(&bucket, Setup::default()).await, Node::start(&bucket, Setup::default()).await);
    let digest = sha256(BLOB);
    let session = one.ask("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    let chunk = other.ask("PATCH", &session, &[("content-range", "0-3"), ("x-request-id", "mine")], "0123").await;
    assert_eq!((chunk.status, chunk.header("range"), chunk.header("x-request-id")), (202, "0-3", "mine"));
    let early = other.ask("PATCH", &session, &[("content-range", "9-9")], "9").await;
    assert_eq!((early.status, early.header("range"), early.code().as_str()), (416, "0-3", "BLOB_UPLOAD_INVALID"));
    assert_eq!(other.get(&session).await.status, 204);
    let last = format!("{}&digest={digest}", chunk.header("location"));
    let done = other.ask("PUT", &last, &[], &BLOB[4..]).await;
    assert_eq!(done.status, 201, "{}", done.text());
    assert_eq!(other.get(&format!("/v2/a/blobs/{digest}")).await.body, BLOB);

    let session = one.ask("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    drop(one);
    let gone = other.ask("PATCH", &session, &[], "0").await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
    // A blob that was committed before is known; nothing else exists.
    assert_eq!(other.ask("PUT", &last, &[], &BLOB[4..]).await.status, 201);
    let never = format!("{session}&digest={}", sha256(b"never"));
    let gone = other.ask("PUT", &never, &[], "never").await;
    assert_eq!((gone.status, gone.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
}

#[tokio::test]
async fn a_manifest_is_accepted_completely_or_refused_with_a_reason() {
    let (node, text) = with_image().await;
    let image = sha256(text.as_bytes());
    let again = node.push_manifest("library/alpine", &image.to_string(), &text).await;
    assert_eq!((again.status, again.header("docker-content-digest")), (201, image.to_string().as_str()));
    assert_eq!(again.header("location"), format!("/v2/library/alpine/manifests/{image}"));

    let missing = sha256(b"nothing");
    let refused = |answer: &Answer| (answer.status, answer.code());
    let answer = node.push_manifest("library/alpine", "x", &manifest(&missing, 7, "")).await;
    assert_eq!(refused(&answer), (400, "MANIFEST_BLOB_UNKNOWN".into()));
    assert_eq!(answer.json()["errors"][0]["detail"]["digest"], missing.to_string());
    let answer = node.push_manifest("library/alpine", "x", "{").await;
    assert_eq!(refused(&answer), (400, "MANIFEST_INVALID".into()));
    let answer = node.push_manifest("library/alpine", ".x", &text).await;
    assert_eq!(refused(&answer), (400, "MANIFEST_INVALID".into()));
    let answer = node.push_manifest("library/alpine", &missing.to_string(), &text).await;
    assert_eq!(refused(&answer), (400, "DIGEST_INVALID".into()));
    let large = " ".repeat(4 * 1024 * 1024 + 1);
    assert_eq!(refused(&node.push_manifest("library/alpine", "x", &large).await), (413, "SIZE_INVALID".into()));
    assert_eq!(node.get("/v2/library/alpine/manifests/x").await.status, 404);
}

#[tokio::test]
async fn referrers_are_listed_filtered_and_paged() {
    let (node, text) = with_image().await;
    let (blob, image) = (sha256(BLOB), sha256(text.as_bytes()));
    let path = format!("/v2/library/alpine/referrers/{image}");
    let none = node.get(&path).await;
    assert_eq!((none.status, none.header("content-type")), (200, INDEX));
    assert_eq!(none.json()["manifests"].as_array().unwrap().len(), 0);
    for kind in ["a/one", "a/two+json"] {
        let subject = format!(r#"{{"mediaType":"{MANIFEST}","digest":"{image}","size":{}}}"#, text.len());
        let extra = format!(r#","artifactType":"{kind}","subject":{subject}"#);
        let text = manifest(&blob, BLOB.len(), &extra);
        let pushed = node.push_manifest("library/alpine", &sha256(text.as_bytes()).to_string(), &text).await;
        assert_eq!((pushed.status, pushed.header("oci-subject")), (201, image.to_string().as_str()));
    }
    assert_eq!(node.get(&path).await.json()["manifests"].as_array().unwrap().len(), 2);
    let one = node.get(&format!("{path}?artifactType=a%2Ftwo%2Bjson")).await;
    assert_eq!(one.header("oci-filters-applied"), "artifactType");
    assert_eq!(one.json()["manifests"][0]["artifactType"], "a/two+json");
    assert_eq!(one.json()["manifests"].as_array().unwrap().len(), 1);
    let first = node.get(&format!("{path}?n=1")).await;
    let next = next_of(&first);
    assert_ne!(node.get(&next).await.json()["manifests"][0]["digest"], first.json()["manifests"][0]["digest"]);
}

/// The target of `Link: <…>; rel="next"`; empty if there is none.
fn next_of(answer: &Answer) -> String {
    let link = answer.header("link").strip_suffix(">; rel=\"next\"").unwrap_or_default();
    link.trim_start_matches('<').to_owned()
}

#[tokio::test]
async fn lists_are_read_a_page_at_a_time() {
    let (node, text) = with_image().await;
    for tag in ["a", "b", "c"] {
        assert_eq!(node.push_manifest("library/alpine", tag, &text).await.status, 201);
    }
    let mut tags: Vec<String> = Vec::new();
    let mut target = "/v2/library/alpine/tags/list?n=2".to_owned();
    while !target.is_empty() {
        let answer = node.get(&target).await;
        assert_eq!((answer.status, &answer.json()["name"]), (200, &"library/alpine".into()));
        tags.extend(answer.json()["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()));
        target = next_of(&answer);
    }
    assert_eq!(tags, ["a", "b", "c", "latest"]);
    let empty = node.get("/v2/library/alpine/tags/list?n=0").await;
    assert_eq!((empty.json()["tags"].as_array().unwrap().len(), empty.header("link")), (0, ""));
    let after = node.get("/v2/library/alpine/tags/list?last=b").await;
    assert_eq!(after.json()["tags"], serde_json::json!(["c", "latest"]));
    assert_eq!(node.get("/v2/_catalog").await.json()["repositories"], serde_json::json!(["library/alpine"]));
}

#[tokio::test]
async fn deleted_content_is_gone() {
    let (node, text) = with_image().await;
    let (blob, image) = (sha256(BLOB), sha256(text.as_bytes()));
    for (target, code) in [
        ("/v2/library/alpine/manifests/latest".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("/v2/library/alpine/manifests/{image}"), "MANIFEST_UNKNOWN"),
        (format!("/v2/library/alpine/blobs/{blob}"), "BLOB_UNKNOWN"),
    ] {
        assert_eq!(node.get(&target).await.status, 200, "{target}");
        assert_eq!(node.ask("DELETE", &target, &[], "").await.status, 202, "{target}");
        let gone = node.get(&target).await;
        assert_eq!((gone.status, gone.code().as_str()), (404, code), "{target}");
        assert_eq!(node.ask("DELETE", &target, &[], "").await.status, 404, "{target}");
    }
}

#[tokio::test]
async fn a_read_only_registry_serves_but_accepts_nothing() {
    let bucket = memory();
    let writer = Node::start(&bucket, Setup::default()).await;
    let digest = writer.push_blob("a", BLOB).await;
    let node = Node::start(&bucket, Setup { read_only: true, ..Setup::default() }).await;
    assert_eq!(node.get(&format!("/v2/a/blobs/{digest}")).await.body, BLOB);
    let session = "/v2/a/blobs/uploads/images-0.67e55044-10b1-426f-9247-bb680e5fe0c8";
    for (method, target, allowed) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned(), ""),
        ("GET", session.into(), ""),
        ("PUT", "/v2/a/manifests/latest".into(), "GET, HEAD"),
        ("DELETE", format!("/v2/a/blobs/{digest}"), "GET, HEAD"),
    ] {
        let answer = node.ask(method, &target, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"), "{method}");
        assert!(answer.headers.contains_key("allow"), "{method}");
        assert_eq!(answer.header("allow"), allowed, "{method} {target}");
    }
}

#[tokio::test]
async fn a_push_to_an_immutable_tag_is_refused_with_a_clear_message() {
    let node = Node::start(&memory(), Setup { immutable: Some("v*"), ..Setup::default() }).await;
    let blob = node.push_blob("a", BLOB).await;
    let text = manifest(&blob, BLOB.len(), "");
    assert_eq!(node.push_manifest("a", "v1", &text).await.status, 201);
    let other = manifest(&blob, BLOB.len(), r#","annotations":{"a":"b"}"#);
    let changed = node.push_manifest("a", "v1", &other).await;
    let deleted = node.ask("DELETE", "/v2/a/manifests/v1", &[], "").await;
    for answer in [changed, deleted] {
        assert_eq!((answer.status, answer.code().as_str()), (409, "DENIED"));
        assert!(answer.text().contains("immutable"), "{}", answer.text());
    }
}

#[tokio::test]
async fn requests_with_an_oversized_head_get_an_error() {
    let node = Node::start(&memory(), Setup::default()).await;
    let long = node.get(&format!("/v2/a/tags/list?last={}", "a".repeat(5000))).await;
    assert_eq!((long.status, long.code().as_str()), (414, "SIZE_INVALID"));
    let large = "a".repeat(40_000);
    let answer = node.ask("GET", "/v2/", &[("x-large", &large)], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (431, "SIZE_INVALID"));
}

#[tokio::test]
async fn requests_above_the_limit_get_retry_after() {
    let node = Node::start(&memory(), Setup { max_requests: Some(1), ..Setup::default() }).await;
    let session = node.ask("POST", "/v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    let mut slow = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let head = format!("PATCH {session} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n1");
    tokio::io::AsyncWriteExt::write_all(&mut slow, head.as_bytes()).await.unwrap();
    let busy = async {
        loop {
            let answer = node.get("/v2/").await;
            if answer.status != 200 {
                break answer;
            }
        }
    };
    let busy = tokio::time::timeout(std::time::Duration::from_secs(20), busy).await.unwrap();
    assert_eq!((busy.status, busy.header("retry-after"), busy.code().as_str()), (503, "1", "UNAVAILABLE"));
    tokio::io::AsyncWriteExt::write_all(&mut slow, b"2").await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut slow, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(node.get("/v2/").await.status, 200);
    assert_eq!(node.metrics.http.requests.with_label_values(&["version", "GET", "503"]).get(), 1);
}

/// As an attacker sends it: the request, and the end of the connection as soon as it has an effect.
#[tokio::test]
async fn a_manifest_push_whose_client_has_left_still_counts_as_a_request() {
    let faults = Faults::default();
    let bucket: Arc<dyn Bucket> = Arc::new(Faulty::new(memory(), &faults));
    let node = Node::start(&bucket, Setup { max_requests: Some(1), ..Setup::default() }).await;
    let blob = node.push_blob("library/alpine", BLOB).await;
    let held = faults.add(Fault::new(Operation::Get, Effect::Hang).on_key("/_layers/").times(1));
    let text = manifest(&blob, BLOB.len(), "");
    let mut stream = tokio::net::TcpStream::connect(node.address).await.unwrap();
    let head = format!(
        "PUT /v2/library/alpine/manifests/latest HTTP/1.1\r\nHost: a\r\nContent-Type: {MANIFEST}\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all(&[head.as_bytes(), text.as_bytes()].concat()).await.unwrap();
    eventually("the look-up is held", || faults.hits(held) == 1).await;
    drop(stream);
    let http = &node.metrics.http;
    let left = http.requests.with_label_values(&["manifest", "PUT", "000"]);
    eventually("the node has noticed that the client left", || left.get() == 1).await;
    assert_eq!(http.running.get(), 1, "its work continues");
    assert_eq!(node.get("/v2/").await.status, 503, "and holds its place");
    faults.clear();
    eventually("the work has ended", || http.running.get() == 0).await;
    assert_eq!(node.get("/v2/library/alpine/manifests/latest").await.status, 200);
}

#[tokio::test]
async fn a_manifest_that_clients_would_read_differently_is_refused_with_a_reason() {
    let node = Node::start(&memory(), Setup::default()).await;
    let blob = node.push_blob("library/alpine", BLOB).await;
    let size = BLOB.len();
    let url = |kind: &str| {
        let layer =
            format!(r#"{{"mediaType":"{kind}","digest":"{blob}","size":{size},"urls":["http://169.254.169.254/"]}}"#);
        manifest(&blob, size, "").replace("\"layers\":[", &format!("\"layers\":[{layer},"))
    };
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    for (text, reason) in [
        (manifest(&blob, size, r#","Layers":[]"#), "differs from \"layers\" only in case"),
        (manifest(&blob, size, r#","platform":{},"layerſ":[]"#), "only in case"),
        (manifest(&blob, size, &format!(r#","x":{deep}"#)), "nested"),
        (manifest(&blob, 999_999_999_999, ""), "states a size of 999999999999 bytes"),
        (url("application/vnd.oci.image.layer.v1.tar+gzip"), "layers[0].urls[0]"),
        (url("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), "upload.allowedUrls"),
    ] {
        let refused = node.push_manifest("library/alpine", "latest", &text).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "MANIFEST_INVALID"), "{reason}");
        assert!(refused.text().contains(&reason.replace('"', "\\\"")), "{}", refused.text());
    }
    assert_eq!(node.get("/v2/library/alpine/manifests/latest").await.status, 404);
}
