//! Merges new conditions into the previous conditions.

use crate::crd::Status;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The new state of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewCondition {
    pub(super) kind: &'static str,
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl NewCondition {
    pub(super) fn yes(kind: &'static str, reason: &'static str, message: impl Into<String>) -> NewCondition {
        NewCondition { kind, status: "True", reason, message: message.into() }
    }

    pub(super) fn no(kind: &'static str, reason: &'static str, message: impl Into<String>) -> NewCondition {
        NewCondition { kind, status: "False", reason, message: message.into() }
    }

    pub(super) fn unknown(kind: &'static str, reason: &'static str, message: impl Into<String>) -> NewCondition {
        NewCondition { kind, status: "Unknown", reason, message: message.into() }
    }
}

/// The conditions with each new condition in place of the previous condition of its type; other
/// conditions stay. `lastTransitionTime` changes only when the status does.
pub(super) fn merged(
    before: &[Condition],
    new_conditions: Vec<NewCondition>,
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let mut conditions = before.to_vec();
    for new in new_conditions {
        let known = conditions.iter_mut().find(|condition| condition.type_ == new.kind);
        let since = known.as_ref().filter(|known| known.status == new.status);
        let condition = Condition {
            type_: new.kind.into(),
            status: new.status.into(),
            reason: new.reason.into(),
            message: new.message,
            observed_generation: generation,
            last_transition_time: since.map_or_else(|| now.clone(), |known| known.last_transition_time.clone()),
        };
        match known {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

/// The conditions whose change is published as an event. A condition that is merely not known yet
/// is not published.
pub fn changed_conditions<'a>(before: Option<&Status>, after: &'a Status) -> Vec<&'a Condition> {
    let before = before.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let is_known = |condition: &Condition| {
        before.iter().any(|known| {
            (&known.type_, &known.status, &known.reason) == (&condition.type_, &condition.status, &condition.reason)
        })
    };
    let is_worth_reporting = |condition: &&Condition| {
        let at_first = !before.iter().any(|known| known.type_ == condition.type_);
        // A new cluster that is not paused, is applied, or has nothing to resize, is not worth an
        // event either.
        let as_usual = condition.type_ == "Paused" && condition.status == "False"
            || matches!(condition.type_.as_str(), "Applied" | "StorageResized") && condition.status == "True";
        condition.status != "Unknown" && !is_known(condition) && !(at_first && as_usual)
    };
    after.conditions.iter().filter(is_worth_reporting).collect()
}
