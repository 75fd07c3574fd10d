use super::*;
use crate::http::api::body::{RequestBody, exactly};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::sync::oneshot;

/// Short, so that the tests are fast. Operations that must not time out take several times as long.
const TIMEOUT: config::Duration = config::Duration::from_millis(300);
/// A large response: far more than sockets hold, but little enough that a server that buffers it
/// does not exhaust the machine's memory.
const PIECE: usize = 65536;
const PIECES: usize = 2048;
/// Nothing in these tests takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, Default)]
struct Example {
    /// Responses in progress.
    running: Arc<AtomicUsize>,
    /// Pieces of large responses that were created.
    produced: Arc<AtomicUsize>,
    release: Arc<Notify>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(example): State<Example>, ConnectInfo(_): ConnectInfo<SocketAddr>, request: Request) -> Response {
    example.running.fetch_add(1, Ordering::SeqCst);
    let running = Running(Arc::clone(&example.running));
    match request.uri().path() {
        "/read" => {
            let body = RequestBody::new(request.into_body(), PaceLimit::new(TIMEOUT.get(), 0));
            let read = body.try_fold(0, |sum, piece| async move { Ok(sum + piece.len()) }).await;
            Response::new(Body::from(format!("{:?}", read.map_err(|error| error.kind()))))
        }
        "/large" => {
            let produced = Arc::clone(&example.produced);
            let pieces = futures::stream::repeat_with(move || {
                let _ = &running;
                produced.fetch_add(1, Ordering::SeqCst);
                Ok(Bytes::from_static(&[0; PIECE]))
            });
            Response::new(exactly((PIECES * PIECE) as u64, pieces.take(PIECES).boxed()))
        }
        "/slow" => {
            tokio::time::sleep(TIMEOUT.get() * 4).await;
            Response::new(Body::from("slow"))
        }
        "/held" => {
            example.release.notified().await;
            Response::new(Body::from("held"))
        }
        _ => Response::new(Body::from("hello")),
    }
}

struct Started {
    address: SocketAddr,
    handler: Example,
    stop: oneshot::Sender<()>,
    server: JoinSet<usize>,
}

