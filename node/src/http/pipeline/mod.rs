//! Handles a request from its arrival to its response: limits, request ID, span, metrics, and the
//! headers of every response.

use super::body::{Observed, RequestBody};
use super::cors::Cors;
use super::error::ApiError;
use super::forward::Forwarder;
use super::headers;
use super::linger::Lingering;
use super::manifests::Described;
use super::request_id::RequestId;
use super::routes::{Kind, Route};
use super::{blobs, catalog, manifests, namespace, referrers, tags, uploads};
use crate::discover::Discover;
use crate::fetch::Fetch;
use crate::manage::Manage;
use crate::observe::Metrics;
use crate::observe::access::{Access, Asked};
use crate::observe::series::{AllSeries, Series};
use crate::upload::{Owner, Uploads};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use entrepot_config as config;
use entrepot_oci::{Repository, SessionId};
use http_body::Body as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::Instrument;

/// Twice the size of a repository name of 255 characters, a sha512 digest and a session ID, all
/// percent-encoded.
const MAX_URI_BYTES: usize = 4096;

/// Limit for names and values together. Bearer tokens are the largest headers that registries
/// receive, at 8 KiB and more.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The methods with a metric label of their own. A client may send any method name.
const METHODS: [(Method, &str); 6] = [
    (Method::GET, "GET"),
    (Method::HEAD, "HEAD"),
    (Method::PUT, "PUT"),
    (Method::POST, "POST"),
    (Method::PATCH, "PATCH"),
    (Method::DELETE, "DELETE"),
];

/// The flows that handle requests.
pub struct Services {
    pub uploads: Uploads,
    pub fetch: Fetch,
    pub discover: Discover,
    pub manage: Manage,
    pub metrics: Arc<Metrics>,
    /// Refuses every request that writes.
    pub read_only: bool,
}

/// State that all requests share.
struct Registry {
    services: Services,
    described: Described,
    forwarder: Forwarder,
    cors: Cors,
    series: AllSeries,
    places: Arc<Semaphore>,
    stall_timeout: Duration,
    /// `http.namespaces`.
    namespaces: Vec<String>,
}

/// The router of a node, with the limits of its configuration. It has one handler for every path,
/// because no pattern of a router fits: repository names contain slashes, and the segment after the
/// name selects the endpoint. `Route` parses the path.
///
/// The router requires the peer as [`ConnectInfo`], which [`super::Server`] sets.
pub fn router(services: Services, config: &config::Http) -> Router {
    let registry = Registry {
        services,
        described: Described::default(),
        forwarder: Forwarder::new(),
        cors: Cors::new(&config.allowed_origins),
        series: AllSeries::new(Kind::COUNT, METHODS.len() + 1),
        places: Arc::new(Semaphore::new(config.max_requests as usize)),
        stall_timeout: config.stall_timeout.get(),
        namespaces: config.namespaces.clone(),
    };
    Router::new().fallback(dispatch).with_state(Arc::new(registry))
}

async fn dispatch(
    State(registry): State<Arc<Registry>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    // This comes first, because the client never sees a refusal that a reset destroys.
    let request = request.map(|body| Body::new(Lingering::new(body)));
    let request_id = RequestId::of(request.headers());
    let place = Arc::clone(&registry.places).try_acquire_owned().ok();
    let route = match &place {
        Some(_) => route_of(&request, &registry.namespaces),
        None => Err(ApiError::TooManyRequests),
    };
    let asked = Asked {
        series: registry.series_of(&request),
        repository: route.as_ref().ok().and_then(Route::repository).map(Repository::as_str),
        request_id: request_id.as_str(),
        peer,
    };
    let mut access = Access::begin(&registry.services.metrics, asked, place);
    let is_head = request.method() == Method::HEAD;
    let sharing = registry.cors.sharing(request.headers());
    let preflight = registry.cors.preflight(&request, &sharing);
    let answer = async {
        if let Some(response) = preflight {
            return Ok(response);
        }
        match route {
            Ok(route) => registry.answer(route, request, &request_id).await,
            Err(error) => Err(error),
        }
    };
    let mut response = answer.instrument(access.span().clone()).await.unwrap_or_else(|error| {
        if error.is_failure() {
            access.failed(&error);
        }
        error.of_request(&request_id).into_response()
    });
    let map = response.headers_mut();
    map.insert(headers::API_VERSION, headers::REGISTRY_2);
    map.insert(headers::REQUEST_ID, request_id.header());
    sharing.write(map);
    if is_head {
        response = without_body(response);
    }
    access.answered(response.status().as_u16(), response.body().size_hint().exact());
    // axum writes the length of every body that has one. For these two statuses it would be read as
    // the length of the content.
    let sized = !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    response.map(|body| Body::new(Observed::new(body, access, sized)))
}

