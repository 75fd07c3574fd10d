use super::*;
use crate::http::Server;
use crate::http::error::Refusal;
use crate::http::pace::PaceLimit;
use crate::http::tls::ServerTls;
use crate::http::tls::testing::{Authority, Files};
use axum::Router;
use axum::extract::{Request as Received, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use entrepot_config::{self as config, NodeConfig};
use entrepot_runtime::Clock;
use futures::StreamExt;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(20);
const STALL: Duration = Duration::from_secs(20);

/// Responds with the request that arrived, and counts the bytes of its body as they arrive.
#[derive(Clone, Default)]
struct Owner {
    received: Arc<AtomicUsize>,
}

async fn take(State(owner): State<Owner>, request: Received) -> impl IntoResponse {
    let (head, body) = request.into_parts();
    let mut body = RequestBody::new(body, PaceLimit::new(STALL, 0));
    while let Some(Ok(piece)) = body.next().await {
        owner.received.fetch_add(piece.len(), Ordering::SeqCst);
    }
    let text = format!("{} {} {:?}", head.method, head.uri, head.headers);
    (StatusCode::ACCEPTED, [("range", "0-5"), ("set-cookie", "a=b"), ("x-other", "c"), ("server", "d")], text)
}

fn owner(owner: Owner) -> Router {
    Router::new().fallback(take).with_state(owner)
}

/// A node that owns no session and forwards every request.
#[derive(Clone)]
struct Passing {
    forwarder: Arc<Forwarder>,
    peer: PeerAddress,
}

async fn pass_on(State(passing): State<Passing>, request: Received) -> Result<Response, Refusal> {
    let request_id = RequestId::of(request.headers());
    let request = request.map(|body| RequestBody::new(body, PaceLimit::new(STALL, 0)));
    let forwarded = passing.forwarder.forward(&passing.peer, request, &request_id).await;
    forwarded.map_err(|error| error.refusal().of_request(request_id.as_str()))
}

async fn serve(router: Router) -> (SocketAddr, JoinSet<usize>) {
    serve_with(router, None).await
}

async fn serve_with(router: Router, tls: Option<ServerTls>) -> (SocketAddr, JoinSet<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(listener, router, &config::Http::default()).with_tls(tls);
    let mut tasks = JoinSet::new();
    tasks.spawn(server.serve(std::future::pending(), DEADLINE));
    (address, tasks)
}

async fn passing(peer: String) -> (SocketAddr, JoinSet<usize>) {
    passing_with(peer, &NodeConfig::default(), Limits { stall: STALL, answer: DEADLINE }).await
}

async fn passing_with(peer: String, config: &NodeConfig, limits: Limits) -> (SocketAddr, JoinSet<usize>) {
    let tls = PeerTls::load(config, Clock::system().now()).unwrap();
    let passing = Passing { forwarder: Arc::new(Forwarder { tls, limits }), peer: peer.parse().unwrap() };
    serve(Router::new().fallback(pass_on).with_state(passing)).await
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("timed out")
}

async fn rest_of(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

const HEAD: &str = "PATCH /v2/a/blobs/uploads/x?digest=y HTTP/1.1\r\nHost: front.example\r\n\
                    Connection: close, x-hop, content-range\r\nX-Hop: 1\r\nCookie: secret\r\nX-Forwarded-For: 1.2.3.4\r\n\
                    Authorization: Bearer t\r\nContent-Range: 0-5\r\nX-Request-Id: id-1\r\nContent-Length: 6\r\n";

#[tokio::test]
async fn the_owner_receives_the_request_marked_as_forwarded_and_with_allowed_headers_only() {
    let owner = serve(owner(Owner::default())).await;
    let front = passing(format!("http://{}", owner.0)).await;
    let mut stream = TcpStream::connect(front.0).await.unwrap();
    stream.write_all(format!("{HEAD}\r\nabcdef").as_bytes()).await.unwrap();
    let answer = rest_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 202 ") && answer.contains("Range: 0-5"), "{answer}");
    assert!(answer.contains("PATCH /v2/a/blobs/uploads/x?digest=y"), "{answer}");
    for header in [
        "content-range\": \"0-5",
        "x-request-id\": \"id-1",
        "entrepot-forwarded\": \"front.example\"",
        "\"host\": \"127.0.0.1:",
        "length\": \"6",
        "authorization\": \"Bearer t",
    ] {
        assert!(answer.contains(header), "{header}: {answer}");
    }
    for header in ["x-hop", "cookie", "x-forwarded-for"] {
        assert!(!answer.contains(header), "{header}: {answer}");
    }
    for header in ["Set-Cookie", "X-Other", "Server"] {
        assert!(!answer.contains(header), "{header}: {answer}");
    }
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_not_waited_for_without_limit() {
    let (authority, files) = (Authority::new(), Files::new());
    std::fs::write(files.authority(), authority.pem()).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let address = silent.local_addr().unwrap();
    let short = Duration::from_millis(200);
    for scheme in ["http", "https"] {
        let yaml = format!("node: {{peers: {{b: 'https://b'}}, peerCaFile: '{}'}}", files.authority().display());
        let config = NodeConfig::from_yaml(&yaml).unwrap();
        let limits = Limits { stall: DEADLINE, answer: short };
        let front = passing_with(format!("{scheme}://{address}"), &config, limits).await;
        let mut stream = TcpStream::connect(front.0).await.unwrap();
        stream.write_all(format!("{HEAD}\r\nabcdef").as_bytes()).await.unwrap();
        let answer = rest_of(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"), "{scheme}: {answer}");
    }
    drop(silent);
}

#[tokio::test]
async fn a_peer_that_takes_no_byte_of_the_body_is_not_waited_for_without_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limits = Limits { stall: Duration::from_millis(300), answer: DEADLINE };
    let peer = format!("http://{}", silent.local_addr().unwrap());
    let front = passing_with(peer, &NodeConfig::default(), limits).await;
    let stream = TcpStream::connect(front.0).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sending = async {
        let head = HEAD.replace("Content-Length: 6", "Content-Length: 1000000000");
        write.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        while write.write_all(&[0; 65536]).await.is_ok() {}
    };
    let answered = async {
        let mut answer = vec![0; 1000];
        let count = within(read.read(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    };
    // The rest of the body is discarded for a while, and then the connection is closed.
    let (answer, ()) = tokio::join!(answered, sending);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn a_peer_that_stops_in_the_middle_of_its_response_is_not_waited_for_without_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = format!("http://{}", listener.local_addr().unwrap());
    let limits = Limits { stall: Duration::from_millis(200), answer: DEADLINE };
    let front = passing_with(peer, &NodeConfig::default(), limits).await;
    let stopped = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await.unwrap();
        // The connection stays open.
        stream
    };
    let client = Client::builder(TokioExecutor::new()).build_http::<http_body_util::Empty<bytes::Bytes>>();
    let uri = format!("http://{}/", front.0).parse().unwrap();
    let (answer, _open) = tokio::join!(within(client.get(uri)), within(stopped));
    assert!(within(answer.unwrap().into_body().collect()).await.is_err());
}

#[tokio::test]
async fn a_peer_is_reached_over_tls_if_its_authority_is_trusted() {
    let (authority, other, files) = (Authority::new(), Authority::new(), Files::new());
    files.put(&authority.issue(&["localhost"]));
    let tls = config::Tls { cert_file: files.cert(), key_file: files.key(), ..config::Tls::default() };
    let tls = ServerTls::load(&tls, Clock::system().now()).unwrap();
    let owner = serve_with(owner(Owner::default()), Some(tls)).await;
    let peer = format!("https://localhost:{}", owner.0.port());
    for (trusted, status) in [(&authority, "202"), (&other, "503")] {
        std::fs::write(files.authority(), trusted.pem()).unwrap();
        let yaml = format!("node: {{peers: {{b: '{peer}'}}, peerCaFile: '{}'}}", files.authority().display());
        let limits = Limits { stall: STALL, answer: DEADLINE };
        let front = passing_with(peer.clone(), &NodeConfig::from_yaml(&yaml).unwrap(), limits).await;
        let mut stream = TcpStream::connect(front.0).await.unwrap();
        stream.write_all(format!("{HEAD}\r\nabcdef").as_bytes()).await.unwrap();
        let answer = rest_of(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn a_body_reaches_the_owner_while_it_is_still_being_sent() {
    let counting = Owner::default();
    let received = Arc::clone(&counting.received);
    let owner = serve(owner(counting)).await;
    let front = passing(format!("http://{}", owner.0)).await;
    let mut stream = TcpStream::connect(front.0).await.unwrap();
    stream.write_all(format!("{HEAD}\r\nabc").as_bytes()).await.unwrap();
    within(async {
        while received.load(Ordering::SeqCst) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    stream.write_all(b"def").await.unwrap();
    assert!(rest_of(&mut stream).await.starts_with("HTTP/1.1 202 "));
    assert_eq!(received.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_request_is_forwarded_only_once() {
    let owner = serve(owner(Owner::default())).await;
    let second = passing(format!("http://{}", owner.0)).await;
    let first = passing(format!("http://{}", second.0)).await;
    let mut stream = TcpStream::connect(first.0).await.unwrap();
    stream.write_all(format!("{HEAD}\r\nabcdef").as_bytes()).await.unwrap();
    let answer = rest_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("BLOB_UPLOAD_UNKNOWN"), "{answer}");
}

#[tokio::test]
async fn a_session_whose_owner_is_gone_is_unknown() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for peer in [format!("http://{closed}"), "http://gone.invalid:5000".into()] {
        let front = passing(peer).await;
        let mut stream = TcpStream::connect(front.0).await.unwrap();
        stream.write_all(format!("{HEAD}\r\nabcdef").as_bytes()).await.unwrap();
        let answer = rest_of(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("BLOB_UPLOAD_UNKNOWN"), "{answer}");
    }
}

#[tokio::test]
async fn a_session_can_be_resumed_after_its_owner_failed_half_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = format!("http://{}", listener.local_addr().unwrap());
    let dying = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"abc") {
            stream.read_buf(&mut seen).await.unwrap();
        }
    };
    let front = passing(peer).await;
    let mut stream = TcpStream::connect(front.0).await.unwrap();
    stream.write_all(format!("{HEAD}\r\nabc").as_bytes()).await.unwrap();
    within(dying).await;
    let answer = rest_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"), "{answer}");
}

#[tokio::test]
async fn a_response_of_the_owner_that_ends_early_also_ends_early_for_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dying = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await.unwrap();
    };
    let front = passing(format!("http://{}", listener.local_addr().unwrap())).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<http_body_util::Empty<bytes::Bytes>>();
    let uri = format!("http://{}/", front.0).parse().unwrap();
    let (answer, ()) = tokio::join!(within(client.get(uri)), within(dying));
    // The connection may end before the head of the response was sent.
    if let Ok(answer) = answer {
        assert!(answer.into_body().collect().await.is_err());
    }
}
