//! One connection: its protocol, its requests, and the timeouts that close it.

use super::exchange::{Due, Exchange, Heard, Held, InProgress, Protocol};
use super::places::Place;
use super::watchdog::{ResponseWatchdog, WatchedBody};
use crate::http::pace::PaceLimit;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// The read buffer holds the head of a request, so this is also the maximum size of a head, which
/// may have 36 KiB (`pipeline::parse`). An unfinished head keeps its buffer until the header timeout,
/// so 4096 of them take 256 MiB. Bodies are read in pieces of at most this size.
const READ_BUFFER: usize = 64 * 1024;

/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// Bytes that one HTTP/2 request may send before the server reads them: enough to use all of a fast
/// link.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same limit for all requests of one HTTP/2 connection together.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// How long a client may take, by what the server waits for.
#[derive(Clone, Copy)]
pub struct Limits {
    /// `http.headerTimeout`.
    pub header_timeout: Duration,
    /// `http.idleTimeout`.
    pub idle_timeout: Duration,
    /// `http.stallTimeout` and `http.minRate`.
    pub pace: PaceLimit,
}

/// Serves one connection until it is closed. The stream may be of any kind: its socket options were
/// set when it was accepted.
pub async fn connection<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    place: Place,
    stopping: CancellationToken,
) {
    let exchange = &place.exchange;
    let stream = Heard::new(stream, Arc::clone(exchange), limits.pace);
    let watchdog = Arc::new(ResponseWatchdog::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        let multiplexed = request.version() == Version::HTTP_2;
        let in_progress = exchange.begin(if multiplexed { Protocol::Multiplexed } else { Protocol::Serial });
        request.extensions_mut().insert(ConnectInfo(peer));
        respond(request, router.clone(), in_progress, multiplexed.then(|| (Arc::clone(&watchdog), limits.pace)))
    });
    let builder = protocols(limits);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut late = pin!(late(exchange, limits));
    let mut stalled = pin!(watchdog.stalled(limits.pace));
    let mut end = pin!(async {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = exchange.told_to_end() => {}
        }
    });
    let mut ending = false;
    loop {
        tokio::select! {
            result = served.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "a connection was closed after an error");
                }
                return;
            }
            () = &mut end, if !ending => {
                ending = true;
                served.as_mut().graceful_shutdown();
            }
            () = exchange.told_to_cut() => {
                return tracing::debug!(%peer, "a connection without a request was closed: its network has its share");
            }
            what = &mut late => return tracing::debug!(%peer, "{what}"),
            () = &mut stalled => return tracing::debug!(%peer, "a client reads its response too slowly"),
        }
    }
}

/// Handles one request. Both bodies hold it: the connection is busy until the last of them is
/// dropped.
async fn respond(
    request: Request<Incoming>,
    router: Router,
    in_progress: Arc<InProgress>,
    watchdog: Option<(Arc<ResponseWatchdog>, PaceLimit)>,
) -> Result<Response<Held<WatchedBody>>, Infallible> {
    let response = router.oneshot(request.map(|body| Held::new(body, Arc::clone(&in_progress)))).await?;
    let watched = |body| match watchdog {
        Some((watchdog, limit)) => watchdog.watch(body, limit),
        None => WatchedBody::unwatched(body),
    };
    Ok(response.map(|body| Held::new(watched(body), in_progress)))
}

/// Resolves when the client exceeds a timeout, with a description of what it failed to do.
async fn late(exchange: &Exchange, limits: Limits) -> &'static str {
    loop {
        match exchange.due(limits.header_timeout, limits.idle_timeout) {
            Due::Later(pause) => tokio::time::sleep(pause).await,
            Due::IdleOver => {
                exchange.end_if_idle();
            }
            Due::HeadLate => return "a client did not send the head of its request within http.headerTimeout",
            Due::EndLate => return "a client did not close its idle connection when told to",
        }
    }
}

fn protocols(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // `late` enforces the timeout for a head. Scripts expect header names as other registries write
    // them.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(READ_BUFFER)
        .title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(limits.pace.stall())
        .keep_alive_timeout(limits.header_timeout);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::client_address::TrustedProxies;
    use crate::http::listen::places::Places;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinSet;

    #[tokio::test]
    async fn a_connection_may_be_any_stream() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let minute = Duration::from_secs(60);
        let limits = Limits { header_timeout: minute, idle_timeout: minute, pace: PaceLimit::new(minute, 0) };
        let (peer, router) = (SocketAddr::from(([127, 0, 0, 1], 1)), Router::new().fallback(async || "hello"));
        let mut serving = JoinSet::new();
        let places = Places::new(1, TrustedProxies::new(&[]));
        let place = places.take(peer.ip()).await.unwrap();
        serving.spawn(connection(server, peer, router, limits, place, CancellationToken::new()));
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(minute, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
    }
}
