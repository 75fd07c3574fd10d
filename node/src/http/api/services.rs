//! What the handlers call.

use crate::discover::Discover;
use crate::fetch::Fetch;
use crate::manage::Manage;
use crate::observe::Metrics;
use crate::upload::Uploads;
use std::sync::Arc;

/// The flows that handle requests.
pub struct Services {
    pub uploads: Uploads,
    pub fetch: Fetch,
    pub discover: Discover,
    pub manage: Manage,
    pub metrics: Arc<Metrics>,
    /// Refuses every request that writes.
    pub read_only: bool,
}