impl Started {
    /// Tells the server to stop, and returns the number of connections that it closed.
    async fn stop(mut self) -> usize {
        self.stop.send(()).unwrap();
        within(self.server.join_next()).await.unwrap().unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn start(connections: u32, patience: Duration) -> Started {
    start_with(connections, patience, TIMEOUT).await
}

async fn start_with(connections: u32, patience: Duration, idle_timeout: config::Duration) -> Started {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Example::default();
    let config = config::Http {
        header_timeout: TIMEOUT,
        stall_timeout: TIMEOUT,
        idle_timeout,
        max_connections: connections,
        // One client has all connections of these tests, and sends a byte at a time.
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        min_rate: config::ByteSize::bytes(0),
        ..config::Http::default()
    };
    let (stop, stopped) = oneshot::channel();
    let mut server = JoinSet::new();
    let serving = Server::new(listener, Router::new().fallback(answer).with_state(handler.clone()), &config);
    server.spawn(serving.serve(async move { drop(stopped.await) }, patience));
    Started { address, handler, stop, server }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("timed out")
}

async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Sends the request and returns all data until the server closes the connection.
async fn exchange(started: &Started, request: &str) -> String {
    let mut stream = started.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    match within(stream.read_to_end(&mut answer)).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_client_that_does_not_complete_its_head_in_time_is_disconnected() {
    let started = start(8, DEADLINE).await;
    for beginning in ["", "G", "GET / HTTP/1.1\r\nHost: a\r\n", "PRI * HTTP/2.0\r\n"] {
        let answer = exchange(&started, beginning).await;
        assert!(!answer.contains("200 OK"), "{beginning:?}: {answer}");
    }
    assert_eq!(started.stop().await, 0);
}

#[tokio::test]
async fn an_idle_connection_ends_after_the_idle_time() {
    let started = start(8, DEADLINE).await;
    let answer = exchange(&started, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(started.stop().await, 0);
}

/// Sends a request on a persistent connection, and returns the response.
async fn ask_again(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let read = within(stream.read_buf(&mut answer)).await.unwrap();
        assert!(read > 0, "the connection was closed after {:?}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_a_head_may_take() {
    let started = start_with(8, DEADLINE, config::Duration::from_secs(60)).await;
    let mut stream = started.connect().await;
    for _ in 0..2 {
        ask_again(&mut stream).await;
        // This waits for nothing: the point is that time alone must not close the connection.
        tokio::time::sleep(TIMEOUT.get() * 3).await;
    }
    ask_again(&mut stream).await;
    drop(stream);
    assert_eq!(started.stop().await, 0);
}

#[tokio::test]
async fn a_later_head_that_is_not_completed_in_time_closes_the_connection() {
    let started = start_with(8, DEADLINE, config::Duration::from_secs(60)).await;
    for beginning in ["G", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let mut stream = started.connect().await;
        ask_again(&mut stream).await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn a_head_that_is_sent_byte_by_byte_closes_the_connection() {
    let started = start_with(8, DEADLINE, config::Duration::from_secs(60)).await;
    let mut stream = started.connect().await;
    ask_again(&mut stream).await;
    let sending = async {
        loop {
            if stream.write_all(b"x").await.is_err() {
                return;
            }
            tokio::time::sleep(TIMEOUT.get() / 10).await;
        }
    };
    within(sending).await;
}

#[tokio::test]
async fn the_connection_that_was_idle_longest_is_closed_when_all_places_are_taken() {
    let started = start_with(3, DEADLINE, config::Duration::from_secs(60)).await;
    let mut busy = started.connect().await;
    busy.write_all(b"GET /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    until(|| started.handler.running.load(Ordering::SeqCst) == 1).await;
    let (mut older, mut younger) = (started.connect().await, started.connect().await);
    ask_again(&mut older).await;
    ask_again(&mut younger).await;
    let mut new = started.connect().await;
    ask_again(&mut new).await;
    assert_eq!(within(older.read(&mut [0; 1])).await.unwrap(), 0, "the older one was closed cleanly");
    ask_again(&mut younger).await;
    // Now the younger connection had the last request.
    let mut newer = started.connect().await;
    ask_again(&mut newer).await;
    assert_eq!(within(new.read(&mut [0; 1])).await.unwrap(), 0);
    ask_again(&mut younger).await;
    started.handler.release.notify_one();
    let mut answer = String::new();
    within(busy.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("held"), "{answer}");
}

#[tokio::test]
async fn a_client_with_many_idle_connections_does_not_block_others() {
    let started = start_with(4, DEADLINE, config::Duration::from_secs(60)).await;
    let mut kept = Vec::new();
    for _ in 0..32 {
        let mut stream = started.connect().await;
        ask_again(&mut stream).await;
        kept.push(stream);
    }
    drop(kept);
    assert_eq!(started.stop().await, 0);
}

#[tokio::test]
async fn an_http_2_connection_is_closed_after_the_idle_time_only_without_requests() {
    let started = start_with(8, DEADLINE, config::Duration::from_millis(900)).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(started.connect().await))
            .await
            .unwrap();
    let mut ended = JoinSet::new();
    ended.spawn(connection);
    // In total several times the idle timeout: neither a slow response nor a pause closes the
    // connection.
    for path in ["/slow", "/", "/slow"] {
        let request = Request::get(format!("http://a{path}")).body(Empty::<Bytes>::new()).unwrap();
        let answer = within(sender.send_request(request)).await.unwrap();
        within(answer.into_body().collect()).await.unwrap();
    }
    within(ended.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn header_names_over_http_1_are_in_title_case() {
    let started = start(8, DEADLINE).await;
    let answer = ask_again(&mut started.connect().await).await;
    assert!(answer.contains("\r\nContent-Length: 5\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_body_gets_an_error_and_is_disconnected() {
    let started = start(8, DEADLINE).await;
    let answer = exchange(&started, "PUT /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    assert!(answer.ends_with("Err(TimedOut)"), "{answer}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_its_response_is_disconnected() {
    let started = start(8, DEADLINE).await;
    let mut stream = started.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(|| started.handler.running.load(Ordering::SeqCst) == 1).await;
    until(|| started.handler.running.load(Ordering::SeqCst) == 0).await;
    assert!(started.handler.produced.load(Ordering::SeqCst) < PIECES / 2);
}

#[tokio::test]
async fn slow_clients_and_slow_servers_are_not_cut_off() {
    let started = start(8, DEADLINE).await;
    let answer = exchange(&started, "GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("slow"), "{answer}");
    let mut stream = started.connect().await;
    stream.write_all(b"PUT /read HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 8\r\n\r\n").await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(TIMEOUT.get() / 3).await;
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("Ok(8)"), "{answer}");
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_a_place() {
    let started = start(1, DEADLINE).await;
    let mut first = started.connect().await;
    first.write_all(b"GET /held HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    until(|| started.handler.running.load(Ordering::SeqCst) == 1).await;
    let mut second = started.connect().await;
    second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let early = tokio::time::timeout(TIMEOUT.get(), second.read_to_string(&mut answer)).await;
    assert!(early.is_err(), "{answer}");
    started.handler.release.notify_one();
    within(second.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_stop_waits_for_requests_in_flight_and_accepts_no_connection() {
    let started = start(8, DEADLINE).await;
    let (address, handler) = (started.address, started.handler.clone());
    let mut idle = started.connect().await;
    let mut stream = started.connect().await;
    stream.write_all(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(|| handler.running.load(Ordering::SeqCst) == 1).await;
    let after = async {
        within(async { while TcpStream::connect(address).await.is_ok() {} }).await;
        assert_eq!(within(idle.read(&mut [0; 1])).await.unwrap(), 0);
        handler.release.notify_one();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    let (cut_off, answer) = tokio::join!(started.stop(), after);
    assert_eq!(cut_off, 0);
    assert!(answer.ends_with("held"), "{answer}");
}

#[tokio::test]
async fn connections_that_outlive_the_patience_are_closed_and_counted() {
    let started = start(8, Duration::from_millis(50)).await;
    let mut stream = started.connect().await;
    stream.write_all(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let handler = started.handler.clone();
    until(|| handler.running.load(Ordering::SeqCst) == 1).await;
    assert_eq!(started.stop().await, 1);
    assert_eq!(handler.running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn clients_that_start_with_http_2_are_served_over_http_2() {
    let started = start(8, DEADLINE).await;
    let client: hyper_util::client::legacy::Client<_, Empty<Bytes>> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("http://{}/", started.address).parse().unwrap();
    let answer = within(client.get(uri)).await.unwrap();
    assert_eq!(answer.version(), hyper::Version::HTTP_2);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn an_http_2_client_that_reads_nothing_of_its_response_is_disconnected() {
    let started = start(8, DEADLINE).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(started.connect().await))
            .await
            .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = |path| Request::get(format!("http://a{path}")).body(Empty::<Bytes>::new()).unwrap();
    let answer = within(sender.send_request(request("/large"))).await.unwrap();
    until(|| started.handler.running.load(Ordering::SeqCst) == 0).await;
    assert!(started.handler.produced.load(Ordering::SeqCst) < PIECES / 2);
    drop(answer);
}

#[tokio::test]
async fn an_http_2_client_that_waits_for_a_slow_server_is_not_cut_off() {
    let started = start(8, DEADLINE).await;
    let client: hyper_util::client::legacy::Client<_, Empty<Bytes>> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for (path, bytes) in [("/slow", 4), ("/large", PIECE * PIECES)] {
        let answer = within(client.get(format!("http://{}{path}", started.address).parse().unwrap())).await.unwrap();
        assert_eq!(within(answer.into_body().collect()).await.unwrap().to_bytes().len(), bytes);
    }
}