impl Registry {
    fn series_of(&self, request: &Request) -> Arc<Series> {
        let kind = Kind::of(request.uri().path());
        let method = METHODS.iter().position(|(method, _)| method == request.method());
        let method = method.map_or((METHODS.len(), "other"), |number| (number, METHODS[number].1));
        self.series.of(&self.services.metrics, (kind as usize, kind.label()), method)
    }

    async fn answer(&self, route: Route, request: Request, request_id: &RequestId) -> Result<Response, ApiError> {
        let services = &self.services;
        if services.read_only && route.writes() {
            return Err(ApiError::ReadOnly);
        }
        let request = request.map(|body| RequestBody::new(body, self.stall_timeout));
        let request = match &route {
            Route::UploadStatus { id, .. }
            | Route::AppendUpload { id, .. }
            | Route::FinishUpload { id, .. }
            | Route::CancelUpload { id, .. } => match (self.at_owner(id, request, request_id).await, &route) {
                (Ok(Found::Here(request)), _) => request,
                (Ok(Found::Elsewhere(response)), _) => return Ok(response),
                // The request may repeat one that the owner completed before it became unreachable.
                (Err(ApiError::UnknownSession), Route::FinishUpload { repository, digest, .. }) => {
                    return uploads::finish_without_owner(services, repository, digest).await;
                }
                (Err(error), _) => return Err(error),
            },
            _ => request,
        };
        let with_body = request.method() != Method::HEAD;
        let (head, body) = request.into_parts();
        let asked = &head.headers;
        match &route {
            Route::Home => Ok(text("text/plain; charset=utf-8", HOME)),
            Route::Version => Ok(text("application/json", "{}")),
            Route::Catalog { page } => catalog::list(services, page).await,
            Route::Tags { repository, page } => tags::list(services, repository, page).await,
            Route::Referrers { repository, subject, artifact_type, page } => {
                referrers::list(services, repository, subject, artifact_type.as_deref(), page).await
            }
            Route::PullManifest { repository, reference } => {
                manifests::get(services, &self.described, repository, reference, asked, with_body).await
            }
            Route::PushManifest { repository, reference, tags } => {
                manifests::put(services, repository, reference, tags, asked, body).await
            }
            Route::DeleteManifest { repository, reference } => manifests::delete(services, repository, reference).await,
            Route::PullBlob { repository, digest } if with_body => {
                blobs::get(services, repository, digest, asked).await
            }
            Route::PullBlob { repository, digest } => blobs::head(services, repository, digest, asked).await,
            Route::DeleteBlob { repository, digest } => blobs::delete(services, repository, digest).await,
            Route::BeginUpload { repository, begin } => uploads::begin(services, repository, begin, body).await,
            Route::UploadStatus { repository, id } => uploads::status(services, repository, id).await,
            Route::AppendUpload { repository, id, offset } => {
                uploads::append(services, repository, id, *offset, asked, body).await
            }
            Route::FinishUpload { repository, id, offset, digest } => {
                uploads::finish(services, repository, (id, *offset), digest, asked, body).await
            }
            Route::CancelUpload { repository, id } => uploads::cancel(services, repository, id).await,
        }
    }

    /// Returns the request if this node owns the session; otherwise the response of the node that
    /// owns it.
    async fn at_owner(
        &self,
        id: &SessionId,
        request: Request<RequestBody>,
        request_id: &RequestId,
    ) -> Result<Found, ApiError> {
        match self.services.uploads.owner(id) {
            Owner::Here => Ok(Found::Here(request)),
            Owner::Peer(peer) => self.forwarder.forward(&peer, request, request_id).await.map(Found::Elsewhere),
            Owner::Unknown => Err(ApiError::UnknownSession),
        }
    }
}

enum Found {
    Here(Request<RequestBody>),
    Elsewhere(Response),
}

/// The text at `/`, for a person who opens the registry in a browser.
const HOME: &str = "This is Entrepot, a container registry. Its API is at /v2/ (OCI distribution-spec 1.1).\n";

fn text(kind: &'static str, content: &'static str) -> Response {
    let mut response = Response::new(Body::from(Bytes::from_static(content.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Parses a request and checks that it may be served here.
fn route_of(request: &Request, namespaces: &[String]) -> Result<Route, ApiError> {
    check(request)?;
    let route = Route::parse(request.method(), request.uri().path(), request.uri().query())?;
    namespace::check(request, &route, namespaces)?;
    Ok(route)
}

/// Checks sizes that the client controls. A request that exceeds a limit is refused before anything
/// is done with it.
fn check(request: &Request) -> Result<(), ApiError> {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > MAX_URI_BYTES {
        return Err(ApiError::UriTooLong(MAX_URI_BYTES));
    }
    if header_bytes(request.headers()) > MAX_HEADER_BYTES {
        return Err(ApiError::HeadersTooLarge(MAX_HEADER_BYTES));
    }
    Ok(())
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// The response to `HEAD`: the length that `GET` would have, and no body.
fn without_body(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0)
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers.insert(CONTENT_LENGTH, length.into());
    }
    Response::from_parts(head, Body::empty())
}
