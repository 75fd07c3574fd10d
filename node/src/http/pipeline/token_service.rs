//! The token service authenticates its clients itself: the credential may be in a form, and a wrong
//! one is refused even if clients without credentials would get a token.

use super::audit::Draft;
use super::authenticate::presented;
use super::challenge::Origin;
use crate::http::api::body::RequestBody;
use crate::http::api::requester::Requester;
use crate::http::api::token::{self, Form, TokenQuery};
use crate::http::error::{AccessError, ApiError};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;
use entrepot_access::{Denied, Policy};
use std::net::IpAddr;
use std::sync::Arc;

/// Answers a request for a token.
///
/// # Errors
/// Returns the refusal of a wrong credential.
pub async fn issue(
    policy: &Arc<Policy>,
    origin: &Origin<'_>,
    (head, body): (&Parts, RequestBody),
    (query, address): (&TokenQuery, IpAddr),
    draft: &mut Draft<'_>,
) -> Result<Response, ApiError> {
    let refused = |denied: Denied| ApiError::from(AccessError::new(denied, |denied| login(denied, origin)));
    let mut presented = presented(head, origin, address).map_err(refused)?;
    let scopes = if head.method == Method::POST {
        match Form::read(body).await? {
            Ok(form) => {
                presented.credential = form.credential.or(presented.credential);
                form.scopes
            }
            Err(error) => return Ok(token::grant_refused(error)),
        }
    } else {
        query.scopes.clone()
    };
    let client = policy.authenticate(&presented).await.map_err(refused)?;
    let requester = Requester { policy: Some(Arc::clone(policy)), client, address };
    draft.requester(&requester);
    token::issue(policy, &requester.client, &origin.service, &scopes)
}

/// Every 401 has a challenge (RFC 9110, section 15.5.2). At the token service it asks for the
/// credential itself.
fn login(denied: &Denied, origin: &Origin<'_>) -> Option<String> {
    matches!(denied, Denied::Credential(_)).then(|| format!("Basic realm=\"{}\"", origin.service))
}
