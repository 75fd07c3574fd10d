//! The node's status at `/status`.

use super::access::AccessFiles;
use super::bucket_health::BucketHealth;
use super::live::LiveConfig;
use super::tls::LiveTls;
use crate::observe::Metrics;
use crate::store::Store;
use entrepot_config::{NodeStatus, StoreStatus};
use std::sync::Arc;

/// Creates a status on request.
pub struct Reporter {
    /// Name of the node (`node.name`).
    pub node: String,
    /// Checks the bucket.
    pub health: BucketHealth,
    /// The configuration in effect.
    pub live: LiveConfig,
    /// The access control in force.
    pub access: AccessFiles,
    /// The certificate in use.
    pub tls: LiveTls,
    /// The store whose space is reported.
    pub store: Store,
    /// The source of the number of pending blobs.
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
            auth: self.access.status(),
            store: StoreStatus {
                capacity: usage.capacity,
                used: usage.used.saturating_add(usage.reserved),
                free: usage.free,
                low_free: usage.low_free,
                target_free: usage.target_free,
            },
            tls: self.tls.status(),
            pending_blobs: count(&self.metrics.pending.blobs),
            pending_bytes: count(&self.metrics.pending.bytes),
        }
    }
}
