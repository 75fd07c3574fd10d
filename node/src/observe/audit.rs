//! The audit log: one line of JSON for each login, refusal, push, deletion and change of the access
//! control, on the standard error of the node, whatever the format of the log is. A line has
//! `"log":"audit"`, so that a collector can separate it. It never contains a credential.

use entrepot_config::{Audit as Settings, AuditedPulls};
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Uptime;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

/// Time within which the same refusal is logged once. A pull secret that is wrong is repeated by
/// every kubelet, several times a minute.
const REPEATED: Duration = Duration::from_secs(60);

/// Maximum number of refusals that are remembered to be logged once.
const REMEMBERED: usize = 1000;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// A token was asked for.
    Login,
    /// A request was refused by access control.
    Denied,
    /// A manifest was pushed.
    Push,
    /// A manifest, a tag or a blob was deleted.
    Delete,
    /// A manifest was pulled.
    PullManifest,
    /// A blob was pulled.
    PullBlob,
    /// The access control of the node was replaced, or a new one was refused.
    Policy,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// Access control refused it.
    Denied,
    /// It failed for another reason.
    Failed,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// The name, or `anonymous`.
    pub name: String,
    /// How the identity was proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// The groups of the identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// ID of the token (`jti`) that the request had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A tag that a push made or moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MovedTag {
    /// The tag.
    pub tag: String,
    /// The digest that it had before. Unset if the tag is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_digest: Option<String>,
}

/// A line of the audit log, without what all lines have.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What the line is about.
    pub event: Event,
    /// How it ended.
    pub outcome: Outcome,
    /// Status of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The address of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The `User-Agent` of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The tag or the digest in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The digest of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The tags that a push made or moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<MovedTag>,
    /// What allowed it: a rule of the configuration, or Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why it was refused. The client does not learn it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The request ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Number of times that the same refusal was repeated since its last line.
    #[serde(skip_serializing_if = "is_zero")]
    pub repeated: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Line {
    /// A line about nothing but this event.
    pub fn new(event: Event, outcome: Outcome) -> Line {
        Line {
            event,
            outcome,
            status: None,
            actor: None,
            address: None,
            user_agent: None,
            repository: None,
            reference: None,
            digest: None,
            tags: Vec::new(),
            rule: None,
            reason: None,
            request_id: None,
            repeated: 0,
        }
    }

    /// What makes two refusals the same.
    fn refusal(&self) -> Refusal {
        let name = self.actor.as_ref().map(|actor| actor.name.clone());
        Refusal(self.event, name, self.address, self.repository.clone(), self.reason.clone())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Refusal(Event, Option<String>, Option<IpAddr>, Option<String>, Option<String>);

/// The last line of a refusal, and how often it was repeated since.
struct Repeats {
    logged: Uptime,
    repeated: u64,
}

/// Writes the audit log.
pub struct Audit {
    node: String,
    clock: Clock,
    settings: RwLock<Settings>,
    refusals: Mutex<HashMap<Refusal, Repeats>>,
    output: Mutex<Box<dyn Write + Send>>,
}

/// A line as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    log: &'static str,
    time: String,
    node: &'a str,
    #[serde(flatten)]
    line: &'a Line,
}

impl Audit {
    /// The audit log of a node.
    pub fn new(node: String, settings: Settings, clock: Clock, output: Box<dyn Write + Send>) -> Audit {
        Audit { node, clock, settings: RwLock::new(settings), refusals: Mutex::default(), output: Mutex::new(output) }
    }

    /// Applies changed settings.
    pub fn set(&self, settings: Settings) {
        *self.settings.write() = settings;
    }

    /// Whether this event is logged.
    pub fn logs(&self, event: Event) -> bool {
        let settings = self.settings.read();
        match event {
            Event::PullManifest => settings.pulls >= AuditedPulls::Manifests,
            Event::PullBlob => settings.pulls >= AuditedPulls::All,
            Event::Login | Event::Denied | Event::Push | Event::Delete | Event::Policy => settings.writes,
        }
    }

    /// Writes a line, unless its event is not logged or it repeats a refusal. A line that cannot be
    /// written is lost: a node does not stop because of its log.
    pub fn write(&self, mut line: Line) {
        if !self.logs(line.event) {
            return;
        }
        if line.outcome == Outcome::Denied {
            let Some(repeated) = self.repeats(&line) else { return };
            line.repeated = repeated;
        }
        let written = Written { log: "audit", time: self.clock.now().rfc3339(), node: &self.node, line: &line };
        if let Ok(mut text) = serde_json::to_vec(&written) {
            text.push(b'\n');
            drop(self.output.lock().write_all(&text));
        }
    }

    /// How often the refusal was repeated since its last line; `None` if that line is recent.
    fn repeats(&self, line: &Line) -> Option<u64> {
        let now = self.clock.uptime();
        let mut refusals = self.refusals.lock();
        if refusals.len() >= REMEMBERED {
            refusals.retain(|_, repeats| now.since(repeats.logged) < REPEATED);
        }
        if refusals.len() >= REMEMBERED {
            // More different refusals within a minute than are remembered: all are logged.
            return Some(0);
        }
        match refusals.entry(line.refusal()) {
            MapEntry::Occupied(mut known) => {
                let repeats = known.get_mut();
                if now.since(repeats.logged) < REPEATED {
                    repeats.repeated += 1;
                    return None;
                }
                repeats.logged = now;
                Some(std::mem::take(&mut repeats.repeated))
            }
            MapEntry::Vacant(new) => {
                new.insert(Repeats { logged: now, repeated: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests;
