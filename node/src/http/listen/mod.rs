//! Connections: how many there are, how slow a client may be, and how they are closed at shutdown.
//!
//! Which limit applies depends on which side is waiting:
//! - The TLS handshake and the head of a request: the client has `headerTimeout`, counted from the start of the
//!   connection or, for a later request, from the first byte of the head (`exchange`).
//! - An idle connection: it is closed after `idleTimeout` without a request, or earlier when its
//!   place is needed (`places`).
//! - The body of a request: `minRate` on average over `stallTimeout` while the server waits for the
//!   client (`RequestBody` of the API).
//! - A response: the same while the socket accepts no byte (`exchange`); over HTTP/2, while the
//!   stream accepts none (`watchdog`).
//! - All connections of one network: as many as are free (`places`).
//! - A slow server, for example because of a slow bucket, is not subject to any of these limits.
//!
//! `axum::serve` has none of these limits, not even a timeout for the head or a maximum number of
//! connections, and does not accept a configured hyper builder. So connections are accepted here,
//! and `connection` serves the router through hyper-util.

mod connection;
mod exchange;
mod places;
mod tls;
mod watchdog;

use crate::http::client_address::TrustedProxies;
use crate::http::pace::PaceLimit;
use crate::http::tls::ServerTls;
use axum::Router;
use connection::{Limits, connection};
use entrepot_config as config;
use places::{Place, Places};
use socket2::SockRef;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tls::tls_connection;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
    /// `http.maxConnections`.
    connections: usize,
    proxies: TrustedProxies,
    limits: Limits,
    tls: Option<ServerTls>,
}

impl Server {
    /// The router receives the peer of a request as [`axum::extract::ConnectInfo`].
    pub fn new(listener: TcpListener, router: Router, config: &config::Http) -> Server {
        let limits = Limits {
            header_timeout: config.header_timeout.get(),
            idle_timeout: config.idle_timeout.get(),
            pace: PaceLimit::of(config),
        };
        let proxies = TrustedProxies::new(&config.trusted_proxies);
        Server { listener, router, connections: config.max_connections as usize, proxies, limits, tls: None }
    }

    /// The same server over TLS, if a certificate is configured.
    #[must_use]
    pub fn with_tls(self, tls: Option<ServerTls>) -> Server {
        Server { tls, ..self }
    }

    /// Serves until `stop`. Then it accepts no more connections and waits up to `patience` for
    /// requests in flight. Returns the number of connections that were closed after that.
    pub async fn serve(self, stop: impl Future<Output = ()>, patience: Duration) -> usize {
        let places = Places::new(self.connections, self.proxies);
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
                    let (router, limits, stopping) = (self.router.clone(), self.limits, stopping.clone());
                    match self.tls.clone() {
                        None => connections.spawn(connection(stream, peer, router, limits, place, stopping)),
                        Some(tls) => {
                            connections.spawn(tls_connection(stream, peer, tls, router, limits, place, stopping))
                        }
                    };
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
            Ok((stream, peer)) => {
                set_options(&stream);
                if let Some(place) = places.take(peer.ip()).await {
                    return (stream, peer, place);
                }
                tracing::debug!(%peer, "a new connection was closed: its network has its share of http.maxConnections");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; retrying");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Socket options improve the speed only, so a failure to set one is not an error.
fn set_options(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    if let Err(error) = SockRef::from(stream).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request panicked; its connection was closed");
    }
}

#[cfg(test)]
mod tests;
