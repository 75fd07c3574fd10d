use crate::http::Server;
use crate::http::client_address::OverTls;
use crate::http::tls::testing::{Authority, Files, Issued};
use crate::http::tls::{ClientCertificate, ServerTls};
use axum::Router;
use axum::extract::{ConnectInfo, Request};
use entrepot_config as config;
use entrepot_runtime::Clock;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Nothing in these tests takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

struct Started {
    address: SocketAddr,
    files: Files,
    tls: ServerTls,
    _serving: JoinSet<usize>,
}

/// Answers with the name of the client.
async fn answer(ConnectInfo(_): ConnectInfo<SocketAddr>, request: Request) -> String {
    // Otherwise the challenge sends clients to an http:// URL of this port.
    assert!(request.extensions().get::<OverTls>().is_some());
    let certificate = request.extensions().get::<Arc<ClientCertificate>>();
    certificate.map_or("anonymous".into(), |certificate| format!("{} of {:?}", certificate.name, certificate.groups))
}

async fn start(authority: &Authority, change: impl FnOnce(&mut config::Http, &mut config::Tls)) -> Started {
    let files = Files::new();
    files.put(&authority.issue(&["localhost"]));
    std::fs::write(files.authority(), authority.pem()).unwrap();
    let mut tls = config::Tls { cert_file: files.cert(), key_file: files.key(), ..config::Tls::default() };
    tls.client_ca_file = Some(files.authority());
    let mut http = config::Http::default();
    change(&mut http, &mut tls);
    let tls = ServerTls::load(&tls, Clock::system().now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(listener, Router::new().fallback(answer), &http).with_tls(Some(tls.clone()));
    let mut serving = JoinSet::new();
    serving.spawn(server.serve(std::future::pending(), Duration::ZERO));
    Started { address, files, tls, _serving: serving }
}

impl Started {
    async fn connect(&self, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    async fn as_client(&self, authority: &Authority, own: Option<&Issued>) -> TlsStream<TcpStream> {
        self.connect(authority.trusting(own)).await.unwrap()
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("timed out")
}

/// Sends a request and reads until the response ends with this text.
async fn ask(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let read = within(stream.read_buf(&mut answer)).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_carries_the_identity_of_the_client_certificate() {
    let authority = Authority::new();
    let started = start(&authority, |_, _| {}).await;
    let own = authority.client("alice", &["sre"], &[]);
    let mut stream = started.as_client(&authority, Some(&own)).await;
    for _ in 0..2 {
        ask(&mut stream, "alice of [\"sre\"]").await;
    }
    ask(&mut started.as_client(&authority, None).await, "anonymous").await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let started = start(&authority, |_, _| {}).await;
    let own = other.client("mallory", &[], &[]);
    // With TLS 1.3 the client learns of the refusal when it reads.
    let refused = match started.connect(authority.trusting(Some(&own))).await {
        Ok(mut stream) => stream.read(&mut [0]).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(refused.to_string().contains("alert"), "{refused}");
}

#[tokio::test]
async fn without_a_required_certificate_no_request_is_answered() {
    let authority = Authority::new();
    let started = start(&authority, |_, tls| tls.client_certificates = config::ClientCertificates::Required).await;
    let mut stream = started.as_client(&authority, None).await;
    let _ = stream.write_all(REQUEST).await;
    assert!(within(stream.read(&mut [0])).await.unwrap_err().to_string().contains("CertificateRequired"));
    let own = authority.client("alice", &[], &[]);
    ask(&mut started.as_client(&authority, Some(&own)).await, "alice of []").await;
}

#[tokio::test]
async fn http_without_tls_gets_a_response_that_says_so() {
    let started = start(&Authority::new(), |_, _| {}).await;
    // More than the server reads of it at once.
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    for request in ["GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", &long, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(started.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{answer}");
        assert!(body.contains("this port speaks HTTPS"), "{answer}");
    }
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut_off_and_frees_its_place() {
    let authority = Authority::new();
    let started = start(&authority, |http, _| {
        (http.header_timeout, http.max_connections) = (config::Duration::from_millis(300), 1);
    })
    .await;
    for beginning in [&b""[..], &[22], &[22, 3, 1, 2, 0, 1]] {
        let mut stream = TcpStream::connect(started.address).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{rest:?}");
    }
    ask(&mut within(started.as_client(&authority, None)).await, "anonymous").await;
}

#[tokio::test]
async fn a_connection_ends_when_it_is_too_old() {
    let authority = Authority::new();
    let started = start(&authority, |_, tls| tls.max_connection_age = config::Duration::from_millis(500)).await;
    let mut stream = started.as_client(&authority, None).await;
    ask(&mut stream, "anonymous").await;
    assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0, "it is closed cleanly");
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections_and_old_ones_go_on() {
    let authority = Authority::new();
    let started = start(&authority, |_, _| {}).await;
    let mut old = started.as_client(&authority, None).await;
    ask(&mut old, "anonymous").await;
    let new = authority.issue(&["localhost", "new.example"]);
    started.files.put(&new);
    started.tls.reload(Clock::system().now());
    ask(&mut old, "anonymous").await;
    let mut stream = started.as_client(&authority, None).await;
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], new.der());
    ask(&mut stream, "anonymous").await;
}

#[tokio::test]
async fn http_2_is_chosen_before_http_1() {
    let authority = Authority::new();
    let started = start(&authority, |_, _| {}).await;
    for (offered, chosen) in [(vec!["h2", "http/1.1"], "h2"), (vec!["http/1.1"], "http/1.1")] {
        let mut config = Arc::unwrap_or_clone(authority.trusting(None));
        config.alpn_protocols = offered.into_iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = started.connect(Arc::new(config)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(chosen.as_bytes()));
    }
}
