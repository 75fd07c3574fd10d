//! What the operations listener reports about this node.

use super::shutdown::Readiness;
use super::status::Reporter;
use super::store_health::{StoreHealth, StoreVerdict};
use crate::http::operations::NodeHealth;
use entrepot_config::NodeStatus;
use futures::FutureExt;
use futures::future::BoxFuture;

/// The sources of the reports.
pub struct Probes {
    /// Whether the node accepts requests.
    pub readiness: Readiness,
    /// Whether the store can be written.
    pub store: StoreHealth,
    /// The source of `/status`.
    pub reporter: Reporter,
}

impl NodeHealth for Probes {
    fn is_ready(&self) -> bool {
        self.readiness.is_ready()
    }

    fn store(&self) -> BoxFuture<'_, Result<(), String>> {
        async {
            match self.store.ask().await {
                StoreVerdict::Writable => Ok(()),
                StoreVerdict::Failing(why) => Err(why),
            }
        }
        .boxed()
    }

    fn status(&self) -> BoxFuture<'_, NodeStatus> {
        self.reporter.report().boxed()
    }
}
