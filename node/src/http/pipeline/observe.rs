//! The span, the metrics and the access log of a request, until the last byte of its response.

use super::request_id::RequestId;
use crate::http::api::endpoint::EndpointKind;
use crate::http::api::route::Route;
use crate::http::client_address::ClientAddress;
use crate::http::error::ApiError;
use crate::http::tls::ClientCertificate;
use crate::observe::Metrics;
use crate::observe::access::{Access, RequestInfo, Running};
use crate::observe::series::{AllSeries, Series};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use entrepot_oci::Repository;
use entrepot_runtime::share::Share;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tracing::Span;

/// The methods with a metric label of their own. A client may send any method name.
const METHODS: [(Method, &str); 6] = [
    (Method::GET, "GET"),
    (Method::HEAD, "HEAD"),
    (Method::PUT, "PUT"),
    (Method::POST, "POST"),
    (Method::PATCH, "PATCH"),
    (Method::DELETE, "DELETE"),
];

/// Observes all requests.
pub struct Observe {
    metrics: Arc<Metrics>,
    series: AllSeries,
}

impl Observe {
    pub fn new(metrics: Arc<Metrics>) -> Observe {
        Observe { metrics, series: AllSeries::new(EndpointKind::COUNT, METHODS.len() + 1) }
    }

    /// Starts to observe a request, whose permit is held until it ends. `route` is `None` if it is
    /// refused.
    pub fn begin(
        &self,
        request: &Request,
        route: Option<&Route>,
        request_id: &RequestId,
        peer: SocketAddr,
        permit: Option<Share>,
    ) -> Observed {
        let client = request.extensions().get::<ClientAddress>();
        let info = RequestInfo {
            series: self.series_of(request),
            repository: route.and_then(Route::repository).map(Repository::as_str),
            request_id: request_id.as_str(),
            peer,
            forwarded_for: client.filter(|client| client.forwarded).map(|client| client.address),
            client: request.extensions().get::<Arc<ClientCertificate>>().map(|certificate| certificate.name.as_str()),
        };
        Observed(Access::begin(&self.metrics, info, permit))
    }

    fn series_of(&self, request: &Request) -> Arc<Series> {
        let kind = EndpointKind::of(request.uri().path());
        let method = METHODS.iter().position(|(method, _)| method == request.method());
        let method = method.map_or((METHODS.len(), "other"), |number| (number, METHODS[number].1));
        self.series.of(&self.metrics, (kind as usize, kind.label()), method)
    }
}

/// A request that is observed.
pub struct Observed(Access);

impl Observed {
    pub fn span(&self) -> Span {
        self.0.span().clone()
    }

    /// What the request holds, for a handler whose work may outlive it.
    pub fn running(&self) -> Running {
        self.0.running()
    }

    /// The response to an error. The cause of a failure is logged.
    pub fn refuse(&mut self, error: &ApiError, request_id: &RequestId) -> Response {
        let refusal = error.refusal();
        if refusal.is_failure() {
            self.0.failed(error);
        }
        refusal.of_request(request_id.as_str()).into_response()
    }

    /// Observes the response until its last byte was sent.
    pub fn send(mut self, response: Response) -> Response {
        self.0.answered(response.status().as_u16(), response.body().size_hint().exact());
        // axum writes the length of every body that has one. For these two statuses it would be
        // read as the length of the content.
        let sized = !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        response.map(|body| Body::new(ObservedBody { inner: body, access: self.0, sized }))
    }
}

/// The body of a response that carries the [`Access`] of its request. For metrics and the access
/// log, the request ends when the last byte was sent or the client disconnected.
struct ObservedBody {
    inner: Body,
    access: Access,
    /// Whether the response may state the length of its body. A response without a body, such as 304,
    /// may not: its length, zero, would be read as the length of the content.
    sized: bool,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let next = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &next {
            Some(Ok(frame)) => self.access.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(error)) => self.access.broke(error),
            None => self.access.complete(),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized { self.inner.size_hint() } else { SizeHint::default() }
    }
}
