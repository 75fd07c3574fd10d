//! Requests on the wire, against a server that answers as the test defines. The contract runs
//! against real servers in `e2e/tests/bucket_contract.rs`.

use super::read::content_range;
use super::*;
use crate::{Checksum, collect_small};
use bytes::Bytes;
use entrepot_oci::{Algorithm, Digest};
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers requests in order as scripted, one connection each, and remembers their heads.
pub(super) struct Scripted {
    pub(super) endpoint: String,
    heads: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

/// What the server does with one request.
#[derive(Clone)]
pub(super) enum Answer {
    /// Reads the whole request and writes this.
    Text(String),
    /// Reads the whole request, writes this, and then neither writes nor closes.
    Stall(String),
    /// Reads nothing.
    Deaf,
    /// Reads the whole request and closes.
    Close,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Scripted {
    pub(super) async fn start(script: impl IntoIterator<Item = Answer>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let mut script: VecDeque<_> = script.into_iter().collect();
        let seen = heads.clone();
        #[allow(clippy::disallowed_methods, reason = "the server ends with its test")]
        let server = tokio::spawn(async move {
            // Stalled connections stay open for as long as the server runs.
            let mut held = Vec::new();
            while let Some(answer) = script.pop_front() {
                let (mut stream, _) = listener.accept().await.unwrap();
                if !matches!(answer, Answer::Deaf) {
                    let head = take_request(&mut stream).await;
                    seen.lock().push(head);
                }
                match answer {
                    Answer::Text(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                    Answer::Close => {}
                    Answer::Deaf => held.push(stream),
                    Answer::Stall(text) => {
                        stream.write_all(text.as_bytes()).await.unwrap();
                        held.push(stream);
                    }
                }
            }
            std::future::pending::<()>().await;
        });
        Scripted { endpoint, heads, server }
    }

    fn bucket(&self, patience: &str) -> Connected {
        bucket(&self.endpoint, patience)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }
}

/// A bucket and its key files, which it may read again.
struct Connected {
    s3: S3,
    _keys: tempfile::TempDir,
}

impl std::ops::Deref for Connected {
    type Target = S3;
    fn deref(&self) -> &S3 {
        &self.s3
    }
}

fn bucket(endpoint: &str, patience: &str) -> Connected {
    connected(endpoint, patience, entrepot_config::S3Checksums::Auto)
}

fn connected(endpoint: &str, patience: &str, checksums: entrepot_config::S3Checksums) -> Connected {
    let keys = tempfile::tempdir().unwrap();
    let (id, secret) = (keys.path().join("id"), keys.path().join("secret"));
    std::fs::write(&id, "test").unwrap();
    std::fs::write(&secret, "secret").unwrap();
    let s3 = entrepot_config::S3 {
        name: "images".into(),
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.into()),
        path_style: true,
        ca_file: None,
        credentials: Some(entrepot_config::S3Credentials {
            access_key_id_file: id,
            secret_access_key_file: secret,
            session_token_file: None,
        }),
        checksums,
    };
    let bucket = entrepot_config::Bucket { request_timeout: patience.parse().unwrap(), ..Default::default() };
    Connected { s3: S3::connect(&bucket, &s3).unwrap(), _keys: keys }
}

/// The head of a request, after its body has been read too.
async fn take_request(stream: &mut TcpStream) -> String {
    let mut taken = Vec::new();
    let end = loop {
        if let Some(end) = taken.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(stream.read_buf(&mut taken).await.unwrap(), 0, "the request ended in its head");
    };
    let head = String::from_utf8(taken[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    while taken.len() < end + length {
        if stream.read_buf(&mut taken).await.unwrap() == 0 {
            break;
        }
    }
    head
}

pub(super) fn answer(status: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Text(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"))
}

fn refusal(status: &str, code: &str) -> Answer {
    answer(status, "", &format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>because</Message></Error>"))
}

fn key() -> Key {
    Key::new("docker/data")
}

fn content() -> PutBody {
    PutBody::Bytes(Bytes::from_static(b"content"))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn an_error_is_classified_by_its_status_and_code() {
    for (status, code, kind) in [
        ("404 Not Found", "NoSuchBucket", BucketErrorKind::NoBucket),
        ("403 Forbidden", "AccessDenied", BucketErrorKind::Denied),
        ("403 Forbidden", "InvalidAccessKeyId", BucketErrorKind::Denied),
        ("301 Moved Permanently", "PermanentRedirect", BucketErrorKind::WrongRegion),
        ("400 Bad Request", "AuthorizationHeaderMalformed", BucketErrorKind::WrongRegion),
        ("400 Bad Request", "ExpiredToken", BucketErrorKind::Denied),
        ("503 Service Unavailable", "SlowDown", BucketErrorKind::SlowDown),
        ("429 Too Many Requests", "TooManyRequests", BucketErrorKind::SlowDown),
        ("500 Internal Server Error", "InternalError", BucketErrorKind::Server),
        ("502 Bad Gateway", "", BucketErrorKind::Server),
        ("409 Conflict", "ExistingObjectIsDirectory", BucketErrorKind::Server),
        ("409 Conflict", "ConditionalRequestConflict", BucketErrorKind::Server),
        ("507 Insufficient Storage", "XMinioStorageFull", BucketErrorKind::Full),
        ("400 Bad Request", "RequestTimeout", BucketErrorKind::Timeout),
        ("400 Bad Request", "InvalidArgument", BucketErrorKind::Refused),
    ] {
        let server = Scripted::start([refusal(status, code)]).await;
        let error = server.bucket("5s").get(&key(), GetOptions::default()).await.err().expect("the request fails");
        assert_eq!(error.kind, kind, "{status} {code}");
        let cause = error.source.unwrap().to_string();
        assert!(cause.contains("because") && cause.contains(code), "{cause}");
        assert_eq!(server.heads().len(), 1, "the SDK does not retry");
    }
}

#[tokio::test]
async fn a_response_that_is_not_xml_is_a_server_error() {
    let server =
        Scripted::start([answer("502 Bad Gateway", "", "<html>proxy</html>"), answer("200 OK", "", "junk")]).await;
    let bucket = server.bucket("5s");
    assert_eq!(bucket.delete(&key()).await.unwrap_err().kind, BucketErrorKind::Server);
    assert_eq!(
        bucket.list(ListOptions { max: 1, ..Default::default() }).await.unwrap_err().kind,
        BucketErrorKind::Server
    );
}

#[tokio::test]
async fn a_missing_object_is_not_an_error() {
    let script = [
        refusal("404 Not Found", "NoSuchKey"),
        answer("404 Not Found", "x-amz-request-id: 1\r\n", ""),
        refusal("404 Not Found", "NoSuchUpload"),
    ];
    let server = Scripted::start(script).await;
    let bucket = server.bucket("5s");
    assert!(matches!(bucket.get(&key(), GetOptions::default()).await.unwrap(), Get::Missing));
    assert!(bucket.head(&key()).await.unwrap().is_none());
    bucket.multipart_abort(&key(), &MultipartId("gone".into())).await.unwrap();
    assert_eq!(server.heads().len(), 3, "one request each");
}

#[tokio::test]
async fn a_background_handle_has_connections_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bucket = bucket(&format!("http://{}", listener.local_addr().unwrap()), "5s");
    let background = bucket.background();
    async fn serve(stream: &mut TcpStream) {
        take_request(stream).await;
        let missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx-amz-request-id: 1\r\n\r\n";
        stream.write_all(missing).await.unwrap();
    }
    let exchanges = async {
        let mut connections = Vec::new();
        for handle in [&*bucket, &background] {
            let opened = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                serve(&mut stream).await;
                stream
            };
            let key = key();
            let (answer, stream) = tokio::join!(handle.head(&key), opened);
            assert!(answer.unwrap().is_none());
            connections.push(stream);
        }
        for (handle, stream) in [&*bucket, &background].into_iter().zip(&mut connections) {
            let key = key();
            let (answer, ()) = tokio::join!(handle.head(&key), serve(stream));
            assert!(answer.unwrap().is_none());
        }
    };
    tokio::time::timeout(Duration::from_secs(20), exchanges).await.expect("each handle keeps its own connection");
}

/// The responses of a proxy that does not find its backend, with and without a page.
fn pages_of_proxies() -> [Answer; 3] {
    let page = "<html><head><title>404 Not Found</title></head><body><center>nginx</center></body></html>";
    let json = r#"{"code":"NoSuchKey","message":"no Route matched with those values"}"#;
    let xml =
        "<?xml version=\"1.0\"?><!DOCTYPE html><html xmlns=\"http://www.w3.org/1999/xhtml\"><body>no</body></html>";
    [page, json, xml].map(|page| answer("404 Not Found", "server: proxy\r\n", page))
}

#[tokio::test]
async fn a_404_that_s3_did_not_send_is_a_transient_failure_for_every_operation() {
    for page in pages_of_proxies().into_iter().chain([answer("404 Not Found", "", "")]) {
        let server = Scripted::start(std::iter::repeat_n(page, 10)).await;
        let bucket = server.bucket("5s");
        let (key, version, upload) = (key(), ETag("v".into()), MultipartId("u".into()));
        let parts = vec![PartTag("\"a\"".into())];
        let known = GetOptions { if_none_match: Some(version.clone()), ..GetOptions::default() };
        let errors = [
            bucket.get(&key, GetOptions::default()).await.err(),
            bucket.get(&key, known).await.err(),
            bucket.head(&key).await.err(),
            bucket.put(&key, content(), PutMode::Overwrite).await.err(),
            bucket.put(&key, content(), PutMode::IfMatch(Some(version))).await.err(),
            bucket.delete(&key).await.err(),
            bucket.list(ListOptions { max: 1, ..Default::default() }).await.err(),
            bucket.multipart_complete(&key, &upload, parts, PutMode::IfAbsent).await.err(),
            bucket.multipart_abort(&key, &upload).await.err(),
        ];
        for (number, error) in errors.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("operation {number} treats it as a missing object"));
            assert_eq!(error.kind, BucketErrorKind::Server, "{error}");
            assert!(error.is_transient() && error.source.unwrap().to_string().contains("proxy"));
        }
    }
}

#[tokio::test]
async fn a_head_without_a_mark_of_s3_is_decided_by_a_get_of_one_byte() {
    let doubtful = || answer("404 Not Found", "", "");
    let there = answer("206 Partial Content", "content-range: bytes 0-0/10\r\netag: \"v\"\r\n", "a");
    let script = [doubtful(), refusal("404 Not Found", "NoSuchKey"), doubtful(), there];
    let server = Scripted::start(script).await;
    let bucket = server.bucket("5s");
    assert!(bucket.head(&key()).await.unwrap().is_none());
    assert_eq!(bucket.head(&key()).await.unwrap().unwrap(), ObjectMeta { size: 10, etag: ETag("v".into()) });
    let heads = server.heads();
    assert_eq!((heads.len(), header(&heads[1], "range")), (4, Some("bytes=0-0")));
}

#[tokio::test]
async fn a_put_names_a_version_and_the_responses_are_distinguished() {
    let script = [
        answer("200 OK", "etag: \"w\"\r\n", ""),
        refusal("412 Precondition Failed", "PreconditionFailed"),
        refusal("404 Not Found", "NoSuchKey"),
        refusal("409 Conflict", "ConditionalRequestConflict"),
        answer("412 Precondition Failed", "", ""),
    ];
    let server = Scripted::start(script).await;
    let bucket = server.bucket("5s");
    let put = async || bucket.put(&key(), content(), PutMode::IfMatch(Some(ETag("v".into())))).await;
    assert_eq!(put().await.unwrap(), Put::Done(ETag("w".into())));
    for _ in 0..2 {
        assert_eq!(put().await.unwrap(), Put::Changed);
    }
    assert!(put().await.unwrap_err().is_transient());
    assert_eq!(bucket.put(&key(), content(), PutMode::IfMatch(None)).await.unwrap(), Put::Changed);
    let heads = server.heads();
    assert!(heads[..4].iter().all(|head| header(head, "if-match") == Some("\"v\"")));
    assert_eq!((header(&heads[4], "if-match"), header(&heads[4], "if-none-match")), (None, Some("*")));
}

#[tokio::test]
async fn a_missing_upload_is_not_an_existing_object() {
    let server = Scripted::start(std::iter::repeat_n(refusal("404 Not Found", "NoSuchUpload"), 2)).await;
    let bucket = server.bucket("5s");
    for mode in [PutMode::IfAbsent, PutMode::IfMatch(Some(ETag("v".into())))] {
        let (key, upload, parts) = (key(), MultipartId("u".into()), vec![PartTag("\"a\"".into())]);
        let completed = bucket.multipart_complete(&key, &upload, parts, mode).await;
        assert_eq!(completed.unwrap_err().kind, BucketErrorKind::Refused);
    }
}

#[tokio::test]
async fn without_conditional_writes_the_version_is_read_before_the_write() {
    let looked = || answer("200 OK", "etag: \"v\"\r\n", "");
    let done = answer("200 OK", "etag: \"w\"\r\n", "");
    let absent = answer("404 Not Found", "x-amz-request-id: 1\r\n", "");
    let script = [refusal("501 Not Implemented", "NotImplemented"), looked(), done, looked(), looked(), absent];
    let server = Scripted::start(script).await;
    let bucket = server.bucket("5s");
    let put = async |version: Option<&str>| {
        let version = version.map(|version| ETag(version.into()));
        bucket.put(&key(), content(), PutMode::IfMatch(version)).await.unwrap()
    };
    assert_eq!(put(Some("v")).await, Put::Done(ETag("w".into())));
    for version in [Some("u"), None, Some("v")] {
        assert_eq!(put(version).await, Put::Changed);
    }
    let methods: Vec<_> = server.heads().iter().map(|head| head.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(methods, ["PUT", "HEAD", "PUT", "HEAD", "HEAD", "HEAD"]);
}

#[tokio::test]
async fn a_write_whose_response_has_no_version_is_not_treated_as_done() {
    let server = Scripted::start([answer("200 OK", "", "")]).await;
    let put = server.bucket("5s").put(&key(), content(), PutMode::Overwrite).await;
    assert_eq!(put.unwrap_err().kind, BucketErrorKind::Server);
}

fn put_done() -> Answer {
    answer("200 OK", "etag: \"p\"\r\n", "")
}

fn removed() -> Answer {
    answer("204 No Content", "", "")
}

fn changed() -> Answer {
    refusal("412 Precondition Failed", "PreconditionFailed")
}

#[tokio::test]
async fn a_service_that_compares_versions_on_deletes_is_tested_once() {
    let script = [put_done(), changed(), removed(), removed(), changed(), refusal("404 Not Found", "NoSuchKey")];
    let server = Scripted::start(script).await;
    let bucket = server.bucket("5s");
    assert!(!bucket.capabilities().conditional_delete, "the service was not tested yet");
    let version = ETag("v".into());
    assert_eq!(bucket.delete_if_match(&key(), &version).await.unwrap(), Delete::Done);
    assert!(bucket.capabilities().conditional_delete);
    for _ in 0..2 {
        assert_eq!(bucket.delete_if_match(&key(), &version).await.unwrap(), Delete::Changed);
    }
    let heads = server.heads();
    assert!(heads[..3].iter().all(|head| head.contains(" /images/entrepot/probe/")), "{heads:?}");
    assert!(heads[3..].iter().all(|head| head.starts_with("DELETE /images/docker/data")), "{heads:?}");
    let versions: Vec<_> = heads[1..].iter().map(|head| header(head, "if-match").unwrap()).collect();
    assert_eq!(versions, ["\"entrepot-no-version\"", "\"p\"", "\"v\"", "\"v\"", "\"v\""]);
}

#[tokio::test]
async fn without_conditional_deletes_the_version_is_read_before_the_delete() {
    let looked = |version: &str| answer("200 OK", &format!("etag: \"{version}\"\r\n"), "");
    let unknown = refusal("501 Not Implemented", "NotImplemented");
    // MinIO removes the object unconditionally. Another service may not know the condition, or
    // reject every version.
    for probe in [vec![removed()], vec![unknown], vec![changed(), changed()]] {
        let cleaned = [removed(), looked("v"), removed(), looked("w")];
        let script: Vec<_> = [put_done()].into_iter().chain(probe).chain(cleaned).collect();
        let requests = script.len();
        let server = Scripted::start(script).await;
        let bucket = server.bucket("5s");
        let version = ETag("v".into());
        assert_eq!(bucket.delete_if_match(&key(), &version).await.unwrap(), Delete::Done);
        assert_eq!(bucket.delete_if_match(&key(), &version).await.unwrap(), Delete::Changed);
        assert!(!bucket.capabilities().conditional_delete);
        assert_eq!(server.heads().len(), requests);
        assert!(server.heads()[requests - 3..].iter().all(|head| header(head, "if-match").is_none()));
    }
}

#[tokio::test]
async fn a_probe_that_fails_transiently_or_is_denied_decides_nothing() {
    let busy = || refusal("503 Service Unavailable", "SlowDown");
    let script = [
        busy(),
        put_done(),
        busy(),
        refusal("403 Forbidden", "AccessDenied"),
        answer("200 OK", "etag: \"w\"\r\n", ""),
        put_done(),
        changed(),
        removed(),
        removed(),
    ];
    let server = Scripted::start(script).await;
    let bucket = server.bucket("5s");
    let version = ETag("v".into());
    for _ in 0..2 {
        assert_eq!(bucket.delete_if_match(&key(), &version).await.unwrap_err().kind, BucketErrorKind::SlowDown);
    }
    assert_eq!(bucket.delete_if_match(&key(), &version).await.unwrap(), Delete::Changed);
    assert_eq!(bucket.delete_if_match(&key(), &version).await.unwrap(), Delete::Done);
    assert!(bucket.capabilities().conditional_delete);
}

#[tokio::test]
async fn an_endpoint_below_a_path_keeps_the_path_apart_from_the_bucket() {
    for slash in ["", "/"] {
        let server = Scripted::start([refusal("404 Not Found", "NoSuchKey")]).await;
        let bucket = bucket(&format!("{}/storage/v1/s3{slash}", server.endpoint), "5s");
        assert!(matches!(bucket.get(&key(), GetOptions::default()).await.unwrap(), Get::Missing));
        let heads = server.heads();
        assert!(heads[0].starts_with("GET /storage/v1/s3/images/docker/data"), "{heads:?}");
    }
}

#[tokio::test]
async fn a_version_is_sent_with_quotes_and_kept_without() {
    let server = Scripted::start([answer("304 Not Modified", "etag: \"abc\"\r\n", "")]).await;
    let options = GetOptions { range: Some(2..5), if_none_match: Some(ETag("abc".into())), ..GetOptions::default() };
    assert!(matches!(server.bucket("5s").get(&key(), options).await.unwrap(), Get::NotModified));
    let heads = server.heads();
    assert_eq!(header(&heads[0], "if-none-match"), Some("\"abc\""));
    assert_eq!(header(&heads[0], "range"), Some("bytes=2-4"));
}

#[tokio::test]
async fn a_response_must_have_the_requested_range() {
    let part =
        |range: &str| answer("206 Partial Content", &format!("content-range: bytes {range}\r\netag: \"v\"\r\n"), "abc");
    let whole = answer("200 OK", "etag: \"v\"\r\n", "0123456789");
    let server = Scripted::start([part("2-4/10"), part("3-5/10"), whole]).await;
    let bucket = server.bucket("5s");
    let options = || GetOptions { range: Some(2..5), ..GetOptions::default() };
    let Get::Found(object) = bucket.get(&key(), options()).await.unwrap() else { panic!("the object exists") };
    assert_eq!((object.meta.size, object.range.clone()), (10, 2..5));
    assert_eq!(object.meta.etag, ETag("v".into()));
    assert_eq!(collect_small(&key(), object, 10).await.unwrap().0, "abc");
    for what in ["another range", "no range"] {
        let error =
            bucket.get(&key(), options()).await.err().unwrap_or_else(|| panic!("{what} is not the requested range"));
        assert_eq!(error.kind, BucketErrorKind::Server, "{what}");
    }
}

#[tokio::test]
async fn the_first_range_of_an_empty_object_is_empty() {
    let server =
        Scripted::start([refusal("416 Range Not Satisfiable", "InvalidRange"), answer("200 OK", "", "")]).await;
    let options = GetOptions { range: Some(0..100), ..GetOptions::default() };
    let Get::Found(object) = server.bucket("5s").get(&key(), options).await.unwrap() else {
        panic!("the object exists")
    };
    assert_eq!((object.meta.size, object.range), (0, 0..0));
}

#[tokio::test]
async fn a_conditional_put_returns_exists_and_a_conflict_is_transient() {
    let conflict = refusal("409 Conflict", "ConditionalRequestConflict");
    let server = Scripted::start([refusal("412 Precondition Failed", "PreconditionFailed"), conflict]).await;
    let bucket = server.bucket("5s");
    assert_eq!(bucket.put(&key(), content(), PutMode::IfAbsent).await.unwrap(), Put::Exists);
    let error = bucket.put(&key(), content(), PutMode::IfAbsent).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    for head in server.heads() {
        assert_eq!(header(&head, "if-none-match"), Some("*"));
        assert_eq!(header(&head, "content-type"), Some(CONTENT_TYPE));
        assert_eq!(header(&head, "content-encoding"), None, "the body is sent unencoded");
        assert!(!head.contains("x-amz-checksum") && !head.contains("x-amz-trailer"), "{head}");
    }
}

#[tokio::test]
async fn a_service_without_conditional_writes_is_tested_once_and_then_overwrites() {
    let done = || answer("200 OK", "etag: \"v\"\r\n", "");
    let server = Scripted::start([refusal("501 Not Implemented", "NotImplemented"), done(), done()]).await;
    let bucket = server.bucket("5s");
    assert!(bucket.capabilities().conditional_put);
    for _ in 0..2 {
        assert_eq!(bucket.put(&key(), content(), PutMode::IfAbsent).await.unwrap(), Put::Done(ETag("v".into())));
    }
    assert!(!bucket.capabilities().conditional_put);
    let conditions: Vec<_> = server.heads().iter().map(|head| header(head, "if-none-match").is_some()).collect();
    assert_eq!(conditions, [true, false, false]);
}

#[tokio::test]
async fn an_error_in_a_completion_with_status_200_is_an_error() {
    let server = Scripted::start([refusal("200 OK", "InternalError")]).await;
    let parts = vec![PartTag("\"a\"".into())];
    let (bucket, upload) = (server.bucket("5s"), MultipartId("u".into()));
    let key = key();
    let completed = bucket.multipart_complete(&key, &upload, parts, PutMode::IfAbsent);
    assert_eq!(completed.await.unwrap_err().kind, BucketErrorKind::Server);
}

#[tokio::test]
async fn a_late_response_is_a_timeout() {
    let server = Scripted::start([Answer::Stall(String::new())]).await;
    assert_eq!(server.bucket("200ms").head(&key()).await.unwrap_err().kind, BucketErrorKind::Timeout);
}

#[tokio::test]
async fn a_body_that_the_server_does_not_read_is_a_timeout() {
    let server = Scripted::start([Answer::Deaf]).await;
    // More than the buffers of the connection hold.
    let body = PutBody::Bytes(vec![0; 64 << 20].into());
    let put = server.bucket("200ms").put(&key(), body, PutMode::Overwrite).await;
    assert_eq!(put.unwrap_err().kind, BucketErrorKind::Timeout);
}

#[tokio::test]
async fn a_body_that_stalls_or_ends_early_is_an_error() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nabc".to_owned();
    let script = [Answer::Stall(head.clone()), Answer::Text(head)];
    let server = Scripted::start(script).await;
    let bucket = server.bucket("200ms");
    for kind in [BucketErrorKind::Timeout, BucketErrorKind::Truncated] {
        let Get::Found(mut object) = bucket.get(&key(), GetOptions::default()).await.unwrap() else {
            panic!("the object exists")
        };
        assert_eq!(object.body.next().await.unwrap().unwrap(), "abc");
        assert_eq!(object.body.next().await.unwrap().unwrap_err().kind, kind);
        assert!(object.body.next().await.is_none());
    }
}

#[tokio::test]
async fn a_server_that_is_unreachable_or_hangs_up_is_a_failed_connection() {
    let server = Scripted::start([Answer::Close]).await;
    assert_eq!(server.bucket("5s").head(&key()).await.unwrap_err().kind, BucketErrorKind::Connection);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = bucket(&endpoint, "5s").head(&key()).await.unwrap_err();
    assert_eq!(error.kind, BucketErrorKind::Connection);
    assert!(error.source.unwrap().to_string().contains("refused"));
}

#[tokio::test]
async fn a_file_is_sent_unsigned_with_its_length() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![7; 3_000_000]).unwrap();
    let server = Scripted::start([answer("200 OK", "etag: \"v\"\r\n", "")]).await;
    let body = PutBody::File { path: file.path().to_owned(), range: 1_000_000..2_500_000, checksum: None };
    server.bucket("5s").put(&key(), body, PutMode::Overwrite).await.unwrap();
    let heads = server.heads();
    assert_eq!(header(&heads[0], "content-length"), Some("1500000"));
    assert_eq!(header(&heads[0], "x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"));
    assert_eq!(header(&heads[0], "if-none-match"), None);
}

/// A file with `content` as a body, with the checksum of `hashed`.
struct Hashed {
    file: tempfile::NamedTempFile,
    checksum: Option<Checksum>,
}

fn hashed(hashed: &[u8]) -> Hashed {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"content").unwrap();
    Hashed { file, checksum: Some(Checksum::Digest(Digest::of(Algorithm::Sha256, hashed))) }
}

