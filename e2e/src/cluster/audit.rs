//! The API server's audit log: all requests with their user and response status.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The audit log of a cluster.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// A position in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// A request that got a response.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub verb: String,
    pub user: User,
    #[serde(rename = "requestURI")]
    pub uri: String,
    #[serde(default)]
    pub object_ref: Object,
    #[serde(default)]
    pub response_status: Status,
    #[serde(default)]
    pub user_agent: String,
    /// RFC 3339 in microseconds and of constant length, so that the order of the texts is the order
    /// of the times.
    pub stage_timestamp: String,
    /// Annotations of authorization and admission.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// `system:serviceaccount:<namespace>:<name>` for a pod.
    pub username: String,
    /// Further facts from the user's token.
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

/// The object of a request; empty for a request without a resource.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub api_group: String,
}

impl Object {
    /// Whether it has that namespace and kind, such as `pods` or `pods/status`.
    pub fn is(&self, namespace: &str, resource: &str) -> bool {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        (self.namespace.as_str(), self.resource.as_str(), self.subresource.as_str()) == (namespace, plural, subresource)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub code: u16,
}

impl Request {
    /// Whether it is a request to change something.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.response_status.code)
    }

    /// Whether authorization denied it. A write to a namespace that is being deleted also gets 403,
    /// but for another reason.
    pub fn is_forbidden(&self) -> bool {
        self.annotations.get("authorization.k8s.io/decision").is_some_and(|decision| decision == "forbid")
    }

    /// The pod that sent it, by its token.
    pub fn pod(&self) -> Option<&str> {
        self.user.extra.get("authentication.kubernetes.io/pod-name")?.first().map(String::as_str)
    }
}

impl Audit {
    pub(super) fn new(path: &Path) -> Audit {
        Audit { path: path.to_owned() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The beginning of the log.
    pub fn beginning(&self) -> Mark {
        Mark(0)
    }

    /// The present end of the log.
    ///
    /// # Errors
    /// If the log does not exist.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(std::fs::metadata(&self.path).context("cannot read the size of the audit log")?.len()))
    }

    /// All requests that got their response after the mark. A watch counts when it ends.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn since(&self, mark: Mark) -> Result<Vec<Request>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may be incomplete.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// The requests of users whose name starts with `user`.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn of(&self, user: &str, mark: Mark) -> Result<Vec<Request>> {
        let mut requests = self.since(mark)?;
        requests.retain(|request| request.user.username.starts_with(user));
        Ok(requests)
    }
}
