//! What one reconciliation decides by.

use super::observe::Observed;
use super::storage::Plan;
use crate::crd::RegistryCluster;
use crate::names::Identity;

/// One reconciliation of a cluster. Nothing in it changes after the plan is made: what the steps
/// write is observed by the next reconciliation.
pub struct Pass<'a> {
    pub cluster: &'a RegistryCluster,
    pub identity: Identity,
    pub observed: Observed,
    /// What to do with the volumes.
    pub plan: Plan,
}