impl Hashed {
    fn body(&self) -> PutBody {
        PutBody::File { path: self.file.path().to_owned(), range: 0..7, checksum: self.checksum }
    }
}

/// Checksums of `content`, computed by openssl and by the implementation of the CRC catalogue.
const SHA256: &str = "7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M=";

#[tokio::test]
async fn a_file_carries_its_digest_and_a_part_its_crc() {
    let begun = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
    let part = || answer("200 OK", "etag: \"a\"\r\nx-amz-checksum-crc32c: AAAAAA==\r\n", "");
    let script = [put_done(), put_done(), answer("200 OK", "", begun), part(), part()];
    let server = Scripted::start(script).await;
    let bucket = server.bucket("5s");
    let known = hashed(b"content");
    bucket.put(&key(), known.body(), PutMode::IfAbsent).await.unwrap();
    bucket.put(&key(), Hashed { checksum: None, ..hashed(b"") }.body(), PutMode::IfAbsent).await.unwrap();
    let upload = bucket.multipart_begin(&key()).await.unwrap();
    for body in [known.body(), content()] {
        let tag = bucket.multipart_part(&key(), &upload, 1, body).await.unwrap();
        assert_eq!(tag, PartTag("crc32c:AAAAAA== \"a\"".into()));
    }
    let crc = aws_smithy_types::base64::encode(crate::checksum::crc32c(b"content").to_be_bytes());
    let heads = server.heads();
    let sha256: Vec<_> = heads.iter().map(|head| header(head, "x-amz-checksum-sha256")).collect();
    let crcs: Vec<_> = heads.iter().map(|head| header(head, "x-amz-checksum-crc32c")).collect();
    assert_eq!(sha256, [Some(SHA256), None, None, None, None]);
    assert_eq!(crcs, [None, Some(crc.as_str()), None, Some(crc.as_str()), Some(crc.as_str())]);
    assert_eq!(header(&heads[2], "x-amz-checksum-algorithm"), Some("CRC32C"));
    assert!(heads.iter().all(|head| header(head, "x-amz-trailer").is_none()), "no body is sent as aws-chunked");
}

