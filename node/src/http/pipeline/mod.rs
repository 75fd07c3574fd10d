//! What happens to every request, as stages in one order. Each stage is a file.
//!
//! 1. `drain`: unread data of the body is discarded, so that the client sees the response.
//! 2. `request_id`: the ID for the log and for error messages.
//! 3. `concurrency`: a limit of requests at the same time.
//! 4. `parse`: sizes, the [`Route`], and `namespace`.
//! 5. `cors`: which web pages may read the response; preflight requests end here.
//! 6. `read_only`: a read-only registry refuses requests that write.
//! 7. `owner`: requests of an upload session go to the node that owns it, by `forward`.
//! 8. The handler, in [`Api`].
//! 9. `response`: the headers of every response.
//! 10. `observe`: span, metrics and access log, until the last byte was sent.
//!
//! Stages that decide about access belong into [`Pipeline::answer`] after `cors` (a browser sends a
//! preflight request without credentials) and before `read_only`. What they have to decide about is
//! `Route::access`. They then also run at the owner of a session: `forward` leaves `Authorization`
//! in the request, and the header that marks a forwarded request proves nothing, because any client
//! can send it.

mod call;
mod concurrency;
mod cors;
mod drain;
mod forward;
mod namespace;
mod observe;
mod owner;
mod parse;
mod read_only;
mod request_id;
mod response;

use super::api::body::RequestBody;
use super::api::route::Route;
use super::api::{Api, Services};
use super::error::ApiError;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::response::Response;
use call::Call;
use concurrency::Concurrency;
use cors::Cors;
use entrepot_config as config;
use forward::Forwarder;
use observe::Observe;
use owner::{Handled, handle_at_owner};
use parse::Parse;
use read_only::ReadOnly;
use request_id::RequestId;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;

/// The stages, with the limits of the configuration.
struct Pipeline {
    concurrency: Concurrency,
    parse: Parse,
    cors: Cors,
    read_only: ReadOnly,
    forwarder: Forwarder,
    stall_timeout: Duration,
    api: Api,
    observe: Observe,
}

/// The router of a node, with the limits of its configuration. It has one handler for every path,
/// because no pattern of a router fits: repository names contain slashes, and the segment after the
/// name selects the endpoint. `Route` parses the path.
///
/// The router requires the peer as [`ConnectInfo`], which [`super::Server`] sets.
pub fn router(services: Services, config: &config::Http) -> Router {
    let pipeline = Pipeline {
        concurrency: Concurrency::new(config.max_requests),
        parse: Parse { namespaces: config.namespaces.clone() },
        cors: Cors::new(&config.allowed_origins),
        read_only: ReadOnly(services.read_only),
        forwarder: Forwarder::new(),
        stall_timeout: config.stall_timeout.get(),
        observe: Observe::new(Arc::clone(&services.metrics)),
        api: Api::new(services),
    };
    Router::new().fallback(dispatch).with_state(Arc::new(pipeline))
}

async fn dispatch(
    State(pipeline): State<Arc<Pipeline>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    // This comes first, because the client never sees a refusal that a reset destroys.
    let request = drain::unread_data(request);
    let request_id = RequestId::of(request.headers());
    let (permit, route) = match pipeline.concurrency.admit() {
        Ok(permit) => (Some(permit), pipeline.parse.route(&request)),
        Err(busy) => (None, Err(busy)),
    };
    let mut observed = pipeline.observe.begin(&request, route.as_ref().ok(), &request_id, peer, permit);
    let (sharing, is_head) = (pipeline.cors.sharing(request.headers()), request.method() == Method::HEAD);
    let answer = pipeline.answer(request, route, &request_id).instrument(observed.span()).await;
    let response = answer.unwrap_or_else(|error| observed.refuse(&error, &request_id));
    observed.send(response::complete(response, &request_id, sharing, is_head))
}

impl Pipeline {
    /// The stages that may refuse a request or answer it.
    async fn answer(
        &self,
        request: Request,
        route: Result<Route, ApiError>,
        request_id: &RequestId,
    ) -> Result<Response, ApiError> {
        if let Some(response) = self.cors.preflight(&request) {
            return Ok(response);
        }
        let (head, body) = request.into_parts();
        let body = RequestBody::new(body, self.stall_timeout);
        let call = Call { route: route?, head, request_id };
        self.read_only.check(&call)?;
        match handle_at_owner(&self.api.services, &self.forwarder, &call, body).await? {
            Handled::Here(body) => self.api.handle(&call.route, &call.head, body).await,
            Handled::Elsewhere(response) => Ok(response),
        }
    }
}
