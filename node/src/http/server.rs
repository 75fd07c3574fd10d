//! Connections: how many there are, how slow a client may be, and how they end in order.
//!
//! Whom a stall is blamed on depends on who waits for whom:
//! - the head of a request: the client has `headerTimeout`, from the moment it connects or the last answer ended; idle
//!   connections that are kept alive end by the same;
//! - the body of a request: while the server waits for it ([`super::body::RequestBody`]), `stallTimeout`;
//! - an answer: while the socket takes no byte, `stallTimeout`; over HTTP/2 while the stream takes none
//!   ([`super::stall`]);
//! - a server that takes its time (a slow bucket) runs into none of these.
//!
//! `axum::serve` has none of these limits, not even on the time for a head or on the number of connections, and takes
//! no builder of hyper's that would: so connections are accepted here and the routers served through hyper-util.

use super::body::Watched;
use super::stall::Answers;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{Request, Version};
use entrepot_config as config;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket2::SockRef;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
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
    stall_timeout: Duration,
}

impl Server {
    /// The router is told the peer of a request as [`ConnectInfo`].
    pub fn new(listener: TcpListener, router: Router, config: &config::Http) -> Server {
        let limits = Limits {
            connections: config.max_connections as usize,
            header_timeout: config.header_timeout.get(),
            stall_timeout: config.stall_timeout.get(),
        };
        Server { listener, router, limits }
    }

    /// Serves until `stop`, then takes no more connections and lets the requests in flight end for as long as
    /// `patience`. Returns how many connections were cut off after that.
    pub async fn serve(self, stop: impl Future<Output = ()>, patience: Duration) -> usize {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                (stream, peer, place) = accept(&self.listener, &places) => {
                    let served = connection(stream, peer, self.router.clone(), self.limits, graceful.watcher());
                    connections.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
            }
        }
        drop(self.listener);
        let ended = async {
            graceful.shutdown().await;
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

/// A connection, when there is a place for it. What the system refuses is waited out: it is never the end.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
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

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, limits: Limits, watcher: Watcher) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    if let Err(error) = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.stall_timeout));
    let begun = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(Answers::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        begun.store(true, Ordering::Relaxed);
        let taken = (request.version() == Version::HTTP_2).then(|| Arc::clone(&answers));
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().oneshot(request);
        async move {
            let response = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Watched::new(body, taken.map(|answers| answers.begin()))))
        }
    });
    let builder = protocols(limits);
    let served = watcher.watch(builder.serve_connection(TokioIo::new(Box::pin(stream)), service));
    // hyper's own timeout begins only when it knows which protocol the client speaks.
    let silent = async {
        tokio::time::sleep(limits.header_timeout).await;
        if begun.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = served => if let Err(error) = result {
            tracing::debug!(%peer, %error, "a connection ended");
        },
        () = silent => tracing::debug!(%peer, "a client sent no request"),
        () = answers.stalled(limits.stall_timeout) => tracing::debug!(%peer, "a client does not take its answer"),
    }
}

fn protocols(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(READ_BUFFER);
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
