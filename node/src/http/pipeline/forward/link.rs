//! One connection to another node, for one request and its response.
//!
//! The future that waits for the response, and then the body of the response, drive the connection
//! themselves. So it is closed as soon as nobody waits any more, and a node that has stopped leaves
//! nothing behind here.

use super::Limits;
use crate::http::api::body::RequestBody;
use crate::http::pace::PaceLimit;
use axum::http::{Request, Response, Uri};
use bytes::Bytes;
use entrepot_config::PeerAddress;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

/// Peers are in one cluster: a peer that does not accept a connection within this time is
/// considered gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit for finding the address, the connection and the TLS handshake together. It is longer,
/// because a peer that accepts the connection is not gone.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle time after which the connection is probed, so that the failure of a peer's machine is
/// noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The bytes of the connection; a write that makes no progress fails.
type Stream = TokioIo<Pin<Box<TimeoutStream<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>>>>;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nothing was sent, and the peer accepts no connection.
    #[error("cannot connect: {0}")]
    Gone(#[source] BoxError),
    /// The peer may have received a part of the request.
    #[error(transparent)]
    Failed(BoxError),
}

/// A connection on which nothing was sent.
pub struct Link {
    sender: SendRequest<Sending>,
    connection: Pin<Box<Connection<Stream, Sending>>>,
    limits: Limits,
}

impl Link {
    /// Connects to the node.
    ///
    /// # Errors
    /// If it accepts no connection, or does not complete the TLS handshake.
    pub async fn open(peer: &PeerAddress, tls: Arc<ClientConfig>, limits: Limits) -> Result<Link, LinkError> {
        let failed = |error: io::Error| LinkError::Failed(error.into());
        let uri = Uri::builder().scheme(if peer.is_https() { "https" } else { "http" });
        let uri = uri.authority(peer.authority().clone()).path_and_query("/").build();
        let uri = uri.map_err(|error| LinkError::Failed(error.into()))?;
        let connecting = HttpsConnector::from((connector(), tls)).oneshot(uri);
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
            // The connector returns an error of another type if the connection itself fails.
            Ok(Err(error)) if error.is::<io::Error>() => return Err(LinkError::Failed(error)),
            Ok(connected) => connected.map_err(LinkError::Gone)?,
            Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
        };
        let mut stream = TimeoutStream::new(TokioIo::new(stream));
        stream.set_write_timeout(Some(limits.stall));
        let shaken = handshake(TokioIo::new(Box::pin(stream))).await;
        let (sender, connection) = shaken.map_err(|error| LinkError::Failed(error.into()))?;
        Ok(Link { sender, connection: Box::pin(connection), limits })
    }

    /// Sends the request, and returns the response, whose body is read while the client reads it.
    ///
    /// # Errors
    /// If the connection fails, the peer takes no byte of the body within the stall time, or does not
    /// answer in time after it has the whole body.
    pub async fn send(self, request: Request<RequestBody>) -> Result<Response<Receiving>, BoxError> {
        let Link { mut sender, mut connection, limits } = self;
        let sent = CancellationToken::new();
        let request = request.map(|body| Sending { inner: body, _sent: sent.clone().drop_guard() });
        let mut response = pin!(sender.send_request(request));
        let mut silent = pin!(async {
            sent.cancelled().await;
            tokio::time::sleep(limits.answer).await;
        });
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                answered = &mut response => {
                    let connection = open.then_some(connection);
                    let stall = limits.stall;
                    return Ok(answered?.map(|body| Receiving { body: RequestBody::new(body, PaceLimit::new(stall, 0)), connection }));
                }
                // If it failed, the response has the error as well.
                _ = &mut connection, if open => open = false,
                () = &mut silent => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no response within the time limit").into());
                }
            }
        }
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(KEEP_ALIVE));
    connector.enforce_http(false);
    connector
}

/// The body of a request. It is dropped when all of it was handed to the connection.
struct Sending {
    inner: RequestBody,
    _sent: DropGuard,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a response. It fails if the peer sends nothing for the stall time while it is being
/// read.
pub struct Receiving {
    body: RequestBody<Incoming>,
    /// `None` after it was closed.
    connection: Option<Pin<Box<Connection<Stream, Sending>>>>,
}

impl HttpBody for Receiving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Some(connection) = &mut this.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            this.connection = None;
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
