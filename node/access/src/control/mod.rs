//! Access control as the HTTP layer uses it: the configuration in force, which is replaced as a
//! whole when a file changes.

mod client;
mod denied;
mod policy;

pub use client::{Client, Presented, Proof};
pub use denied::Denied;
pub use policy::Policy;

use parking_lot::RwLock;
use std::sync::Arc;

/// The access control of a node. Clones share it.
#[derive(Clone, Default)]
pub struct AccessControl {
    /// `None`: every client may do everything.
    policy: Arc<RwLock<Option<Arc<Policy>>>>,
}

impl AccessControl {
    /// The policy in force. `None` if every client may do everything. A request uses one policy
    /// from its beginning to its end.
    #[must_use]
    pub fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.read().clone()
    }

    /// Replaces the policy.
    pub fn replace(&self, policy: Option<Arc<Policy>>) {
        *self.policy.write() = policy;
    }
}
