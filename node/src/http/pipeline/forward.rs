//! Forwards a request to the node that owns the upload session, and its response to the client.
//! Both are streams: nothing is buffered here, so a slow reader slows down the sender.
//!
//! A node that has stopped does not stop others: every wait for it has a limit (`link`). Only allowed
//! headers pass (`allowed`).

mod allowed;
mod link;

use super::challenge;
use super::request_id::RequestId;
use crate::http::api::body::RequestBody;
use crate::http::error::ApiError;
use crate::http::headers::{FORWARDED, REQUEST_ID};
use crate::http::tls::PeerTls;
use axum::body::Body;
use axum::http::header::{HOST, HeaderValue};
use axum::http::uri::PathAndQuery;
use axum::http::{Request, Uri, Version};
use axum::response::Response;
use entrepot_config::PeerAddress;
use link::{Link, LinkError};
use std::time::Duration;

/// Time that an owner may need in addition to `upload.answerWithin`, in which it answers by itself:
/// to write the end of the body to its disk, and for the network. With the default of
/// `answerWithin`, 50 s, a client has its response 5 s before the usual load balancer (60 s) cuts the
/// request off.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// How requests reach other nodes.
pub struct Forwarding {
    /// How other nodes are reached over HTTPS.
    pub tls: PeerTls,
    /// `upload.answerWithin` of all nodes.
    pub answer_within: Duration,
}

/// How long to wait for another node.
#[derive(Clone, Copy)]
struct Limits {
    /// `http.stallTimeout`: while it takes no byte of a request, or sends no byte of the body of a
    /// response.
    stall: Duration,
    /// For the head of the response, from the end of the request.
    answer: Duration,
}

/// Forwards requests to other nodes.
pub struct Forwarder {
    tls: PeerTls,
    limits: Limits,
}

impl Forwarder {
    pub fn new(forwarding: Forwarding, stall: Duration) -> Forwarder {
        let limits = Limits { stall, answer: forwarding.answer_within + ANSWER_MARGIN };
        Forwarder { tls: forwarding.tls, limits }
    }

    /// Sends the request to the node at `peer`.
    ///
    /// A node never forwards such a request again, so that two nodes that each consider the other the
    /// owner do not pass it back and forth.
    ///
    /// Each request uses a new connection. A pooled connection may turn out to be dead after half a
    /// layer was sent. A new connection that fails has sent nothing, so it is certain that the owner
    /// is gone.
    ///
    /// # Errors
    /// `UnknownSession` if the connection to that node fails or the request was already forwarded.
    /// `OwnerFailed` if that node failed, or did not respond in time, after it may have received a
    /// part of the body.
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
        let link = match Link::open(peer, self.tls.config(), self.limits).await {
            Ok(link) => link,
            Err(LinkError::Gone(error)) => {
                tracing::info!(%peer, %error, "cannot connect to the node that owns the upload session");
                return Err(ApiError::UnknownSession);
            }
            Err(LinkError::Failed(error)) => return Err(ApiError::OwnerFailed(error)),
        };
        let (head, body) = link.send(request).await.map_err(ApiError::OwnerFailed)?.into_parts();
        let mut response = Response::new(Body::new(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = allowed::of_response(&head.headers);
        Ok(response)
    }
}

fn readdressed(
    peer: &PeerAddress,
    request: Request<RequestBody>,
    request_id: &RequestId,
) -> Result<Request<RequestBody>, ApiError> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let host = HeaderValue::from_str(peer.authority().as_str());
    let host = host.map_err(|error| ApiError::OwnerFailed(error.into()))?;
    // Tokens and challenges are about the registry under the name that the client knows.
    let client_host = challenge::host(&head).and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    head.uri = Uri::from(path);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    // Without `Expect`: by reading the body, this node has already sent `100 Continue` to the client.
    head.headers = allowed::of_request(&head.headers);
    head.headers.insert(HOST, host);
    head.headers.insert(FORWARDED, client_host.unwrap_or(HeaderValue::from_static("")));
    head.headers.insert(REQUEST_ID, request_id.header());
    Ok(Request::from_parts(head, body))
}

#[cfg(test)]
mod tests;
