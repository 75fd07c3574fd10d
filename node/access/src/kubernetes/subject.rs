//! How an identity is called in a question to Kubernetes.

use super::{EXTRA_CLAIM, UID_CLAIM};
use crate::{Caller, Identity, Via};
use serde::Serialize;
use serde_json::Value;

/// The user of a SubjectAccessReview.
#[derive(Serialize)]
pub(super) struct Subject {
    user: String,
    groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra: Option<Value>,
}

impl Subject {
    /// A user that the API server named keeps its name. All others get a prefix, also for each
    /// group: else another issuer could say `system:masters`.
    pub(super) fn of(caller: &Caller) -> Subject {
        match caller {
            Caller::Anonymous => Subject {
                user: "system:anonymous".to_owned(),
                groups: vec!["system:unauthenticated".to_owned()],
                uid: None,
                extra: None,
            },
            Caller::Known(identity) if identity.via == Via::Kubernetes => Subject {
                user: identity.name.clone(),
                groups: identity.groups.clone(),
                uid: identity.claims.get(UID_CLAIM).cloned(),
                extra: extra(identity),
            },
            Caller::Known(identity) => {
                let prefixed = |name: &String| format!("{}:{name}", identity.via);
                let groups = identity.groups.iter().map(prefixed).collect();
                Subject { user: prefixed(&identity.name), groups, uid: None, extra: None }
            }
        }
    }
}

fn extra(identity: &Identity) -> Option<Value> {
    serde_json::from_str(identity.claims.get(EXTRA_CLAIM)?).ok()
}
