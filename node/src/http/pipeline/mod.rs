//! What happens to every request, as stages in one order. Each stage is a file.
//!
//! 1. `drain`: unread data of the body is discarded, so that the client sees the response.
//! 2. `request_id`: the ID for the log and for error messages.
//! 3. `client_address`: whose request it is, behind trusted proxies. An extension of the request.
//! 4. `concurrency`: a limit of requests at the same time, shared among clients.
//! 5. `parse`: sizes, the [`Route`], and `namespace`.
//! 6. `cors`: which web pages may read the response; preflight requests end here.
//! 7. `cross_site`: requests of other web pages are refused.
//! 8. `token_service`: issues tokens; other requests pass.
//! 9. `authenticate`: who sent the request. `challenge` tells a client where it gets a token.
//! 10. `authorize`: what that client may do.
//! 11. `read_only`: a read-only registry refuses requests that write.
//! 12. `owner`: requests of an upload session go to the node that owns it, by `forward`.
//! 13. The handler, in [`Api`].
//! 14. `response`: the headers of every response.
//! 15. `observe`: span, metrics and access log, until the last byte was sent; `audit`: the audit log.
//!
//! Access is decided after `cors`, because a browser sends a preflight request without credentials.
//! It is decided again at the owner of a session: `forward` leaves `Authorization` in the request,
//! and the header that marks a forwarded request proves nothing, because any client can send it.

mod audit;
mod authenticate;
mod authorize;
mod call;
mod challenge;
mod concurrency;
mod cors;
mod cross_site;
mod drain;
mod forward;
mod namespace;
mod observe;
mod owner;
mod parse;
mod read_only;
mod request_id;
mod response;
mod token_service;

use super::api::body::RequestBody;
use super::api::requester::Requester;
use super::api::route::Route;
use super::api::{Api, Services};
use super::client_address::TrustedProxies;
use super::error::ApiError;
use super::pace::PaceLimit;
use audit::Draft;
use authenticate::{anybody, authenticate};
use authorize::authorize;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;
use call::Call;
use challenge::Origin;
use concurrency::Concurrency;
use cors::Cors;
use cross_site::CrossSite;
use entrepot_access::{AccessControl, Policy};
use entrepot_config as config;
use forward::Forwarder;
pub use forward::Forwarding;
use http_body::Body as _;
use observe::Observe;
use owner::{Handled, handle_at_owner};
use parse::Parse;
use read_only::ReadOnly;
use request_id::RequestId;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tracing::{Instrument, Span};

/// The stages, with the limits of the configuration.
struct Pipeline {
    proxies: TrustedProxies,
    concurrency: Concurrency,
    parse: Parse,
    cors: Cors,
    access: AccessControl,
    cross_site: CrossSite,
    read_only: ReadOnly,
    forwarder: Forwarder,
    pace: PaceLimit,
    api: Api,
    observe: Observe,
}

/// The router of a node, with the limits of its configuration. It has one handler for every path,
/// because no pattern of a router fits: repository names contain slashes, and the segment after the
/// name selects the endpoint. `Route` parses the path.
///
/// The router requires the peer as [`ConnectInfo`], which [`super::Server`] sets.
pub fn router(services: Services, config: &config::Http, forwarding: Forwarding) -> Router {
    let pipeline = Pipeline {
        proxies: TrustedProxies::new(&config.trusted_proxies),
        concurrency: Concurrency::new(config.max_requests),
        parse: Parse { namespaces: config.namespaces.clone() },
        cors: Cors::new(&config.allowed_origins),
        access: services.access.clone(),
        cross_site: CrossSite::new(config),
        read_only: ReadOnly(services.read_only),
        forwarder: Forwarder::new(forwarding, config.stall_timeout.get()),
        pace: PaceLimit::of(config),
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
    let mut request = drain::unread_data(request);
    let request_id = RequestId::of(request.headers());
    let client = pipeline.proxies.client(peer.ip(), request.headers(), request.extensions());
    request.extensions_mut().insert(client);
    let has_body = !request.body().is_end_stream();
    let (permit, route) = match pipeline.concurrency.admit(&client, has_body).await {
        Ok(permit) => (Some(permit), pipeline.parse.route(&request)),
        Err(busy) => (None, Err(busy)),
    };
    let mut observed = pipeline.observe.begin(&request, route.as_ref().ok(), &request_id, peer, permit);
    request.extensions_mut().insert(observed.running());
    let (sharing, is_head) = (pipeline.cors.sharing(request.headers()), request.method() == Method::HEAD);
    let policy = pipeline.access.policy();
    let private = policy.is_some();
    let mut draft = Draft::new(&pipeline.api.services.audit, client.address, request_id.as_str());
    let answer = pipeline.answer(request, route, &request_id, policy, (client.address, &mut draft));
    let response = match answer.instrument(observed.span()).await {
        Ok(response) => {
            draft.answered(&response);
            response
        }
        Err(error) => {
            draft.refused(&error);
            observed.refuse(&error, &request_id)
        }
    };
    observed.send(response::complete(response, &request_id, sharing, is_head, private))
}

impl Pipeline {
    /// The stages that may refuse a request or answer it.
    async fn answer(
        &self,
        request: Request,
        route: Result<Route, ApiError>,
        request_id: &RequestId,
        policy: Option<Arc<Policy>>,
        (address, draft): (IpAddr, &mut Draft<'_>),
    ) -> Result<Response, ApiError> {
        if let Some(response) = self.cors.preflight(&request) {
            return Ok(response);
        }
        let (head, body) = request.into_parts();
        let (body, mut route) = (RequestBody::new(body, self.pace), route?);
        draft.requested(&head, &route);
        self.cross_site.check(&head, &self.cors)?;
        if let (Some(policy), Route::Token(query)) = (&policy, &route) {
            let origin = Origin::of(policy, &head)?;
            return token_service::issue(policy, &origin, (&head, body), (query, address), draft).await;
        }
        let requester = match self.requester(policy, &mut route, &head, (address, draft)).await {
            Ok(requester) => requester,
            Err(error) => {
                draft.denied(&head, &route);
                return Err(error);
            }
        };
        let call = Call { route, head, request_id };
        self.read_only.check(&call)?;
        match handle_at_owner(&self.api.services, &self.forwarder, &call, body).await? {
            Handled::Here(body) => self.api.handle(&call.route, &call.head, body, &requester).await,
            Handled::Elsewhere(response) => Ok(response),
        }
    }

    /// Who sent the request, if the policy allows it.
    async fn requester(
        &self,
        policy: Option<Arc<Policy>>,
        route: &mut Route,
        head: &Parts,
        (address, draft): (IpAddr, &mut Draft<'_>),
    ) -> Result<Requester, ApiError> {
        let Some(policy) = policy else {
            let requester = anybody(address);
            draft.requester(&requester);
            return Ok(requester);
        };
        let origin = Origin::of(&policy, head)?;
        let requester = authenticate(&policy, &origin, head, address, route).await?;
        Span::current().record("user", tracing::field::display(&requester.client.caller));
        draft.requester(&requester);
        draft.allowed_by(authorize(&policy, &origin, &requester, route).await?);
        Ok(requester)
    }
}
