//! What the client may do. It is decided before the bucket is asked anything, so a refusal costs
//! nothing and does not tell whether a repository exists.

use super::challenge::Origin;
use crate::http::api::access::Access;
use crate::http::api::requester::Requester;
use crate::http::api::route::{Begin, Route};
use crate::http::error::{AccessError, ApiError};
use entrepot_access::{Caller, Denied, Policy, Proof};
use entrepot_config::Action;
use entrepot_oci::Repository;
use std::sync::Arc;

/// Checks that the requester may send this request, and returns what allows it. A mount from a
/// repository that the requester may not pull from becomes the start of a session, as if that
/// repository did not have the blob.
///
/// # Errors
/// Returns the refusal, with a challenge if another token would help.
pub async fn authorize(
    policy: &Policy,
    origin: &Origin<'_>,
    requester: &Requester,
    route: &mut Route,
) -> Result<Option<Arc<str>>, ApiError> {
    let scope = scope(route);
    let refuse = |denied| AccessError::new(denied, |denied| origin.challenge(denied, &scope));
    let allowed = decide(policy, requester, route).await.map_err(refuse)?;
    let Route::BeginUpload { begin: begin @ Begin::Mount { .. }, .. } = route else { return Ok(allowed) };
    let Begin::Mount { from, .. } = begin else { return Ok(allowed) };
    match (&requester.client.caller, policy.authorize(&requester.client, Action::Pull, from).await) {
        (_, Ok(_)) => {}
        // The client has the right, and gets it with another token. Without a challenge it would
        // upload what it could mount.
        (Caller::Known(_), Err(denied @ Denied::InsufficientScope)) => return Err(refuse(denied).into()),
        (_, Err(_)) => *begin = Begin::Session,
    }
    Ok(allowed)
}

async fn decide(policy: &Policy, requester: &Requester, route: &Route) -> Result<Option<Arc<str>>, Denied> {
    let client = &requester.client;
    match (route, needed(route).next()) {
        // The token service authenticates its clients itself.
        (Route::Home | Route::Token(_), _) => Ok(None),
        // A client learns here that it needs a token, also where anybody may pull. Without this
        // refusal, docker and podman never send their credentials.
        (Route::Version, _) => (client.proof != Proof::None).then_some(None).ok_or(Denied::NoCredential),
        (_, Some(Need::Catalog)) => policy.authorize_catalog(client).map(|()| None),
        (_, Some(Need::Repository(action, repository))) => policy.authorize(client, action, repository).await.map(Some),
        (_, None) => Err(Denied::NoCredential),
    }
}

/// A right that a request needs.
enum Need<'a> {
    Catalog,
    Repository(Action, &'a Repository),
}

/// The rights that a request needs. A request without the second one, to read the source of a mount,
/// is allowed: it becomes a session.
fn needed(route: &Route) -> impl Iterator<Item = Need<'_>> {
    route.access().map(|access| match access {
        Access::Pull(repository) => Need::Repository(Action::Pull, repository),
        Access::Push(repository) => Need::Repository(Action::Push, repository),
        Access::Delete(repository) => Need::Repository(Action::Delete, repository),
        Access::List => Need::Catalog,
    })
}

/// What a token for the request must be good for, as clients ask for it. Some clients ask only for
/// what the challenge names, so that of a mount also names its source, as CNCF Distribution's does.
pub fn scope(route: &Route) -> String {
    let scopes = needed(route).map(|need| match need {
        Need::Catalog => "registry:catalog:*".to_owned(),
        Need::Repository(action, repository) => {
            let actions = match action {
                Action::Pull => "pull",
                Action::Push => "pull,push",
                Action::Delete => "delete",
            };
            format!("repository:{repository}:{actions}")
        }
    });
    scopes.collect::<Vec<_>>().join(" ")
}
