//! Who sent a request.

use super::authorize::scope;
use super::challenge::Origin;
use crate::http::api::requester::Requester;
use crate::http::api::route::Route;
use crate::http::error::{AccessError, ApiError};
use crate::http::headers::FORWARDED;
use crate::http::tls::ClientCertificate;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use entrepot_access::{Client, Credential, Denied, Identity, Policy, Presented, Via};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What the request presents.
///
/// # Errors
/// `Credential` if the `Authorization` header is malformed.
pub fn presented(head: &Parts, origin: &Origin<'_>, address: IpAddr) -> Result<Presented, Denied> {
    let header = head.headers.get(AUTHORIZATION).map(|value| Credential::parse(value.as_bytes()));
    let credential = header.transpose().map_err(Denied::from)?.flatten();
    let certificate = certificate(head);
    Ok(Presented { credential, certificate, address, service: origin.service.clone() })
}

/// The identity of the client's certificate. A forwarded request has the certificate of the node that
/// forwarded it, which says nothing of the client.
fn certificate(head: &Parts) -> Option<Identity> {
    let certificate = head.extensions.get::<Arc<ClientCertificate>>()?;
    let own = !head.headers.contains_key(FORWARDED);
    own.then(|| Identity {
        name: certificate.name.clone(),
        groups: certificate.groups.clone(),
        via: Via::Certificate,
        claims: BTreeMap::new(),
    })
}

/// Finds out who sent the request.
///
/// # Errors
/// Returns the refusal of a wrong credential.
pub async fn authenticate(
    policy: &Arc<Policy>,
    origin: &Origin<'_>,
    head: &Parts,
    address: IpAddr,
    route: &Route,
) -> Result<Requester, ApiError> {
    let authenticated = match presented(head, origin, address) {
        Ok(presented) => policy.authenticate(&presented).await,
        Err(denied) => Err(denied),
    };
    match authenticated {
        Ok(client) => Ok(Requester { policy: Some(Arc::clone(policy)), client, address }),
        Err(denied) => Err(AccessError::new(denied, |denied| origin.challenge(denied, &scope(route))).into()),
    }
}

/// The requester at a registry that is open to everybody.
pub fn anybody(address: IpAddr) -> Requester {
    Requester { policy: None, client: Client::without_credentials(), address }
}
