//! What the audit log tells of a request. The stages fill it in while they handle the request.

use crate::http::api::audited::Audited;
use crate::http::api::requester::Requester;
use crate::http::api::route::Route;
use crate::http::error::{AccessError, ApiError};
use crate::observe::audit::{Actor, Audit, Event, Line, MovedTag, Outcome};
use axum::http::StatusCode;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use axum::response::Response;
use entrepot_access::{Caller, Denied, Proof};
use std::net::IpAddr;
use std::sync::Arc;

/// The line of a request, as far as it is known.
pub struct Draft<'a> {
    audit: &'a Audit,
    address: IpAddr,
    request_id: &'a str,
    /// What the request is, if that is logged.
    event: Option<Event>,
    /// Copied only if a line is to be expected, because most requests are pulls, which have none.
    target: Option<Target>,
    /// The caller, and the ID of its token.
    caller: Option<(Caller, Option<String>)>,
    rule: Option<Arc<str>>,
}

/// What a request is about.
struct Target {
    user_agent: Option<String>,
    repository: Option<String>,
    reference: Option<String>,
}

impl Target {
    fn of(head: &Parts, route: &Route) -> Target {
        let user_agent = head.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        Target {
            user_agent: user_agent.map(str::to_owned),
            repository: route.repository().map(ToString::to_string),
            reference: reference(route),
        }
    }
}

impl<'a> Draft<'a> {
    /// The line of a request of which nothing else is known.
    pub fn new(audit: &'a Audit, address: IpAddr, request_id: &'a str) -> Draft<'a> {
        Draft { audit, address, request_id, event: None, target: None, caller: None, rule: None }
    }

    /// What the request asks for.
    pub fn requested(&mut self, head: &Parts, route: &Route) {
        self.event = event(route).filter(|event| self.audit.logs(*event));
        self.target = self.event.map(|_| Target::of(head, route));
    }

    /// Access control refuses the request, which is logged whatever the request asks for.
    pub fn denied(&mut self, head: &Parts, route: &Route) {
        self.target.get_or_insert_with(|| Target::of(head, route));
    }

    /// Who sent the request.
    pub fn requester(&mut self, requester: &Requester) {
        let token = match &requester.client.proof {
            Proof::Token { id, .. } => Some(id.clone()),
            Proof::None | Proof::Credential => None,
        };
        self.caller = Some((requester.client.caller.clone(), token));
    }

    /// What allowed the request.
    pub fn allowed_by(&mut self, rule: Option<Arc<str>>) {
        self.rule = rule;
    }

    /// Writes the line of a request that was answered.
    pub fn answered(self, response: &Response) {
        let Some(event) = self.event else { return };
        let outcome = if response.status().as_u16() < 400 { Outcome::Ok } else { Outcome::Failed };
        let (audit, mut line) = (self.audit, self.line(event, outcome, response.status()));
        if let Some(audited) = response.extensions().get::<Audited>() {
            line.digest = audited.digest.as_ref().map(ToString::to_string);
            let tag = |(tag, previous): &(_, Option<_>)| MovedTag {
                tag: ToString::to_string(tag),
                previous_digest: previous.as_ref().map(ToString::to_string),
            };
            line.tags = audited.tags.iter().map(tag).collect();
        }
        audit.write(line);
    }

    /// Writes the line of a request that was refused or failed.
    pub fn refused(self, error: &ApiError) {
        let (event, outcome, reason) = match (error, self.event) {
            (ApiError::Access(error), event) => {
                let Some(reason) = reason(error) else { return };
                let event = event.filter(|event| *event == Event::Login).unwrap_or(Event::Denied);
                (event, Outcome::Denied, reason)
            }
            (error, Some(event)) => (event, Outcome::Failed, error.to_string()),
            (_, None) => return,
        };
        let (audit, line) = (self.audit, self.line(event, outcome, error.refusal().status));
        audit.write(Line { reason: Some(reason), ..line });
    }

    fn line(self, event: Event, outcome: Outcome, status: StatusCode) -> Line {
        let line = Line {
            status: Some(status.as_u16()),
            actor: self.caller.map(|(caller, token)| actor(&caller, token)),
            address: Some(self.address),
            rule: self.rule.map(|rule| rule.to_string()),
            request_id: Some(self.request_id.to_owned()),
            ..Line::new(event, outcome)
        };
        match self.target {
            Some(Target { user_agent, repository, reference }) => Line { user_agent, repository, reference, ..line },
            None => line,
        }
    }
}

fn actor(caller: &Caller, token: Option<String>) -> Actor {
    match caller {
        Caller::Anonymous => Actor { name: caller.to_string(), via: None, groups: Vec::new(), token },
        Caller::Known(identity) => Actor {
            name: identity.name.clone(),
            via: Some(identity.via.to_string()),
            groups: identity.groups.clone(),
            token,
        },
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
