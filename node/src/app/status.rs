//! The node's status at `/status`.

use super::bucket_health::BucketHealth;
use super::live::LiveConfig;
use crate::observe::Metrics;
use crate::store::Store;
use entrepot_config::{NodeStatus, StoreStatus};
use std::sync::Arc;

/// Creates a status on request.
pub struct Reporter {
    pub node: String,
    pub health: BucketHealth,
    pub live: LiveConfig,
    pub store: Store,
    pub metrics: Arc<Metrics>,
}

impl Reporter {
    /// The current status.
    pub async fn report(&self) -> NodeStatus {
        let bucket = self.health.ask().await;
        let usage = self.store.room.usage();
        let count = |gauge: &prometheus::IntGauge| u64::try_from(gauge.get()).unwrap_or_default();
        NodeStatus {
            node: self.node.clone(),
            bucket,
            config: self.live.status(),
            store: StoreStatus {
                capacity: usage.capacity,
                used: usage.used.saturating_add(usage.reserved),
                free: usage.free,
                low_free: usage.low_free,
                target_free: usage.target_free,
            },
            pending_blobs: count(&self.metrics.pending.blobs),
            pending_bytes: count(&self.metrics.pending.bytes),
        }
    }
}
