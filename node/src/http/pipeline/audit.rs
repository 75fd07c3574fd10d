//! What the audit log tells of a request. The stages fill it in while they handle the request.

use crate::http::api::audited::Audited;
use crate::http::api::requester::Requester;
use crate::http::api::route::Route;
use crate::http::error::{AccessError, ApiError};
use crate::observe::audit::{Actor, Audit, Event, Line, MovedTag, Outcome};
use axum::extract::Request;
use axum::http::header::USER_AGENT;
use axum::response::Response;
use entrepot_access::{Caller, Denied, Proof};
use std::net::IpAddr;

/// The line of a request, as far as it is known.
pub struct Draft {
    /// What the request is, if it is logged when it is allowed.
    event: Option<Event>,
    line: Line,
}

impl Draft {
    /// The line of a request that starts.
    pub fn new(request: &Request, route: Option<&Route>, address: IpAddr, request_id: &str) -> Draft {
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        let line = Line {
            address: Some(address),
            user_agent: user_agent.map(str::to_owned),
            repository: route.and_then(Route::repository).map(ToString::to_string),
            reference: route.and_then(reference),
            request_id: Some(request_id.to_owned()),
            ..Line::new(Event::Denied, Outcome::Denied)
        };
        Draft { event: route.and_then(event), line }
    }

    /// Who sent the request.
    pub fn requester(&mut self, requester: &Requester) {
        let token = match &requester.client.proof {
            Proof::Token { id, .. } => Some(id.clone()),
            Proof::None | Proof::Credential => None,
        };
        self.line.actor = Some(match &requester.client.caller {
            Caller::Anonymous => Actor { name: "anonymous".to_owned(), via: None, groups: Vec::new(), token },
            Caller::Known(identity) => Actor {
                name: identity.name.clone(),
                via: Some(identity.via.to_string()),
                groups: identity.groups.clone(),
                token,
            },
        });
    }

    /// What allowed the request.
    pub fn allowed_by(&mut self, rule: Option<String>) {
        self.line.rule = rule;
    }

    /// Writes the line of a request that was answered.
    pub fn answered(mut self, audit: &Audit, response: &Response) {
        let Some(event) = self.event.filter(|event| audit.logs(*event)) else { return };
        self.line.event = event;
        self.line.outcome = if response.status().as_u16() < 400 { Outcome::Ok } else { Outcome::Failed };
        self.line.status = Some(response.status().as_u16());
        if let Some(audited) = response.extensions().get::<Audited>() {
            self.line.digest = audited.digest.as_ref().map(ToString::to_string);
            let tag = |(tag, previous): &(_, Option<_>)| MovedTag {
                tag: ToString::to_string(tag),
                previous_digest: previous.as_ref().map(ToString::to_string),
            };
            self.line.tags = audited.tags.iter().map(tag).collect();
        }
        audit.write(self.line);
    }

    /// Writes the line of a request that was refused or failed.
    pub fn refused(mut self, audit: &Audit, error: &ApiError) {
        self.line.status = Some(error.refusal().status.as_u16());
        match error {
            ApiError::Access(error) => {
                let Some(reason) = reason(error) else { return };
                self.line.reason = Some(reason);
                if self.event == Some(Event::Login) {
                    self.line.event = Event::Login;
                }
            }
            error => {
                let Some(event) = self.event else { return };
                (self.line.event, self.line.outcome) = (event, Outcome::Failed);
                self.line.reason = Some(error.to_string());
            }
        }
        audit.write(self.line);
    }
}

/// The event of a request that is allowed.
fn event(route: &Route) -> Option<Event> {
    match route {
        Route::Token(_) => Some(Event::Login),
        Route::PushManifest { .. } => Some(Event::Push),
        Route::DeleteManifest { .. } | Route::DeleteBlob { .. } => Some(Event::Delete),
        Route::PullManifest { .. } => Some(Event::PullManifest),
        Route::PullBlob { .. } => Some(Event::PullBlob),
        Route::Home
        | Route::Version
        | Route::Catalog { .. }
        | Route::Tags { .. }
        | Route::Referrers { .. }
        | Route::BeginUpload { .. }
        | Route::UploadStatus { .. }
        | Route::AppendUpload { .. }
        | Route::FinishUpload { .. }
        | Route::CancelUpload { .. } => None,
    }
}

fn reference(route: &Route) -> Option<String> {
    match route {
        Route::PushManifest { reference, .. }
        | Route::DeleteManifest { reference, .. }
        | Route::PullManifest { reference, .. } => Some(reference.to_string()),
        Route::DeleteBlob { digest, .. } | Route::PullBlob { digest, .. } => Some(digest.to_string()),
        _ => None,
    }
}

/// Why access control refused a request. `None` for the answer that tells a client to get a token,
/// which is a part of every login and every pull.
fn reason(error: &AccessError) -> Option<String> {
    match error.denied() {
        Denied::NoCredential | Denied::InsufficientScope => None,
        Denied::Credential(cause) | Denied::Unavailable(cause) => Some(cause.to_string()),
        denied @ (Denied::Forbidden { .. } | Denied::TooMany { .. }) => Some(denied.to_string()),
    }
}
