//! The audit log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The audit log: one line of JSON on standard error for each login, refusal, push, deletion and
/// change of the access control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Audit {
    /// Which pulls are logged.
    pub pulls: AuditedPulls,
    /// Whether logins, refusals, pushes, deletions and changes of the access control are logged.
    pub writes: bool,
}

impl Default for Audit {
    fn default() -> Audit {
        Audit { pulls: AuditedPulls::None, writes: true }
    }
}

/// Which pulls the audit log contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AuditedPulls {
    /// No pull.
    #[default]
    None,
    /// Pulls of manifests: one or two lines for an image.
    Manifests,
    /// Pulls of manifests and blobs.
    All,
}
