//! The API server's audit log: who asked what, with which answer.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The log of a cluster.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// A request that was answered.
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
    /// RFC 3339, in microseconds, of as many characters each time: an order of texts is one of times.
    pub stage_timestamp: String,
    /// What authorization and admission noted.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// `system:serviceaccount:<namespace>:<name>` of a pod.
    pub username: String,
    /// What its token tells beside that.
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

/// What a request is about; empty where it is about no resource.
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
    /// Whether it is of that namespace and kind: `pods`, `pods/status`.
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
    /// Whether it changes something, or means to.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Whether what it asked for was done.
    pub fn succeeded(&self) -> bool {
        (200..300).contains(&self.response_status.code)
    }

    /// Whether the user may not do this at all. A namespace that is being deleted takes nothing new from anybody, and
    /// that is no such answer, though its status is 403 too.
    pub fn is_forbidden(&self) -> bool {
        self.annotations.get("authorization.k8s.io/decision").is_some_and(|decision| decision == "forbid")
    }

    /// The pod that asked, by its token.
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

    /// Where it begins.
    pub fn beginning(&self) -> Mark {
        Mark(0)
    }

    /// The end of the log as it is now.
    ///
    /// # Errors
    /// When there is no log.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark(std::fs::metadata(&self.path).context("the audit log")?.len()))
    }

    /// Every request that was answered after the mark. A watch counts when it ends.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn since(&self, mark: Mark) -> Result<Vec<Request>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may be in the middle of being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// The same, of the users whose name begins so.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn of(&self, user: &str, mark: Mark) -> Result<Vec<Request>> {
        let mut requests = self.since(mark)?;
        requests.retain(|request| request.user.username.starts_with(user));
        Ok(requests)
    }
}
