//! What a caller may do, by SubjectAccessReview.

use super::api::ACCESS_REVIEW;
use super::remembered::Key;
use super::subject::Subject;
use super::{Reviews, unavailable};
use crate::{AuthError, Caller};
use entrepot_config::Action;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The API group of the resource. No definition of it exists, because RBAC needs none.
const GROUP: &str = "registry.entrepot.dev";

/// Time for which an allowed action is not asked again: so long a deleted RoleBinding works.
const ALLOWED: Duration = Duration::from_secs(30);

/// The same for a denied action: so long a new RoleBinding does not work.
const DENIED: Duration = Duration::from_secs(5);

/// Time for which pulls that were allowed stay allowed while the API server cannot be asked.
const STALE_IF_ERROR: Duration = Duration::from_secs(600);

/// What the API server says: why it is allowed, or `None`.
pub(super) type Access = Option<String>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(flatten)]
    subject: Subject,
    resource_attributes: Attributes<'a>,
}

#[derive(Serialize)]
struct Attributes<'a> {
    group: &'static str,
    resource: &'a str,
    verb: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    allowed: bool,
    reason: String,
}

impl Reviews {
    /// Why a caller may do this. `None` if it may not. Without a namespace, only a ClusterRoleBinding
    /// can allow it; without a name, it is about all names of the namespace.
    pub(super) async fn may(
        &self,
        caller: &Caller,
        action: Action,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<Option<String>, AuthError> {
        let verb = verb(action);
        let attributes = Attributes { group: GROUP, resource: &self.resource, verb, namespace, name };
        let spec = Spec { subject: Subject::of(caller), resource_attributes: attributes };
        let text = serde_json::to_vec(&spec).map_err(|error| unavailable(error.to_string()))?;
        let key = self.key.hash(&[b"access", &text]);
        let answer = self.access.get(&key, lifetime, self.ask_whether(&spec)).await;
        answer.or_else(|error| self.stale(&key, action).ok_or(error).map(Some))
    }

    async fn ask_whether(&self, spec: &Spec<'_>) -> Result<Access, AuthError> {
        let status: Status = self.api.ask(&ACCESS_REVIEW, spec).await?;
        Ok(status.allowed.then(|| format!("kubernetes: {}", status.reason)))
    }

    /// Why a pull stays allowed while the API server cannot be asked. A denial is not kept: the right
    /// may have been given since.
    fn stale(&self, key: &Key, action: Action) -> Option<String> {
        let (reason, age) = self.access.last(key)?;
        let kept = action == Action::Pull && age < STALE_IF_ERROR;
        reason.filter(|_| kept).map(|reason| format!("{reason} (asked {} s ago)", age.as_secs()))
    }
}

fn lifetime(access: &Access) -> Duration {
    if access.is_some() { ALLOWED } else { DENIED }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull",
        Action::Push => "push",
        Action::Delete => "delete",
    }
}
