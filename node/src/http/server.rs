//! Connections: how many there are, how slow a client may be, and how they end in order.
//!
//! Whom a stall is blamed on depends on who waits for whom:
//! - the head of a request: the client has `headerTimeout`, from the moment it connects or, of a later request, from its
//!   first byte ([`super::exchange`]);
//! - nobody: a connection on which nothing was asked for `idleTimeout` ends, and earlier when its place is needed
//!   ([`super::places`]);
//! - the body of a request: while the server waits for it ([`super::body::RequestBody`]), `stallTimeout`;
//! - an answer: while the socket takes no byte, `stallTimeout`; over HTTP/2 while the stream takes none
//!   ([`super::stall`]);
//! - a server that takes its time (a slow bucket) runs into none of these.
//!
//! `axum::serve` has none of these limits, not even on the time for a head or on the number of connections, and takes
//! no builder of hyper's that would: so connections are accepted here and the routers served through hyper-util.

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

/// Holds the head of a request, so this is also the most that a head may have before it is read. Bodies are read in
/// pieces of at most this size.
const READ_BUFFER: usize = 256 * 1024;

/// Requests of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 128;

/// What one HTTP/2 request may send before it is read: enough to keep a fast line full.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same for all requests of one HTTP/2 connection together.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes that a socket takes beyond what it has sent already (`TCP_NOTSENT_LOWAT`). What waits behind a line that is
/// busy does not speed it up, it only grows cold in the processor's caches: over loopback four readers of a blob are
/// served a tenth faster than without a bound, and 64 a third. Anything from 64 to 112 KiB does as well; 56 KiB, less
/// than the kernel hands over at once, costs a tenth, and so does 128 KiB. What is sent and not acknowledged is not
/// bounded by it, so a long line is filled as before.
const UNSENT: u32 = 96 * 1024;

/// Pause after the system refused a connection, such as for want of file descriptors; others may end meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener and whoever answers what arrives there.
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
    /// The router is told the peer of a request as [`ConnectInfo`].
    pub fn new(listener: TcpListener, router: Router, config: &config::Http) -> Server {
        let limits = Limits {
            connections: config.max_connections as usize,
            header_timeout: config.header_timeout.get(),
            idle_timeout: config.idle_timeout.get(),
            stall_timeout: config.stall_timeout.get(),
        };
        Server { listener, router, limits }
    }

    /// Serves until `stop`, then takes no more connections and lets the requests in flight end for as long as
    /// `patience`. Returns how many connections were cut off after that.
    pub async fn serve(self, stop: impl Future<Output = ()>, patience: Duration) -> usize {
        let places = Places::new(self.limits.connections);
        let stopping = CancellationToken::new();
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        // Kept when another branch is taken: it may have a connection that waits for its place.
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

/// A connection and a place for it. What the system refuses is waited out: it is never the end.
async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, Place) {
    loop {
        // The place comes second: that of an idle connection is taken only when somebody is there to need it.
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, places.take().await),
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request panicked and its connection ended");
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
                    tracing::debug!(%peer, %error, "a connection ended");
                }
                return;
            }
            () = &mut end, if !ending => {
                ending = true;
                served.as_mut().graceful_shutdown();
            }
            what = &mut late => return tracing::debug!(%peer, "{what}"),
            () = &mut stalled => return tracing::debug!(%peer, "a client does not take its answer"),
        }
    }
}

/// Resolves when the client has taken too long, with what it did not do.
async fn late(exchange: &Exchange, limits: Limits) -> &'static str {
    loop {
        match exchange.due(limits.header_timeout, limits.idle_timeout) {
            Due::Later(pause) => tokio::time::sleep(pause).await,
            Due::IdleOver => {
                exchange.end_if_idle();
            }
            Due::HeadLate => return "a client did not send the head of its request in time",
            Due::EndLate => return "a client did not let its idle connection end",
        }
    }
}

fn protocols(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The time for a head is measured by `late`. Scripts look for the names of headers as other registries write them.
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
#[path = "server_tests.rs"]
mod tests;