#[tokio::test]
async fn a_mismatch_is_wrong_content_only_if_the_caller_passed_a_checksum() {
    for code in ["BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"] {
        let server = Scripted::start(std::iter::repeat_n(refusal("400 Bad Request", code), 3)).await;
        let bucket = server.bucket("5s");
        let named = bucket.put(&key(), hashed(b"content").body(), PutMode::IfAbsent).await.unwrap_err();
        assert!(named.kind == BucketErrorKind::WrongContent && !named.is_transient(), "{named}");
        for body in [content(), Hashed { checksum: None, ..hashed(b"") }.body()] {
            let on_the_way = bucket.put(&key(), body, PutMode::IfAbsent).await.unwrap_err();
            assert!(on_the_way.is_transient(), "{on_the_way}");
        }
    }
}

#[tokio::test]
async fn a_part_that_changed_since_it_was_hashed_is_not_sent() {
    let server = Scripted::start([]).await;
    let (bucket, key, upload) = (server.bucket("5s"), key(), MultipartId("u".into()));
    let sent = bucket.multipart_part(&key, &upload, 1, hashed(b"other").body()).await;
    assert_eq!(sent.unwrap_err().kind, BucketErrorKind::WrongContent);
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn a_service_that_rejects_checksums_gets_none_from_then_on() {
    for (status, code) in [("400 Bad Request", "InvalidRequest"), ("501 Not Implemented", "NotImplemented")] {
        let server = Scripted::start([refusal(status, code), put_done(), put_done()]).await;
        let bucket = server.bucket("5s");
        for _ in 0..2 {
            let put = bucket.put(&key(), hashed(b"content").body(), PutMode::Overwrite).await;
            assert_eq!(put.unwrap(), Put::Done(ETag("p".into())), "{code}");
        }
        // Without the service's check the bytes are compared here.
        let put = bucket.put(&key(), hashed(b"other").body(), PutMode::Overwrite).await;
        assert_eq!(put.unwrap_err().kind, BucketErrorKind::WrongContent);
        let with: Vec<_> = server.heads().iter().map(|head| header(head, "x-amz-checksum-sha256").is_some()).collect();
        assert_eq!(with, [true, false, false], "{code}");
    }
}

#[tokio::test]
async fn a_request_that_also_fails_without_a_checksum_keeps_checksums_on() {
    let refused = || refusal("400 Bad Request", "InvalidArgument");
    let server = Scripted::start([refused(), refused(), put_done()]).await;
    let bucket = server.bucket("5s");
    let put = bucket.put(&key(), hashed(b"content").body(), PutMode::Overwrite).await;
    assert_eq!(put.unwrap_err().kind, BucketErrorKind::Refused);
    bucket.put(&key(), hashed(b"content").body(), PutMode::Overwrite).await.unwrap();
    assert!(header(&server.heads()[2], "x-amz-checksum-sha256").is_some());
}

#[tokio::test]
async fn disabled_checksums_are_not_sent_and_are_compared_locally() {
    let begun = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
    let server = Scripted::start([put_done(), answer("200 OK", "", begun)]).await;
    let bucket = connected(&server.endpoint, "5s", entrepot_config::S3Checksums::Off);
    bucket.put(&key(), hashed(b"content").body(), PutMode::Overwrite).await.unwrap();
    let put = bucket.put(&key(), hashed(b"other").body(), PutMode::Overwrite).await;
    assert_eq!(put.unwrap_err().kind, BucketErrorKind::WrongContent);
    bucket.multipart_begin(&key()).await.unwrap();
    assert!(server.heads().iter().all(|head| !head.contains("x-amz-checksum")), "{:?}", server.heads());
}

#[test]
fn the_error_for_an_invalid_ca_file_names_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let connect = || {
        let s3 = entrepot_config::S3 { ca_file: Some(file.path().to_owned()), ..Default::default() };
        S3::connect(&entrepot_config::Bucket::default(), &s3).err().expect("the file is rejected").to_string()
    };
    for content in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(file.path(), content).unwrap();
        let refused = connect();
        assert!(refused.contains(file.path().to_str().unwrap()), "{refused}");
    }
}

#[test]
fn content_ranges_are_parsed() {
    assert_eq!(content_range("bytes 0-9/100"), Some((0..10, 100)));
    for text in ["", "bytes */100", "bytes 9-0/100", "bytes 0-100/100", "bytes 0-9/*", "0-9/100"] {
        assert_eq!(content_range(text), None, "{text}");
    }
}
