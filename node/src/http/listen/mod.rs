//! Connections: how many there are, how slow a client may be, and how they are closed at shutdown.
//!
//! Which limit applies depends on which side is waiting:
//! - The head of a request: the client has `headerTimeout`, counted from the start of the
//!   connection or, for a later request, from the first byte of the head (`exchange`).
//! - An idle connection: it is closed after `idleTimeout` without a request, or earlier when its
//!   place is needed (`places`).
//! - The body of a request: `stallTimeout` while the server waits for the client
//!   (`body::RequestBody`).
//! - A response: `stallTimeout` while the socket accepts no byte; over HTTP/2, while the stream
//!   accepts none (`stall`).
//! - A slow server, for example because of a slow bucket, is not subject to any of these limits.
//!
//! `axum::serve` has none of these limits, not even a timeout for the head or a maximum number of
//! connections, and does not accept a configured hyper builder. So connections are accepted here
//! and the routers are served through hyper-util.

use super::body::Watched;
use super::exchange::{Due, Exchange, Heard, Held, Kind};
use super::places::{Place, Places};
use super::stall::Answers;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{Request, Version};
use entrepot_config as config;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// The read buffer holds the head of a request, so this is also the maximum size of a head. Bodies
/// are read in pieces of at most this size.
const READ_BUFFER: usize = 256 * 1024;

/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;

/// Bytes that one HTTP/2 request may send before the server reads them: enough to use all of a fast
/// link.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same limit for all requests of one HTTP/2 connection together.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Maximum number of unsent bytes in a socket's buffer (`TCP_NOTSENT_LOWAT`). More data behind a
/// busy link does not speed it up and leaves the CPU caches. Compared with no limit, over loopback,
/// four readers of a blob are served 10 % faster and 64 readers 33 % faster. Values from 64 to 112
/// KiB perform the same. 56 KiB, which is less than the kernel sends at once, is 10 % slower, and
/// so is 128 KiB. Data that is sent but not acknowledged does not count, so a link with a high
/// latency is still used fully.
const UNSENT: u32 = 96 * 1024;

/// Pause after the system refused a connection, for example because file descriptors ran out. Other
/// connections may be closed in the meantime.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener and the router that handles its requests.
pub struct Server {
    listener: TcpListener,
    router: Router,
    limits: Limits,
}

#[derive(Clone, Copy)]
struct Limits {
    connections: usize,
    header_timeout: Duration,
    idle_timeout: Duration,
    stall_timeout: Duration,
}

impl Server {
    /// The router receives the peer of a request as [`ConnectInfo`].
    pub fn new(listener: TcpListener, router: Router, config: &config::Http) -> Server {
        let limits = Limits {
            connections: config.max_connections as usize,
            header_timeout: config.header_timeout.get(),
            idle_timeout: config.idle_timeout.get(),
            stall_timeout: config.stall_timeout.get(),
        };
        Server { listener, router, limits }
    }

    /// Serves until `stop`. Then it accepts no more connections and waits up to `patience` for
    /// requests in flight. Returns the number of connections that were closed after that.
    pub async fn serve(self, stop: impl Future<Output = ()>, patience: Duration) -> usize {
        let places = Places::new(self.limits.connections);
        let stopping = CancellationToken::new();
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        // The future is kept when another branch is selected, because it may hold a connection that
        // waits for its place.
        let mut accepting = Box::pin(accept(&self.listener, &places));
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                (stream, peer, place) = &mut accepting => {
                    accepting.set(accept(&self.listener, &places));
                    connections.spawn(connection(
                        stream,
                        peer,
                        self.router.clone(),
                        self.limits,
                        place,
                        stopping.clone(),
                    ));
                }
            }
        }
        drop(accepting);
        drop(self.listener);
        stopping.cancel();
        let ended = async {
            while let Some(ended) = connections.join_next().await {
                log_panic(ended);
            }
        };
        let in_time = tokio::time::timeout(patience, ended).await.is_ok();
        let cut_off = if in_time { 0 } else { connections.len() };
        connections.shutdown().await;
        cut_off
    }
}

/// Accepts a connection and takes a place for it. An error of the system is retried; it never ends
/// the server.
async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, Place) {
    loop {
        // The place is taken second, so that an idle connection is closed only when a client needs
        // its place.
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, places.take().await),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; retrying");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request panicked; its connection was closed");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    place: Place,
    stopping: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.stall_timeout));
    let exchange = &place.exchange;
    let stream = Heard::new(stream, Arc::clone(exchange));
    let answers = Arc::new(Answers::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        let multiplexed = request.version() == Version::HTTP_2;
        let taken = multiplexed.then(|| Arc::clone(&answers));
        // Both bodies hold it: the connection is busy until the last of them is dropped.
        let in_progress = exchange.begin(if multiplexed { Kind::Multiplexed } else { Kind::Serial });
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().oneshot(request.map(|body| Held::new(body, Arc::clone(&in_progress))));
        async move {
            let response = answer.await?;
            let watched = |body| Watched::new(body, taken.map(|answers| answers.begin()));
            Ok::<_, Infallible>(response.map(|body| Held::new(watched(body), in_progress)))
        }
    });
    let builder = protocols(limits);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut late = pin!(late(exchange, limits));
    let mut stalled = pin!(answers.stalled(limits.stall_timeout));
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
            what = &mut late => return tracing::debug!(%peer, "{what}"),
            () = &mut stalled => return tracing::debug!(%peer, "a client does not read its response"),
        }
    }
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
        .keep_alive_interval(limits.stall_timeout)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
