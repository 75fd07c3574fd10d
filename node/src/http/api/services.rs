//! What the handlers call.

use crate::discover::Discover;
use crate::fetch::Fetch;
use crate::manage::Manage;
use crate::observe::Metrics;
use crate::observe::audit::Audit;
use crate::upload::Uploads;
use entrepot_access::AccessControl;
use std::sync::Arc;

/// The flows that handle requests.
pub struct Services {
    /// Receives blobs and manifests.
    pub uploads: Uploads,
    /// Serves content and tags.
    pub fetch: Fetch,
    /// Lists tags, referrers and repositories.
    pub discover: Discover,
    /// Deletes tags, manifests and blobs.
    pub manage: Manage,
    /// Who may do what.
    pub access: AccessControl,
    /// The audit log.
    pub audit: Arc<Audit>,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// Refuses every request that writes.
    pub read_only: bool,
}
