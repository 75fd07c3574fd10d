//! The TLS handshake of a connection, and the end of a connection that became too old.

use super::connection::{Limits, connection};
use super::places::Place;
use crate::http::client_address::OverTls;
use crate::http::tls::{ClientCertificate, ServerTls};
use axum::{Extension, Router};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Sent to a client that speaks HTTP without TLS. Otherwise people see an error about a malformed
/// response. The body has the form of the registry API's errors, which clients show.
const PLAIN_HTTP: &str = concat!(
    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 95\r\nConnection: close\r\n\r\n",
    r#"{"errors":[{"code":"UNSUPPORTED","message":"this port speaks HTTPS; use https:// in the URL"}]}"#,
);

/// How long the rest of such a request is read. A connection that is closed before would be reset,
/// and the client would not see the response.
const LINGER: Duration = Duration::from_secs(1);

/// Serves a connection over TLS until it is closed. The handshake counts in `http.headerTimeout`, and
/// it has its place in `http.maxConnections`.
pub async fn tls_connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: ServerTls,
    router: Router,
    limits: Limits,
    place: Place,
    stopping: CancellationToken,
) {
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(limits.header_timeout, accept(&tls, stream)) => accepted,
        () = stopping.cancelled() => return,
    };
    let stream = match accepted {
        Ok(Ok(Some(stream))) => stream,
        Ok(Ok(None)) => return tracing::debug!(%peer, "a client sent HTTP without TLS"),
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => {
            return tracing::debug!(%peer, "a client did not complete its TLS handshake within http.headerTimeout");
        }
    };
    let router = router.layer(Extension(OverTls));
    let router = match certificate(&stream) {
        Some(certificate) => router.layer(Extension(Arc::new(certificate))),
        None => router,
    };
    let ending = stopping.child_token();
    let mut served = pin!(connection(stream, peer, router, limits, place, ending.clone()));
    tokio::select! {
        () = &mut served => return,
        () = tokio::time::sleep(tls.max_connection_age()) => ending.cancel(),
    }
    served.await;
}

/// The connection after the handshake. `None` if the client sent HTTP without TLS.
async fn accept(tls: &ServerTls, stream: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    // A request begins with the name of a method. The first byte of TLS is 22 (RFC 8446, section 5.1).
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
        refuse_plain_http(stream).await?;
        return Ok(None);
    }
    TlsAcceptor::from(tls.config()).accept(stream).await.map(Some)
}

async fn refuse_plain_http(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(PLAIN_HTTP.as_bytes()).await?;
    stream.shutdown().await?;
    let mut discarded = [0; 4096];
    let rest = async { while stream.read(&mut discarded).await.is_ok_and(|read| read > 0) {} };
    // A client that goes on sending is cut off.
    let _ = tokio::time::timeout(LINGER, rest).await;
    Ok(())
}

fn certificate(stream: &TlsStream<TcpStream>) -> Option<ClientCertificate> {
    let (_, session) = stream.get_ref();
    session.peer_certificates()?.first().and_then(ClientCertificate::of)
}

#[cfg(test)]
mod tests;
