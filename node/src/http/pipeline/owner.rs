//! Requests of an upload session are handled by the node that owns it.

use super::call::Call;
use super::forward::Forwarder;
use crate::http::api::body::RequestBody;
use crate::http::api::route::Route;
use crate::http::api::{Services, uploads};
use crate::http::error::ApiError;
use crate::upload::Owner;
use axum::http::Request;
use axum::response::Response;
use entrepot_oci::SessionId;

/// Where a request is handled.
pub enum Handled {
    /// At this node, which has not read the body yet.
    Here(RequestBody),
    /// At the owner of its session, with this response.
    Elsewhere(Response),
}

/// Sends the requests of a session to its owner, unless this node owns the session or the request
/// belongs to none.
///
/// # Errors
/// `UnknownSession` if the owner is unreachable, or its failure.
pub async fn handle_at_owner(
    services: &Services,
    forwarder: &Forwarder,
    call: &Call<'_>,
    body: RequestBody,
) -> Result<Handled, ApiError> {
    let Some(id) = session(&call.route) else { return Ok(Handled::Here(body)) };
    let answer = match services.uploads.owner(id) {
        Owner::Here => return Ok(Handled::Here(body)),
        Owner::Peer(peer) => {
            let request = Request::from_parts(call.head.clone(), body);
            forwarder.forward(&peer, request, call.request_id).await
        }
        Owner::Unknown => Err(ApiError::UnknownSession),
    };
    match (answer, &call.route) {
        // The request may repeat one that the owner completed before it became unreachable.
        (Err(ApiError::UnknownSession), Route::FinishUpload { repository, digest, .. }) => {
            uploads::finish_without_owner(services, repository, digest).await.map(Handled::Elsewhere)
        }
        (answer, _) => answer.map(Handled::Elsewhere),
    }
}

fn session(route: &Route) -> Option<&SessionId> {
    match route {
        Route::UploadStatus { id, .. }
        | Route::AppendUpload { id, .. }
        | Route::FinishUpload { id, .. }
        | Route::CancelUpload { id, .. } => Some(id),
        _ => None,
    }
}
