//! Forwards a request to the node that owns the upload session, and its response to the client.
//! Both are streams: nothing is buffered here, so a slow reader slows down the sender.

use super::request_id::RequestId;
use crate::http::api::body::RequestBody;
use crate::http::error::ApiError;
use crate::http::headers::REQUEST_ID;
use axum::body::Body;
use axum::http::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{Request, Uri, Version};
use axum::response::Response;
use entrepot_config::PeerAddress;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;

/// Marks a forwarded request. A node never forwards such a request again, so that two nodes that
/// each consider the other the owner do not pass it back and forth.
const FORWARDED: HeaderName = HeaderName::from_static("entrepot-forwarded");

/// Peers are in one cluster: a peer that does not accept a connection within this time is
/// considered gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Idle time after which the connection is probed, so that the failure of a peer's machine is
/// noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Headers of one connection, not of a request (RFC 9110, section 7.6.1). `Connection` lists the
/// others.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Forwards requests to other nodes.
pub struct Forwarder {
    client: Client<HttpConnector, RequestBody>,
}

impl Forwarder {
    pub fn new() -> Forwarder {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_keepalive(Some(KEEP_ALIVE));
        // Each request uses a new connection. A pooled connection may turn out to be dead after
        // half a layer was sent. A new connection that fails has sent nothing, so it is certain
        // that the owner is gone.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Forwarder { client }
    }

    /// Sends the request to the node at `peer`.
    ///
    /// # Errors
    /// `UnknownSession` if the connection to that node fails or the request was already forwarded.
    /// `OwnerFailed` if that node failed after it may have received a part of the body.
    pub async fn forward(
        &self,
        peer: &PeerAddress,
        request: Request<RequestBody>,
        request_id: &RequestId,
    ) -> Result<Response, ApiError> {
        if request.headers().contains_key(FORWARDED) {
            return Err(ApiError::UnknownSession);
        }
        let request = readdressed(peer, request, request_id)?;
        match self.client.request(request).await {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                remove_hop_by_hop(&mut head.headers);
                head.version = Version::HTTP_11;
                Ok(Response::from_parts(head, Body::new(body)))
            }
            Err(error) if error.is_connect() => {
                tracing::info!(%peer, %error, "cannot connect to the node that owns the upload session");
                Err(ApiError::UnknownSession)
            }
            Err(error) => Err(ApiError::OwnerFailed(error.into())),
        }
    }
}

fn readdressed(
    peer: &PeerAddress,
    request: Request<RequestBody>,
    request_id: &RequestId,
) -> Result<Request<RequestBody>, ApiError> {
    let (mut head, body) = request.into_parts();
    let mut uri = head.uri.into_parts();
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    (uri.scheme, uri.authority) = (Some(Scheme::HTTP), Some(peer.clone()));
    head.uri = Uri::from_parts(uri).map_err(|error| ApiError::OwnerFailed(error.into()))?;
    head.version = Version::HTTP_11;
    head.extensions.clear();
    remove_hop_by_hop(&mut head.headers);
    head.headers.remove(HOST);
    // By reading the body, this node has already sent `100 Continue` to the client.
    head.headers.remove(EXPECT);
    head.headers.insert(FORWARDED, HeaderValue::from_static("1"));
    head.headers.insert(REQUEST_ID, request_id.header());
    Ok(Request::from_parts(head, body))
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
